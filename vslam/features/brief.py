"""The comparisons of the binary descriptor: pairs of pixels in a disc, and their rotated copies."""

from __future__ import annotations

from functools import cache

import numpy as np

RADIUS = 15  # pixels; the patch of ORB (Rublee et al., 2011) is 31 wide
ANGLES = 64  # rotated copies of the pattern: steps of 5.6 degrees


def pattern() -> np.ndarray:
    """(256, 4) float64: x1, y1, x2, y2 of each comparison, relative to the keypoint, inside the disc."""
    rng = np.random.default_rng(7)
    points = rng.normal(0.0, RADIUS / 2.5, (4096, 4))
    first, second = np.hypot(points[:, 0], points[:, 1]), np.hypot(points[:, 2], points[:, 3])
    inside = (first < RADIUS - 0.5) & (second < RADIUS - 0.5)
    return points[inside][:256]


@cache
def rotated_offsets(stride: int) -> np.ndarray:
    """(ANGLES, 256, 2) int32: both ends of each comparison as distances in a flattened image of row length `stride`."""
    angle = 2.0 * np.pi / ANGLES * np.arange(ANGLES)
    c, s = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    ends = pattern().reshape(1, -1, 2, 2)
    x = np.rint(c * ends[..., 0] - s * ends[..., 1])
    y = np.rint(s * ends[..., 0] + c * ends[..., 1])
    return np.ascontiguousarray(y * stride + x, np.int32)
