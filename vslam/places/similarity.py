"""How much larger one keyframe takes the world for than another: a similarity from points that both see.

As in Strasdat, Montiel and Davison, "Scale drift-aware large scale monocular SLAM", RSS 2010: matched map points give
it in closed form, the reprojection in both images decides and refines.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vslam.geometry import se3, sim3
from vslam.geometry.gates import MONO_GATE, STEREO_GATE
from vslam.geometry.similarity import ransac_similarity
from vslam.mapping.seen import Seen
from vslam.matching.brute import nearest

LEAST_PAIRS = 12  # as for a first pose; the points of the whole place decide afterwards
ROUNDS = 300  # enough for 99.9 % at seven outliers in ten
SEED = 0  # the same pairs give the same answer
LOOSE = 4.0  # gates before the refinement, of chi-square: three points carry their own noise
NEAREST_M = 0.05
BEHIND = 1e3  # residual of what is behind a camera


class Similar(NamedTuple):
    """`S_here_there` (4, 4) from the other camera frame to this one, None where too few points agree on one; `matches`
    by appearance and `inliers` of them."""

    S_here_there: np.ndarray | None
    matches: int
    inliers: int


def find_similarity(here: Seen, there: Seen, pinhole: np.ndarray, max_distance: float) -> Similar:
    """Match the points of two keyframes by appearance, mutually, and find the similarity that fits them in both images.

    `pinhole` (5,) is fx, fy, cx, cy, fx * baseline.
    """
    index, distance, _, back = nearest(there.words, here.words)
    if not len(back) or not len(index):
        return Similar(None, 0, 0)
    good = (distance < max_distance) & (back[index] == np.arange(len(there)))
    here, there = here[index[good]], there[good]
    if len(here) < LEAST_PAIRS:
        return Similar(None, len(here), 0)
    both = Both(here, there, pinhole)
    S, inlier = ransac_similarity(
        there.xyz, here.xyz, lambda S: both.fit(S, LOOSE), ROUNDS, np.random.default_rng(SEED)
    )
    for _ in range(2):  # the second time with all that fit the first
        if inlier.sum() < LEAST_PAIRS:
            return Similar(None, len(here), int(inlier.sum()))
        S = Both(here[inlier], there[inlier], pinhole).refined(S)
        inlier = both.fit(S[None])[0]
    found = int(inlier.sum())
    return Similar(S if found >= LEAST_PAIRS else None, len(here), found)


class Both:
    """Pairs of points (M) as two cameras see them, to be brought together by similarities `S_here_there`."""

    def __init__(self, here: Seen, there: Seen, pinhole: np.ndarray):
        self._here, self._there, self._pinhole = here, there, pinhole

    def residuals(self, S: np.ndarray) -> np.ndarray:
        """(H, 2, M, 3) of similarities (H, 4, 4): u, v, disparity in units of their deviations, in either image."""
        there_in_here, here_in_there = sim3.apply(S, self._there.xyz), sim3.apply(sim3.inverse(S), self._here.xyz)
        return np.stack([self._error(there_in_here, self._here), self._error(here_in_there, self._there)], axis=1)

    def fit(self, S: np.ndarray, loose: float = 1.0) -> np.ndarray:
        """(H, M) bool: pairs within the 95 % gate, times `loose`, in both images."""
        gate = np.stack([np.where(seen.uvd[:, 2] > 0, STEREO_GATE, MONO_GATE) for seen in (self._here, self._there)])
        return ((self.residuals(S) ** 2).sum(axis=-1) < loose * gate).all(axis=1)

    def refined(self, S: np.ndarray) -> np.ndarray:
        """The similarity near `S` (4, 4) with the least residuals, by Huber's measure."""
        from scipy.optimize import least_squares

        def moved(step: np.ndarray) -> np.ndarray:  # translation, rotation, logarithm of the scale
            return sim3.compose(np.exp(step[6]), se3.exp(step[:6])) @ S

        best = least_squares(lambda step: self.residuals(moved(step)[None]).ravel(), np.zeros(7), loss="huber")
        return moved(best.x)

    def _error(self, xyz: np.ndarray, seen: Seen) -> np.ndarray:
        fx, fy, cx, cy, focal_baseline = self._pinhole
        z = np.maximum(xyz[..., 2], NEAREST_M)
        uvd = np.stack([fx * xyz[..., 0] / z + cx, fy * xyz[..., 1] / z + cy, focal_baseline / z], axis=-1)
        error = (seen.uvd - uvd) / seen.sigma
        error[..., 2] *= seen.uvd[:, 2] > 0
        return np.where(xyz[..., 2:] > NEAREST_M, error, BEHIND)
