"""Bundle adjustment as plain arrays: what both solvers take and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vslam.geometry.gates import MONO_GATE, STEREO_GATE

MIN_DEPTH = 1e-3
"""Metres from the plane of the camera below which a projection is taken as if at this depth: large, but finite."""


@dataclass(frozen=True)
class Problem:
    """Keyframes, points and what the keyframes saw of the points.

    An observation has the residual rows u and v (pixels) and, where `disparity` is positive, a third one: the
    disparity `fx * baseline / z` as the depth sensor (or the stereo match) measured it, independent of u.

    - `poses` (K, 4, 4) float64 `T_cw`; `fixed` (K,) bool: poses that stay as they are, but hold the points;
    - `points` (P, 3) float64, world, metres;
    - `pose_index`, `point_index` (M,) int32; observations are sorted by point;
    - `uv` (M, 2) float64 undistorted pixels; `disparity` (M,) float64 pixels, NaN or <= 0 where there is no depth;
    - `weight` (M, 2) float64: `1 / sigma_uv**2` of u and v, `1 / sigma_d**2` of the disparity, pixels**-2;
    - `pinhole` (5,) float64 `(fx, fy, cx, cy, fx * baseline)`.

    Poses of keyframes in the order of time make the reduced system narrow, hence faster to solve.
    """

    poses: np.ndarray
    fixed: np.ndarray
    points: np.ndarray
    pose_index: np.ndarray
    point_index: np.ndarray
    uv: np.ndarray
    disparity: np.ndarray
    weight: np.ndarray
    pinhole: np.ndarray

    @property
    def is_stereo(self) -> np.ndarray:
        """(M,) bool: the observation has a disparity."""
        return self.disparity > 0

    @property
    def gates(self) -> np.ndarray:
        """(M,) float64: 95 % quantile of each observation's chi2."""
        return np.where(self.is_stereo, STEREO_GATE, MONO_GATE)

    def usable(self) -> np.ndarray:
        """(M,) bool: all that the observation touches is finite and its weights are positive."""
        poses = np.isfinite(self.poses).all(axis=(1, 2))[self.pose_index]
        points = np.isfinite(self.points).all(axis=1)[self.point_index]
        weights = (self.weight > 0) & np.isfinite(self.weight)
        weighted = weights[:, 0] & (weights[:, 1] | ~self.is_stereo)
        return poses & points & weighted & np.isfinite(self.uv).all(axis=1) & ~np.isinf(self.disparity)

    def check(self) -> None:
        """Raise ValueError where shapes disagree, an index is out of range or observations are not sorted."""
        poses, points, observations = len(self.poses), len(self.points), len(self.uv)
        shapes = {"poses": (poses, 4, 4), "fixed": (poses,), "points": (points, 3), "uv": (observations, 2),
                  "pose_index": (observations,), "point_index": (observations,), "disparity": (observations,),
                  "weight": (observations, 2), "pinhole": (5,)}  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"Problem.{name} has shape {getattr(self, name).shape}, expected {shape}")
        if self.fixed.dtype != bool:
            raise ValueError(f"Problem.fixed has type {self.fixed.dtype}, expected bool")
        for name, size in (("pose_index", poses), ("point_index", points)):
            index = getattr(self, name)
            if observations and (index.min() < 0 or index.max() >= size):
                raise ValueError(f"Problem.{name} spans {index.min()}..{index.max()}, expected 0..{size - 1}")
        if np.any(np.diff(self.point_index) < 0):
            raise ValueError("Problem.point_index is not sorted; order all observation arrays by point")


@dataclass(frozen=True)
class Solution:
    """What a solver found.

    `poses` (K, 4, 4), `points` (P, 3); per observation `chi2` (M,) without robust kernel (inf where unusable),
    `depth_positive` (M,) bool and `inlier` (M,) bool: inside its gate and in front of the camera. `cost` is the
    robust cost over the observations that took part, `iterations` counts those of the last round.
    """

    poses: np.ndarray
    points: np.ndarray
    chi2: np.ndarray
    depth_positive: np.ndarray
    inlier: np.ndarray
    cost: float
    iterations: int


Solver = Callable[..., Solution]
"""`solve(problem, iterations, *, robust, active, min_gain, stop_flag) -> Solution`, as in `schur.py` and `g2o.py`."""


def evaluate(problem: Problem, poses: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """chi2 (M,) of the observations and depth (M,) in their cameras, for other poses and points."""
    fx, fy, cx, cy, bf = problem.pinhole
    T, X = poses[problem.pose_index], points[problem.point_index]
    x, y, depth = (np.einsum("mij,mj->mi", T[:, :3, :3], X) + T[:, :3, 3]).T
    z = np.where(np.abs(depth) < MIN_DEPTH, np.copysign(MIN_DEPTH, depth), depth)
    du = problem.uv[:, 0] - (fx * x / z + cx)
    dv = problem.uv[:, 1] - (fy * y / z + cy)
    dd = np.where(problem.is_stereo, problem.disparity - bf / z, 0.0)
    weight_d = np.where(problem.is_stereo, problem.weight[:, 1], 0.0)
    return problem.weight[:, 0] * (du * du + dv * dv) + weight_d * dd * dd, depth


def robust_cost(problem: Problem, chi2: np.ndarray, active: np.ndarray, robust: bool) -> float:
    """Sum of Huber's function of the active chi2, its width the square root of each gate; plain sum if not robust."""
    chi2, gates = chi2[active], problem.gates[active]
    if not robust:
        return float(chi2.sum())
    return float(np.where(chi2 <= gates, chi2, 2.0 * np.sqrt(gates * chi2) - gates).sum())


def solution_at(
    problem: Problem, poses: np.ndarray, points: np.ndarray, active: np.ndarray, robust: bool,
    iterations: int, cost: float | None = None,
) -> Solution:  # fmt: skip
    """The `Solution` of these poses and points; `cost` is computed if not given."""
    chi2, depth = evaluate(problem, poses, points)
    chi2[~problem.usable()] = np.inf
    cost = robust_cost(problem, chi2, active, robust) if cost is None else float(cost)
    return Solution(poses, points, chi2, depth > 0, (depth > 0) & (chi2 <= problem.gates), cost, iterations)
