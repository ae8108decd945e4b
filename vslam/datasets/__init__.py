"""Recorded sequences, one file a layout. `open_dataset` finds the layout by its name."""

from __future__ import annotations

from pathlib import Path

from vslam.datasets.dataset import Dataset
from vslam.registry import load

__all__ = ["Dataset", "open_dataset"]


def open_dataset(layout: str, path: Path | None = None, camera_file: Path | None = None) -> Dataset:
    """Open a sequence.

    Args:
        layout: a registered name: `sample`, `tum`, `icl`, `seven_scenes`, ...
        path: its folder; None means the embedded sample for `tum` and `sample`, an error elsewhere.
        camera_file: YAML of the intrinsics; None: found by the layout's own rules.

    Raises:
        VslamError: what is missing or wrong, in one line.
    """
    return load("datasets", layout)(path, camera_file)
