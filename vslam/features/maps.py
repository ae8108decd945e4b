"""From the dense maps of a network to features: threshold, suppression, sub-pixel place, spreading, descriptors.

Once for all networks and back ends. Networks give `score` (1, H, W) probabilities, `descriptors` (1, h, w, D) raw
values, and perhaps `reliability` (1, h, w) in [0, 1].
"""

from __future__ import annotations

import threading

import numpy as np

from vslam.features import nms
from vslam.features.spread import spread

MARGIN = 2
"""Pixels that the 5x5 patch of the sub-pixel step needs around a keypoint."""


class Workspace(threading.local):
    """Buffers for score maps of one size, one set for each thread."""

    shape: tuple[int, int] = (0, 0)

    def fit(self, shape: tuple[int, int]) -> None:
        """Make the buffers fit maps of `shape` (H, W)."""
        if shape == self.shape:
            return
        count = shape[0] * shape[1] // 4 + 1  # no two peaks touch
        self.shape = shape
        self.taken = np.empty(shape, np.uint8)
        self.rows, self.columns, self.kept = (np.empty(count, np.int32) for _ in range(3))
        self.values = np.empty(count, np.float32)


def find_keypoints(
    score: np.ndarray, threshold: float, radius: int, border: int, work: Workspace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints of a float32 map (H, W), best first: `xy` (N, 2), score (N,) and spread (N,) px^2, all float32."""
    work.fit(score.shape)
    margin = max(border, MARGIN)
    count = nms.find_peaks(score, np.float32(threshold), margin, work.rows, work.columns, work.values)
    order = np.argsort(-work.values[:count], kind="stable").astype(np.int32)
    work.taken[:] = 0
    kept = work.kept[: nms.suppress(work.rows, work.columns, order, radius, work.taken, work.kept)]
    xy, spreads = np.empty((len(kept), 2), np.float32), np.empty(len(kept), np.float32)
    nms.refine(score, work.rows[kept], work.columns[kept], xy, spreads)
    return xy, work.values[kept], spreads


def weigh_by_reliability(score: np.ndarray, xy: np.ndarray, reliability: np.ndarray, stride: int) -> np.ndarray:
    """Scores (N,) times the reliability (h, w) of the cells that the keypoints lie in."""
    weighed = np.empty(len(score), np.float32)
    nms.weigh(
        np.ascontiguousarray(score, np.float32), np.ascontiguousarray(xy, np.float32), reliability, stride, weighed
    )
    return weighed


def describe(maps: np.ndarray, stride: int, xy: np.ndarray, binary: bool) -> np.ndarray:
    """Descriptors of keypoints from a map (h, w, D): unit float32 (N, D), or bits packed to uint8 (N, D / 8)."""
    if maps.shape[0] < 2 or maps.shape[1] < 2:  # one cell has no neighbours to blend with
        maps = np.pad(maps, ((0, max(0, 2 - maps.shape[0])), (0, max(0, 2 - maps.shape[1])), (0, 0)), mode="edge")
    if binary:
        bits = np.empty((len(xy), maps.shape[2] // 8), np.uint8)
        nms.sample_bits(maps, stride, xy, bits)
        return bits
    unit = np.empty((len(xy), maps.shape[2]), np.float32)
    nms.sample_unit(maps, stride, xy, unit)
    return unit


def best_spread(xy: np.ndarray, score: np.ndarray, wanted: int, shape: tuple[int, int]) -> np.ndarray:
    """Indices of at most `wanted` keypoints that cover the image (H, W)."""
    return spread(xy, score, wanted, shape[1], shape[0])
