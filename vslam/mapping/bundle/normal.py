"""The normal equations of bundle adjustment: residuals, derivatives and their 6x6, 3x3 and 6x3 blocks.

Kernels take the arrays in named tuples; `slot` numbers the free poses and is -1 for a fixed one.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np

from vslam.kernels import inner
from vslam.mapping.bundle.problem import MIN_DEPTH

RELAXED = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be reordered; NaN and infinity keep their meaning."""


class Graph(NamedTuple):
    """What stays: the observations, `point_start` (P + 1,) where each point's begin, `delta` (2,) Huber widths."""

    slot: np.ndarray
    pose_index: np.ndarray
    point_start: np.ndarray
    uv: np.ndarray
    disparity: np.ndarray
    weight: np.ndarray
    active: np.ndarray
    pinhole: tuple[float, ...]
    delta: tuple[float, float]


class Normal(NamedTuple):
    """The normal equations' blocks: F free poses, P points, M observations (`cross` is pose by point)."""

    pose_H: np.ndarray  # (F, 6, 6), lower triangle
    pose_b: np.ndarray  # (F, 6)
    point_H: np.ndarray  # (P, 6): xx xy xz yy yz zz
    point_b: np.ndarray  # (P, 3)
    cross: np.ndarray  # (M, 6, 3)


@inner
def _transform(T, X):
    """The point X (3,) in the camera `T` (4, 4)."""
    x, y, z = X[0], X[1], X[2]
    return (
        T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3],
        T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3],
        T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3],
    )


@inner
def _residual(graph, m, x, y, z):
    """Measured minus predicted (u, v, disparity) of observation m, and its chi2; disparity 0 when there is none."""
    fx, fy, cx, cy, bf = graph.pinhole
    if abs(z) < MIN_DEPTH:
        z = MIN_DEPTH if z >= 0.0 else -MIN_DEPTH
    du = graph.uv[m, 0] - (fx * x / z + cx)
    dv = graph.uv[m, 1] - (fy * y / z + cy)
    chi2 = graph.weight[m, 0] * (du * du + dv * dv)
    if not graph.disparity[m] > 0.0:
        return du, dv, 0.0, chi2
    dd = graph.disparity[m] - bf / z
    return du, dv, dd, chi2 + graph.weight[m, 1] * dd * dd


@inner
def evaluate(graph, poses, points, chi2, depth):
    """Write chi2 (M,) and camera depth (M,) of all observations; return the robust cost of the active ones."""
    cost = 0.0
    for j in range(points.shape[0]):
        for m in range(graph.point_start[j], graph.point_start[j + 1]):
            x, y, z = _transform(poses[graph.pose_index[m]], points[j])
            _, _, _, squared = _residual(graph, m, x, y, z)
            chi2[m], depth[m] = squared, z
            if graph.active[m]:
                delta = graph.delta[1] if graph.disparity[m] > 0.0 else graph.delta[0]
                cost += squared if squared <= delta * delta else 2.0 * delta * sqrt(squared) - delta * delta
    return cost


@inner(fastmath=RELAXED)
def _jacobians(T, x, y, z, pinhole, by_pose, by_point):
    """Derivatives of the predicted (u, v, disparity) by (rho, phi), (3, 6), and by the world point, (3, 3)."""
    inverse_z = 1.0 / z
    fu, fv = pinhole[0] * inverse_z, pinhole[1] * inverse_z
    uz, vz, dz = -fu * x * inverse_z, -fv * y * inverse_z, -pinhole[4] * inverse_z * inverse_z
    for k in range(3):
        by_point[0, k] = fu * T[0, k] + uz * T[2, k]
        by_point[1, k] = fv * T[1, k] + vz * T[2, k]
        by_point[2, k] = dz * T[2, k]
    by_pose[0, 0], by_pose[0, 1], by_pose[0, 2] = fu, 0.0, uz
    by_pose[1, 0], by_pose[1, 1], by_pose[1, 2] = 0.0, fv, vz
    by_pose[2, 0], by_pose[2, 1], by_pose[2, 2] = 0.0, 0.0, dz
    for r in range(3):  # d(x, y, z) / d phi = -[x, y, z]x
        gx, gy, gz = by_pose[r, 0], by_pose[r, 1], by_pose[r, 2]
        by_pose[r, 3] = gz * y - gy * z
        by_pose[r, 4] = gx * z - gz * x
        by_pose[r, 5] = gy * x - gx * y


@inner(fastmath=RELAXED)
def linearise(graph, poses, points, normal, by_pose, by_point):
    """Fill the normal equations at `poses`, `points`; `by_pose` (3, 6) and `by_point` (3, 3) are scratch."""
    normal.pose_H[:] = 0.0
    normal.pose_b[:] = 0.0
    normal.point_H[:] = 0.0
    normal.point_b[:] = 0.0
    for j in range(points.shape[0]):
        H, b = normal.point_H[j], normal.point_b[j]
        for m in range(graph.point_start[j], graph.point_start[j + 1]):
            slot = graph.slot[graph.pose_index[m]]
            T = poses[graph.pose_index[m]]
            x, y, z = _transform(T, points[j])
            if not graph.active[m] or abs(z) < MIN_DEPTH:
                if slot >= 0:
                    normal.cross[m] = 0.0
                continue
            du, dv, dd, chi2 = _residual(graph, m, x, y, z)
            _jacobians(T, x, y, z, graph.pinhole, by_pose, by_point)
            stereo = graph.disparity[m] > 0.0
            delta = graph.delta[1] if stereo else graph.delta[0]
            huber = 1.0 if chi2 <= delta * delta else delta / sqrt(chi2)
            wu = huber * graph.weight[m, 0]
            wd = huber * graph.weight[m, 1] if stereo else 0.0
            for r in range(3):
                w, e = (wu, du) if r == 0 else (wu, dv) if r == 1 else (wd, dd)
                p, q, s = by_point[r, 0], by_point[r, 1], by_point[r, 2]
                H[0] += w * p * p
                H[1] += w * p * q
                H[2] += w * p * s
                H[3] += w * q * q
                H[4] += w * q * s
                H[5] += w * s * s
                b[0] += w * e * p
                b[1] += w * e * q
                b[2] += w * e * s
            if slot >= 0:
                _add_pose(normal, slot, m, by_pose, by_point, wu, wd, wu * du, wu * dv, wd * dd)


@inner(fastmath=RELAXED)
def _add_pose(normal, slot, m, by_pose, by_point, wu, wd, eu, ev, ed):
    """Add an observation of a free pose to its blocks; w and e are the rows' weights and weighted residuals."""
    H, b, W = normal.pose_H[slot], normal.pose_b[slot], normal.cross[m]
    for a in range(6):
        ju, jv, jd = by_pose[0, a], by_pose[1, a], by_pose[2, a]
        b[a] += ju * eu + jv * ev + jd * ed
        ju, jv, jd = wu * ju, wu * jv, wd * jd
        for c in range(a + 1):
            H[a, c] += ju * by_pose[0, c] + jv * by_pose[1, c] + jd * by_pose[2, c]
        for c in range(3):
            W[a, c] = ju * by_point[0, c] + jv * by_point[1, c] + jd * by_point[2, c]
