"""Microsoft 7-Scenes (Shotton et al., CVPR 2013): one folder a sequence, one file a frame and kind."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from vslam.datasets.camera import KINECT_READOUT_S, find_camera
from vslam.datasets.registration import DepthCamera, find_depth_camera
from vslam.datasets.rgbd import RgbdSequence
from vslam.datasets.tum import existing_folder, open_listed
from vslam.errors import VslamError
from vslam.types import Camera, Trajectory

CAMERA = Camera(525.0, 525.0, 320.0, 240.0, 640, 480, depth_scale=1000.0, readout=KINECT_READOUT_S)
"""Of the colour images: the Kinect's nominal focal length."""
SENSOR = DepthCamera(
    585.0, 585.0, 320.0, 240.0, 640, 480,
    T_camera_depth=(
        (9.9996518012567637e-01, 2.6765126468950343e-03, -7.9041012313000904e-03, -2.5558943178152542e-02),
        (-2.7409311281316700e-03, 9.9996302803027592e-01, -8.1504520778013286e-03, 1.0109636268061706e-04),
        (7.8819942130445332e-03, 8.1718328771890631e-03, 9.9993554558014031e-01, 2.0318321729487039e-03),
        (0.0, 0.0, 0.0, 1.0),
    ),
)  # fmt: skip
"""Colour and depth are not registered in this data set. The intrinsics are those of its web page; it says nothing of
where the depth camera sits, so that is the calibration of a Kinect that others use with it (LIRIS human activities
data set, page "Kinect calibration"; so do DSAC*, Brachmann and Rother, TPAMI 2021, and ACE)."""
FRAME_RATE = 30.0
NO_DEPTH = 65535
_COLOUR = re.compile(r"frame-(\d+)\.color\.(?:png|jpg)")


def open_seven_scenes(path: str | Path | None = None, camera_file: str | Path | None = None) -> RgbdSequence:
    """A folder `seq-XX` with `frame-000000.color.png`, `.depth.png` (mm, 65535 = none) and `.pose.txt`, or a folder
    with TUM's lists. Time stamps are frame numbers at 30 Hz. Depth is registered to colour as `SENSOR` says, unless a
    camera file says otherwise.

    Raises:
        VslamError: what is missing or wrong, in one line.
    """
    folder = existing_folder(path, "seven_scenes")
    if (folder / "rgb.txt").exists():
        return open_listed(folder, camera_file, CAMERA, NO_DEPTH, SENSOR)
    numbers, images, depths = _frames(folder)
    camera = find_camera(folder, camera_file, CAMERA)
    name = "-".join(folder.resolve().parts[-2:])  # the scene and the sequence: seq-01 alone says little
    times = numbers / FRAME_RATE
    truth = _truth(images, times)
    sensor = find_depth_camera(folder, camera_file, SENSOR)
    return RgbdSequence(name, camera, times, images, depths, truth=truth, no_depth=NO_DEPTH, sensor=sensor).check()


def _frames(folder: Path) -> tuple[np.ndarray, list[Path], list[Path]]:
    """Frame numbers (N,), colour and depth files of the frames that have both, in order."""
    found = sorted((int(name[1]), file) for file in folder.iterdir() if (name := _COLOUR.fullmatch(file.name)))
    if not found:
        sequences = sorted(sub.name for sub in folder.glob("seq-*"))
        cure = f"give one of its sequences: {', '.join(sequences)}" if sequences else "give a folder seq-XX (unzip it)"
        raise VslamError(f"{folder}: no frame-000000.color.png here; {cure}")
    paired = [(number, file, _beside(file, "depth.png")) for number, file in found]
    paired = [(number, file, depth) for number, file, depth in paired if depth.exists()]
    if not paired:
        raise VslamError(f"{_beside(found[0][1], 'depth.png')}: no such file; no frame here has a depth image")
    numbers, images, depths = zip(*paired, strict=True)
    return np.array(numbers, np.float64), list(images), list(depths)


def _beside(colour: Path, kind: str) -> Path:
    return colour.with_name(f"{colour.name.split('.')[0]}.{kind}")


def _truth(images: list[Path], times: np.ndarray) -> Trajectory | None:
    files = [_beside(image, "pose.txt") for image in images]
    has = np.array([file.exists() for file in files])
    if not has.any():
        return None
    return Trajectory(times[has], np.array([_read_pose(file) for file, there in zip(files, has, strict=True) if there]))


def _read_pose(file: Path) -> np.ndarray:
    """A 4x4 matrix, camera to world, with its rotation made exact (the files carry seven digits).

    Raises:
        VslamError: not sixteen finite numbers, or not a rotation.
    """
    try:
        pose = np.array(file.read_text().split(), np.float64).reshape(4, 4)
    except (OSError, ValueError):
        raise VslamError(f"{file}: not a pose; expected four lines of four numbers, camera to world") from None
    if not np.isfinite(pose).all():
        bad = pose[~np.isfinite(pose)][0]
        raise VslamError(f"{file}: the pose holds {bad}; remove this file to leave the frame out of the truth")
    u, scale, vt = np.linalg.svd(pose[:3, :3])
    if abs(scale - 1).max() > 0.01 or np.linalg.det(u @ vt) < 0:
        raise VslamError(
            f"{file}: the upper left 3x3 is not a rotation (singular values {np.round(scale, 3).tolist()})"
        )
    pose[:3, :3] = u @ vt
    return pose
