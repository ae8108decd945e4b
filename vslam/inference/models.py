"""The shipped networks: `weights/manifest.json` names files, checksums, licences and metrics."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vslam.config import shipped_folders
from vslam.errors import VslamError


@dataclass(frozen=True)
class Model:
    """One network of the manifest; `files` maps a precision (`fp32`, `int8`) to file name, sha256 and bytes."""

    name: str
    folder: Path
    licence: str
    description: str
    auto_precision: str
    sigma: float  # px of the network's input: measured spread of a keypoint about its true place
    files: dict[str, dict[str, Any]]
    metrics: dict[str, Any]
    card: str

    def file(self, precision: str = "auto") -> Path:
        """The file of a precision, its checksum verified.

        Raises:
            VslamError: no such precision, file missing, or damaged.
        """
        chosen = self.auto_precision if precision == "auto" else precision
        if chosen not in self.files:
            raise VslamError(f"{self.name} has no {chosen} weights; there are: {', '.join(self.files)}")
        entry = self.files[chosen]
        path = self.folder / entry["file"]
        check_file(path, entry["sha256"])
        return path


@cache
def manifest() -> dict[str, Model]:
    """All shipped networks by name; empty when there is no manifest.

    Raises:
        VslamError: the manifest is damaged.
    """
    for folder in shipped_folders("weights"):
        file = folder / "manifest.json"
        if file.is_file():
            return read_manifest(file)
    return {}


def read_manifest(file: Path) -> dict[str, Model]:
    """The networks that a manifest lists; their files lie beside it."""
    try:
        entries = json.loads(file.read_text())
        return {name: Model(name=name, folder=file.parent, **entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise VslamError(f"{file}: damaged list of weights ({error}); install vslam again") from None


def find_model(name: str) -> Model:
    """The shipped network `name`; VslamError lists the known ones."""
    known = manifest()
    if name not in known:
        raise VslamError(f"network '{name}' is not shipped; known: {', '.join(known) or 'none'}")
    return known[name]


@cache
def check_file(path: Path, sha256: str) -> None:
    """Compare a file with its checksum, once in a process.

    Raises:
        VslamError: missing, or not what the manifest says.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise VslamError(f"{path}: weights cannot be read ({error.strerror}); install vslam again") from None
    if found != sha256:
        raise VslamError(
            f"{path}: damaged weights (sha256 {found[:12]}..., expected {sha256[:12]}...); install vslam again"
        )
