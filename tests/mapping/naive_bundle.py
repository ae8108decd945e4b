"""A synthetic world with known truth, and the cost of bundle adjustment written slowly and plainly, as it is meant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vslam.geometry import se3
from vslam.mapping.bundle import MONO_GATE, STEREO_GATE, Problem

PINHOLE = np.array([525.0, 520.0, 319.5, 239.5, 42.0])


@dataclass(frozen=True)
class World:
    """`problem` starts away from the true `poses` and `points`; `is_outlier` (M,) marks the wrong observations."""

    problem: Problem
    poses: np.ndarray
    points: np.ndarray
    is_outlier: np.ndarray


def world(
    free: int = 4, fixed: int = 2, points: int = 60, edges: int = 200, mono: float = 0.3, noise: float = 1.0,
    outliers: float = 0.0, start: float = 0.02, seed: int = 0,
) -> World:  # fmt: skip
    """Cameras on a line that look at a cloud of points 2 to 6 m away; `noise` is in units of each sigma, `start` the
    standard deviation of the start from the truth (m, rad), `mono` the part of observations without disparity."""
    rng = np.random.default_rng(seed)
    cameras = free + fixed
    xi = rng.normal(0, 0.05, (cameras, 6))
    xi[:, 0] += np.linspace(-1, 1, cameras)
    T, X = se3.exp(xi), rng.uniform([-3, -2, 2], [3, 2, 6], (points, 3))
    counts = np.minimum(np.diff(np.linspace(0, edges, points + 1).astype(int)), cameras)
    point_index = np.repeat(np.arange(points), counts).astype(np.int32)
    pose_index = np.concatenate([rng.permutation(cameras)[:n] for n in counts]).astype(np.int32)
    seen = np.array([(T[k] @ [*X[j], 1])[:3] for k, j in zip(pose_index, point_index, strict=True)])
    sigma = 1.2 ** rng.integers(0, 8, len(seen))
    sigma_d = rng.uniform(0.3, 1.5, len(seen))
    uv = seen[:, :2] / seen[:, 2:] * PINHOLE[:2] + PINHOLE[2:4]
    uv += noise * sigma[:, None] * rng.normal(size=uv.shape)
    disparity = PINHOLE[4] / seen[:, 2] + noise * sigma_d * rng.normal(size=len(seen))
    is_outlier = rng.random(len(seen)) < outliers
    uv[is_outlier] += rng.choice([-1, 1], (is_outlier.sum(), 2)) * rng.uniform(30, 80, (is_outlier.sum(), 2))
    disparity[rng.random(len(seen)) < mono] = np.nan
    is_fixed = np.arange(cameras) < fixed
    moved = se3.exp(np.where(is_fixed[:, None], 0, start * rng.normal(size=(cameras, 6)))) @ T
    weight = np.stack([sigma**-2.0, sigma_d**-2.0], axis=1)
    start_points = X + start * rng.normal(size=X.shape)
    problem = Problem(moved, is_fixed, start_points, pose_index, point_index, uv, disparity, weight, PINHOLE)
    return World(problem, np.where(is_fixed[:, None, None], moved, T), X, is_outlier)


def predict(T_cw: np.ndarray, point: np.ndarray, pinhole: np.ndarray) -> np.ndarray:
    """(u, v, disparity) of a world point."""
    fx, fy, cx, cy, bf = pinhole
    x, y, z = (T_cw @ np.append(point, 1.0))[:3]
    return np.array([fx * x / z + cx, fy * y / z + cy, bf / z])


def numeric_jacobians(T_cw: np.ndarray, point: np.ndarray, pinhole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central differences of `predict` by (rho, phi) from the left, (3, 6), and by the point, (3, 3)."""
    step = 1e-6

    def by_pose(xi):
        return predict(se3.exp(xi) @ T_cw, point, pinhole)

    def by_point(offset):
        return predict(T_cw, point + offset, pinhole)

    def differences(function, n):
        columns = [(function(step * e) - function(-step * e)) / (2 * step) for e in np.eye(n)]
        return np.stack(columns, axis=1)

    return differences(by_pose, 6), differences(by_point, 3)


def cost(problem: Problem, poses: np.ndarray, points: np.ndarray, robust: bool = True) -> float:
    """The sum over observations of Huber's function (or of chi2)."""
    total = 0.0
    for m in range(len(problem.uv)):
        u, v, d = predict(poses[problem.pose_index[m]], points[problem.point_index[m]], problem.pinhole)
        chi2 = problem.weight[m, 0] * ((problem.uv[m, 0] - u) ** 2 + (problem.uv[m, 1] - v) ** 2)
        gate = MONO_GATE
        if problem.disparity[m] > 0:
            chi2 += problem.weight[m, 1] * (problem.disparity[m] - d) ** 2
            gate = STEREO_GATE
        if robust and chi2 > gate:
            chi2 = 2 * np.sqrt(gate * chi2) - gate
        total += chi2
    return total
