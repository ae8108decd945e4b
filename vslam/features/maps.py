"""From the dense maps of a network to features: threshold, suppression, sub-pixel place, spreading, descriptors.

Once for all networks and back ends. Networks give `score` (1, H, W) probabilities, `descriptors` (1, h, w, D) raw
values, and perhaps `reliability` (1, h, w) in [0, 1] and a corner response `corners` (1, H, W).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from vslam.features import nms
from vslam.features.spread import spread

MARGIN = 2
"""Pixels that the 5x5 patch of the sub-pixel step needs around a keypoint."""


FLAT = (0.29, 0.84)
"""Sigma of a keypoint, in shares of the network's mean one: constant, and for each px^2 of its peak's spread."""
REFINED = (0.07, 0.52, 0.75)
"""The same for keypoints moved towards a corner response; last, for each px between the two places.

Both fit the errors of matches between frames of renders (seeds 11, 12 and 14) best, with a Student's t of 4 degrees."""


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


@dataclass(frozen=True)
class Search:
    """Which peaks of a score map are keypoints."""

    threshold: float = 0.005  # probability
    weak_threshold: float = 0.0  # the same where fewer than `at_least` pass; 0: as `threshold`
    at_least: int = 0
    radius: int = 3  # pixels between two, along either axis
    border: int = 4  # pixels without keypoints, where the network saw padding


def find_in_outputs(
    outputs: dict[str, np.ndarray], shape: tuple[int, ...], search: Search, work: Workspace, weigh: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints of a network's outputs for an image (H, W) that was padded at its right and lower edge, as
    `find_keypoints` gives them; `weigh`: scores times the chance of finding the mate, no longer in their order."""
    scores = np.ascontiguousarray(outputs["score"][0, : shape[0], : shape[1]])
    corners = outputs["corners"][0, : shape[0], : shape[1]] if "corners" in outputs else None
    xy, score, sigma = find_keypoints(scores, search, work, corners)
    if weigh and "reliability" in outputs:
        reliability = outputs["reliability"][0]
        score = weigh_by_reliability(score, xy, reliability, outputs["score"].shape[2] // reliability.shape[1])
    return xy, score, sigma


def find_keypoints(
    score: np.ndarray, search: Search, work: Workspace, corners: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints of a float32 map (H, W), best first: `xy` (N, 2), score (N,) and sigma (N,) in shares of the network's
    mean one, all float32. Peaks of a corner response `corners` (H, W), where there is one, are found again more exactly
    than those of the score: keypoints lie half way between both."""
    work.fit(score.shape)
    margin, lowest = max(search.border, MARGIN), min(search.weak_threshold or search.threshold, search.threshold)
    count = nms.find_peaks(score, np.float32(lowest), margin, work.rows, work.columns, work.values)
    order = np.argsort(-work.values[:count], kind="stable").astype(np.int32)
    work.taken[:] = 0
    kept = work.kept[: nms.suppress(work.rows, work.columns, order, search.radius, work.taken, work.kept)]
    strong = int((work.values[kept] >= np.float32(search.threshold)).sum())
    kept = kept[: max(strong, search.at_least)]
    xy, spreads = np.empty((len(kept), 2), np.float32), np.empty(len(kept), np.float32)
    nms.refine(score, work.rows[kept], work.columns[kept], xy, spreads)
    return xy, work.values[kept], _sigma(xy, spreads, corners)


def _sigma(xy: np.ndarray, spreads: np.ndarray, corners: np.ndarray | None) -> np.ndarray:
    """Shares of sigma (N,); places `xy` (N, 2) are moved where there is a corner response."""
    if corners is None:
        return np.float32(FLAT[0]) + np.float32(FLAT[1]) * spreads
    steps = np.empty(len(xy), np.float32)
    nms.sharpen(np.ascontiguousarray(corners), xy, steps)
    return np.float32(REFINED[0]) + np.float32(REFINED[1]) * spreads + np.float32(REFINED[2]) * steps


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
