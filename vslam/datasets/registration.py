"""Depth from a camera beside the colour camera, laid onto the pixels of the colour image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vslam.config import from_dict
from vslam.datasets.camera import camera_file_of, check_pinhole, read_yaml
from vslam.errors import VslamError
from vslam.types import Camera, Pinhole

REGISTERED = "none"  # what camera.yaml says of depth that was registered by whoever recorded it
REQUIRED = ("fx", "fy", "cx", "cy", "width", "height", "T_camera_depth")


@dataclass(frozen=True)
class DepthCamera(Pinhole):
    """A camera that sees depth: `T_camera_depth` (4, 4), as nested tuples in metres, maps points of its frame into that
    of the colour camera."""

    T_camera_depth: tuple[tuple[float, ...], ...]


def register(depth: np.ndarray, sensor: DepthCamera, camera: Camera) -> np.ndarray:
    """Depth as the colour camera would see it: each pixel's point is carried over, the nearest one counts.

    Args:
        depth: (h, w) float32 metres of the `sensor`, 0 = none.

    Returns:
        (H, W) float32 metres along the z axis of `camera`, at its pixels as seen (distorted), 0 = none.
    """
    import cv2

    carry = cv2.registerDepth if hasattr(cv2, "registerDepth") else cv2.rgbd.registerDepth  # OpenCV 5, OpenCV 4
    lens = np.array(camera.distortion or (0.0,) * 5)
    is_finer = camera.fx > sensor.fx or camera.fy > sensor.fy  # then points lie further apart than pixels
    size = camera.width, camera.height
    registered = carry(sensor.K, camera.K, lens, np.array(sensor.T_camera_depth), depth, size, depthDilation=is_finer)
    return np.nan_to_num(registered, copy=False, nan=0.0)


def find_depth_camera(
    folder: Path, camera_file: str | Path | None = None, default: DepthCamera | None = None
) -> DepthCamera | None:
    """What the camera file given, or `camera.yaml` in the folder, says below `depth_camera`; `default` where it says
    nothing. None, or `depth_camera: none` in the file: depth is registered to colour already.

    Raises:
        VslamError: a file that is wrong.
    """
    file = camera_file_of(folder, camera_file)
    values = {} if file is None else read_yaml(file)
    if "depth_camera" not in values:
        return default
    if values["depth_camera"] == REGISTERED:
        return None
    return _checked(values["depth_camera"], str(file))


def _checked(values: object, where: str) -> DepthCamera:
    if not isinstance(values, dict):
        raise VslamError(
            f"{where}: depth_camera is {values}; expected {', '.join(REQUIRED)} below it, or '{REGISTERED}'"
        )
    missing = [key for key in REQUIRED if key not in values]
    if missing:
        raise VslamError(f"{where}: depth_camera lacks {', '.join(missing)}; it needs {', '.join(REQUIRED)}")
    sensor = from_dict(DepthCamera, values, f"{where}: depth_camera")
    check_pinhole(sensor, f"{where}: depth_camera")
    if not _is_motion(sensor.T_camera_depth):
        raise VslamError(
            f"{where}: depth_camera: T_camera_depth is no rotation and shift; expected four rows of four numbers, in "
            "metres, the last 0 0 0 1"
        )
    return sensor


def _is_motion(rows: tuple[tuple[float, ...], ...]) -> bool:
    if [len(row) for row in rows] != [4, 4, 4, 4]:
        return False
    T = np.array(rows)
    R = T[:3, :3]
    is_rotation = np.allclose(R @ R.T, np.eye(3), atol=1e-3) and np.linalg.det(R) > 0
    return bool(np.isfinite(T).all() and is_rotation and np.array_equal(T[3], [0, 0, 0, 1]))
