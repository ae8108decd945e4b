"""The layout of the TUM RGB-D benchmark (Sturm et al., IROS 2012): `rgb.txt`, `depth.txt`, `groundtruth.txt`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vslam.datasets.camera import find_camera
from vslam.datasets.lists import Pairs, pair_associations, pair_lists
from vslam.datasets.registration import DepthCamera, find_depth_camera
from vslam.datasets.rgbd import RgbdSequence
from vslam.errors import VslamError
from vslam.types import Camera, Trajectory

ASSOCIATIONS = ("associations.txt", "associate.txt", "association.txt", "associated.txt", "associations")


def open_tum(path: str | Path | None = None, camera_file: str | Path | None = None) -> RgbdSequence:
    """A folder as TUM publishes it; `path` None opens the embedded sample, whose `name` is "sample".

    Frames are the colour images that have a depth image within 0.02 s, one to one. Where there is no `rgb.txt`,
    an associations file of four columns is read.

    Raises:
        VslamError: what is missing or wrong, in one line.
    """
    if path is None:
        from vslam.datasets.sample import open_sample

        return open_sample(None, camera_file)
    return open_listed(existing_folder(path), camera_file)


def open_listed(
    folder: Path,
    camera_file: str | Path | None = None,
    default_camera: Camera | None = None,
    no_depth: int | None = None,
    default_sensor: DepthCamera | None = None,
) -> RgbdSequence:
    """A folder with TUM's lists, whatever sensor it comes from; `no_depth`: see `RgbdSequence`; the defaults hold where
    neither a camera file nor the folder's name says otherwise.

    Raises:
        VslamError: what is missing or wrong, in one line.
    """
    pairs = read_pairs(folder)
    truth = read_truth(folder / "groundtruth.txt")
    camera = find_camera(folder, camera_file, default_camera)
    sensor = find_depth_camera(folder, camera_file, default_sensor)
    return RgbdSequence(folder.resolve().name, camera, *pairs, truth=truth, no_depth=no_depth, sensor=sensor).check()


def read_pairs(folder: Path) -> Pairs:
    """The pairs of colour and depth that a folder lists.

    Raises:
        VslamError: no list, or one that is wrong.
    """
    if (folder / "rgb.txt").exists() and (folder / "depth.txt").exists():
        return pair_lists(folder / "rgb.txt", folder / "depth.txt")
    associations = find_associations(folder)
    if associations:
        return pair_associations(associations)
    missing = "depth.txt" if (folder / "rgb.txt").exists() else "rgb.txt"
    raise VslamError(
        f"{folder / missing}: no such file; a TUM folder has rgb.txt and depth.txt, or associations.txt with lines "
        "'timestamp rgb/file timestamp depth/file'"
    )


def find_associations(folder: Path) -> Path | None:
    """The associations file of a folder, under one of the names in use."""
    return next((folder / name for name in ASSOCIATIONS if (folder / name).is_file()), None)


def read_truth(path: Path) -> Trajectory | None:
    """Camera poses, or None where there is no such file.

    Raises:
        VslamError: the file is wrong, or holds a value that is not a number.
    """
    if not path.exists():
        return None
    from vslam.datasets.trajectory import read_trajectory

    truth = read_trajectory(path)
    bad = ~np.isfinite(truth.poses).all(axis=(1, 2)) | ~np.isfinite(truth.timestamps)
    if bad.any():
        k = int(np.argmax(bad))
        raise VslamError(f"{path}: pose {k + 1} at {truth.timestamps[k]:.6f} s is not finite; remove that line")
    return truth


def existing_folder(path: str | Path | None, layout: str = "tum") -> Path:
    """The folder of a sequence.

    Raises:
        VslamError: none given, no such folder, or a file.
    """
    if path is None:
        raise VslamError(f"--dataset {layout}: which sequence? Give its folder with --path DIR")
    folder = Path(path)
    if not folder.exists():
        raise VslamError(f"{folder}: no such folder; give that of a sequence, or fetch one with 'vslam download'")
    if not folder.is_dir():
        raise VslamError(f"{folder}: is a file; give the folder of a sequence (unpack archives first)")
    return folder
