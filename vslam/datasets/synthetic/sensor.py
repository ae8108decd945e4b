"""What a structured-light camera makes of an ideal view: noisy stepped depth, with holes where it cannot measure."""

from __future__ import annotations

import cv2
import numpy as np

from vslam.datasets.synthetic.render import Scene
from vslam.kernels import njit
from vslam.types import Camera

RANGE_M = (0.4, 4.8)
SENSOR_FX = 580.0  # of the infrared camera; with the projector 75 mm beside it and steps of 1/8 pixel
PROJECTOR_M = 0.075
GRAZING = 0.14  # cosine of the steepest angle that still returns a pattern, about 82 degrees
GREY_NOISE = 1.3  # standard deviation of the colour image in grey levels


@njit
def measure(depth, owner, normals, shiny, pinhole, noise, luck, depth_scale, out):
    """Depth of an ideal view, (H, W) float64, as raw sensor values, `out` (H, W) uint16, 0 = none.

    `owner` (H, W) and `normals` (Q, 3) tell the surfaces' slopes, `noise` (H, W) is normal with variance 1, `luck`
    (H, W) uniform in [0, 1). The standard deviation is 0.0012 + 0.0019 (z - 0.4)^2 m (Nguyen et al., 3DIMPVT 2012);
    the projector's shadows are found row by row: what lies behind a nearer surface as seen from its place.
    """
    height, width = depth.shape
    steps = SENSOR_FX * PROJECTOR_M * 8.0
    for row in range(height):
        reached = 1e9  # column of the pattern, seen from the projector, that nearer surfaces to the right take
        for column in range(width - 1, -1, -1):
            out[row, column] = 0
            z = depth[row, column]
            if not z < 1e6:
                continue
            pattern = column - pinhole[0] * PROJECTOR_M / z
            shadowed = pattern > reached + 0.5
            reached = min(reached, pattern)
            q = owner[row, column]
            dx, dy = (column - pinhole[2]) / pinhole[0], (row - pinhole[3]) / pinhole[1]
            facing = -(normals[q, 0] * dx + normals[q, 1] * dy + normals[q, 2]) / np.sqrt(dx * dx + dy * dy + 1.0)
            if shadowed or shiny[q] or facing < GRAZING or luck[row, column] < 0.002:
                continue
            if _at_edge(depth, row, column, z) and luck[row, column] < 0.6:
                continue
            sigma = 0.0012 + 0.0019 * (z - 0.4) * (z - 0.4)
            measured = z + sigma * noise[row, column]
            if RANGE_M[0] <= measured <= RANGE_M[1]:
                out[row, column] = np.uint16(steps / np.round(steps / measured) * depth_scale + 0.5)


@njit
def _at_edge(depth, row, column, z):
    """Whether a neighbour is more than 4 % nearer or farther."""
    height, width = depth.shape
    for k in range(-1, 2, 2):
        if abs(depth[min(max(row + k, 0), height - 1), column] - z) > 0.04 * z:
            return True
        if abs(depth[row, min(max(column + k, 0), width - 1)] - z) > 0.04 * z:
            return True
    return False


def sense_depth(scene: Scene, camera: Camera, T_world_camera, depth, owner, rng: np.random.Generator) -> np.ndarray:
    """Raw depth (H, W) uint16 of the view `depth`, `owner` that `render` gave."""
    noise = _correlated(depth.shape, rng)
    luck = rng.random(depth.shape, np.float32)
    raw = np.empty(depth.shape, np.uint16)
    normals = np.ascontiguousarray(scene.n @ T_world_camera[:3, :3])
    measure(depth, owner, normals, scene.shiny, camera.pinhole, noise, luck, camera.depth_scale, raw)
    return raw


def _correlated(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Normal noise of variance 1 whose neighbours resemble each other: the sensor matches windows, not pixels."""
    half = rng.standard_normal(((shape[0] + 1) // 2, (shape[1] + 1) // 2), np.float32)
    # enlarging by two takes weights 3/4 and 1/4 along each axis: the variance becomes (10 / 16)^2
    return cv2.resize(half, shape[::-1], interpolation=cv2.INTER_LINEAR) * np.float32(16 / 10)


def sense_colour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image (H, W, 3) uint8 with a camera's noise, equal in all channels as after a colour filter's smoothing."""
    noise = rng.standard_normal(image.shape[:2], np.float32) * np.float32(GREY_NOISE)
    return np.clip(image + noise[..., None] + np.float32(0.5), 0, 255).astype(np.uint8)
