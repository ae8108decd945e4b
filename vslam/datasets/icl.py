"""ICL-NUIM (Handa et al., ICRA 2014): the "TUM RGB-D compatible" PNG sequences, and folders converted to TUM's lists.

The original poses belong to a camera whose y axis points up (fy = -480), so camera and world are left-handed. They are
mirrored here, T -> F T F with F = diag(1, -1, 1, 1), to the usual right-handed camera with fy = +480.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vslam.datasets.camera import find_camera
from vslam.datasets.lists import pair_associations
from vslam.datasets.rgbd import RgbdSequence
from vslam.datasets.tum import existing_folder, find_associations, open_listed, read_truth
from vslam.errors import VslamError
from vslam.types import Camera, Trajectory

CAMERA = Camera(481.2, 480.0, 319.5, 239.5, 640, 480)
"""The published intrinsics with a y axis that points down; depth in 1/5000 m."""
FRAME_RATE = 30.0
MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])


def open_icl(path: str | Path | None = None, camera_file: str | Path | None = None) -> RgbdSequence:
    """A folder with `associations.txt`, `rgb/`, `depth/` and `*.gt.freiburg`, or with TUM's lists.

    The original time stamps are frame numbers at 30 Hz; they become seconds.

    Raises:
        VslamError: what is missing or wrong, in one line.
    """
    folder = existing_folder(path, "icl")
    if (folder / "rgb.txt").exists():
        return open_listed(folder, camera_file, CAMERA)
    associations = find_associations(folder)
    if associations is None:
        raise VslamError(
            f"{folder / 'associations.txt'}: no such file; vslam reads ICL-NUIM's 'TUM RGB-D compatible' PNG archives "
            "as unpacked (associations.txt, rgb/, depth/), or a folder with rgb.txt and depth.txt"
        )
    pairs = pair_associations(associations)
    pairs = pairs._replace(timestamps=_seconds(pairs.timestamps), delays=np.zeros(len(pairs.timestamps)))
    camera = find_camera(folder, camera_file, CAMERA)
    return RgbdSequence(folder.resolve().name, camera, *pairs, truth=_truth(folder)).check()


def _seconds(timestamps: np.ndarray) -> np.ndarray:
    """Frame numbers become seconds; what holds fractions is taken to be seconds already."""
    if np.array_equal(timestamps, np.round(timestamps)):
        return timestamps / FRAME_RATE
    return timestamps


def _truth(folder: Path) -> Trajectory | None:
    """Poses of `groundtruth.txt` as they are, else those of the original file, mirrored."""
    if (folder / "groundtruth.txt").exists():
        return read_truth(folder / "groundtruth.txt")
    original = sorted(folder.glob("*.gt.freiburg"))
    if not original:
        return None
    truth = read_truth(original[0])
    return Trajectory(_seconds(truth.timestamps), MIRROR @ truth.poses @ MIRROR)
