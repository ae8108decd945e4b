"""Rolling shutter: rows are exposed one after the other, so a camera that turns meanwhile bends its image.

At 60 degrees a second and 26 ms from the first row to the last, the top of an image is 14 pixels off its bottom; a
rigid pose takes that for a shift of the camera. What a row saw is carried to the moment of the middle row by the
camera's motion (the linear model of Ait-Aider et al., ECCV 2006), so that all that follows may take the image for one
moment's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vslam.tracking.frame import lookup_grid
from vslam.types import Camera, Frame

FAR_M = 1e6  # of a feature without depth: only the turn moves it


def straighten(frame: Frame, camera: Camera, rate: np.ndarray) -> Frame:
    """The frame as a camera without `readout` would have seen it while moving at `rate` (6,) per second.

    `rate` is the twist that carries points in the camera's frame through time, see `ConstantVelocity.rate`.
    """
    if camera.readout == 0.0 or not rate.any() or not len(frame):
        return frame
    late = ((frame.features.xy[:, 1] + 0.5) / camera.height - 0.5)[:, None] * camera.readout  # after the middle row, s
    has = frame.disparity > 0
    bf = camera.pinhole[4]
    depth = np.where(has, bf / np.where(has, frame.disparity, 1.0), FAR_M)
    turn = _cross(rate[3:])
    p = camera.unproject(frame.xy, depth)
    velocity = p @ turn.T + rate[:3]
    p += late * (0.5 * late * (velocity @ turn.T) - velocity)  # exp(-rate late) to the second order
    xy = camera.project(p).astype(np.float32)
    disparity = np.where(has, bf / p[:, 2], 0.0).astype(np.float32)
    return replace(frame, xy=xy, disparity=disparity, grid=lookup_grid(xy, camera))


def _cross(w: np.ndarray) -> np.ndarray:
    return np.array([[0.0, -w[2], w[1]], [w[2], 0.0, -w[0]], [-w[1], w[0], 0.0]])
