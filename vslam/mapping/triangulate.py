"""New points from features without depth: two keyframes that see the same thing from two places."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vslam.geometry import se3
from vslam.geometry.gates import MONO_GATE
from vslam.kernels import njit
from vslam.mapping.map import Map
from vslam.matching.distance import distance
from vslam.matching.window import NEAR_M
from vslam.types import Camera

MIN_BASELINE = 0.05  # of the scene's depth: less shows no depth
MIN_SINE_SQUARED = math.sin(math.radians(3.0)) ** 2  # of the parallax
DISTANCE_SHARE = 0.8  # of the extractor's largest distance: the line leaves more candidates than a known place does
RATIO = 0.9
SIZE_FACTOR = 1.5  # one thing has one size, as `find_points` takes it
CHI2_LINE, CHI2_POINT = 3.841, MONO_GATE  # 95 % of one and of two degrees of freedom


def triangulate_around(map_: Map, slot: int, neighbours: np.ndarray, camera: Camera, extractor: Any) -> int:
    """Make points of what keyframe `slot` and a neighbour both see without depth. Returns how many."""
    keyframes = map_.keyframes
    min_baseline = MIN_BASELINE * scene_depth(map_, slot)
    made = 0
    for neighbour in neighbours.tolist():
        T_ba = keyframes.T_cw[neighbour] @ se3.inverse(keyframes.T_cw[slot])
        if np.linalg.norm(T_ba[:3, 3]) >= min_baseline:
            made += _triangulate_pair(map_, slot, neighbour, T_ba, camera, extractor)
    return made


def scene_depth(map_: Map, slot: int) -> float:
    """Median depth of the points that keyframe `slot` sees, metres; infinite if it sees none."""
    rows = map_.keyframes.point[slot]
    rows = rows[rows >= 0]
    if not len(rows):
        return math.inf
    T_cw = map_.keyframes.T_cw[slot]
    return float(np.median(map_.points.xyz[rows] @ T_cw[2, :3] + T_cw[2, 3]))


def unused(map_: Map, slot: int) -> np.ndarray:
    """Features of keyframe `slot` that have no depth and show no known point."""
    keyframes = map_.keyframes
    n = keyframes.count[slot]
    return np.flatnonzero((keyframes.point[slot, :n] < 0) & (keyframes.disparity[slot, :n] <= 0))


def fundamental(T_ba: np.ndarray, camera: Camera) -> np.ndarray:
    """F (3, 3) with `x_b^T F x_a = 0` in pixels (Hartley and Zisserman, 2nd edition, equation 9.2)."""
    K_inverse = np.linalg.inv(camera.K)
    x, y, z = T_ba[:3, 3]
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return K_inverse.T @ cross @ T_ba[:3, :3] @ K_inverse


def same_size(xyz_a: np.ndarray, sigma_a: np.ndarray, sigma_b: np.ndarray, T_ba: np.ndarray) -> np.ndarray:
    """(K,) bool: the two keypoints of a point cover about as much of the world."""
    xyz_b = xyz_a @ T_ba[:3, :3].T + T_ba[:3, 3]
    ratio = sigma_a * np.linalg.norm(xyz_a, axis=1) / (sigma_b * np.linalg.norm(xyz_b, axis=1))
    return (ratio <= SIZE_FACTOR) & (ratio >= 1.0 / SIZE_FACTOR)


def _triangulate_pair(map_: Map, slot: int, neighbour: int, T_ba: np.ndarray, camera: Camera, extractor: Any) -> int:
    keyframes, one, other = map_.keyframes, map_.frames[slot], map_.frames[neighbour]
    a, b = unused(map_, slot), unused(map_, neighbour)
    if not len(a) or not len(b):
        return 0
    F = fundamental(T_ba, camera)
    seen_a = keyframes.xy[slot, a], keyframes.sigma[slot, a]
    seen_b = keyframes.xy[neighbour, b], keyframes.sigma[neighbour, b]
    match, match_distance = np.empty(len(a), np.int32), np.empty(len(a), np.float32)
    limit, ratio = np.float32(DISTANCE_SHARE * extractor.max_distance), np.float32(RATIO)
    search_epipolar(F, *seen_a, one.words[a], *seen_b, other.words[b], limit, ratio, match, match_distance)
    xyz = np.empty((len(a), 3))
    triangulate(F, T_ba, camera.pinhole, *seen_a, *seen_b, match, xyz)
    hit = np.flatnonzero(match >= 0)
    a, b, xyz = a[hit], b[match[hit]], xyz[hit]
    if extractor.scale_pyramid:
        good = same_size(xyz, one.features.sigma[a], other.features.sigma[b], T_ba)
        a, b, xyz = a[good], b[good], xyz[good]
    if len(a):
        T_wa = se3.inverse(keyframes.T_cw[slot])
        rows = map_.add_points(slot, a, xyz @ T_wa[:3, :3].T + T_wa[:3, 3])
        map_.observe(neighbour, b, rows)
    return len(a)


@njit(fastmath=True)
def search_epipolar(F, xy_a, sigma_a, words_a, xy_b, sigma_b, words_b, max_distance, ratio, match, match_distance):
    """Match features of a with features of b that lie on each other's epipolar lines, one to one.

    A pair is a candidate if its Sampson error (Hartley and Zisserman, equation 11.9, weighted by the sigmas) is within
    the 95 % gate. The best is accepted below `max_distance` and up to `ratio` times the second best; of two that want
    the same feature the more alike gets it. `match` (N,) int32 gets indices into b or -1, `match_distance` (N,) float32
    their distances.
    """
    slope_b, owner = np.empty(len(xy_b)), np.full(len(xy_b), -1, np.int32)
    for j in range(len(xy_b)):  # squared gradient of the error by x_a: the same for all features of a
        u, v = np.float64(xy_b[j, 0]), np.float64(xy_b[j, 1])
        gu, gv = F[0, 0] * u + F[1, 0] * v + F[2, 0], F[0, 1] * u + F[1, 1] * v + F[2, 1]
        slope_b[j] = gu * gu + gv * gv
    for i in range(len(xy_a)):
        match[i] = -1
        u, v = np.float64(xy_a[i, 0]), np.float64(xy_a[i, 1])
        lu, lv = F[0, 0] * u + F[0, 1] * v + F[0, 2], F[1, 0] * u + F[1, 1] * v + F[1, 2]
        l1 = F[2, 0] * u + F[2, 1] * v + F[2, 2]
        slope_a, variance_a = CHI2_LINE * (lu * lu + lv * lv), CHI2_LINE * np.float64(sigma_a[i]) * sigma_a[i]
        best, second, at = max_distance, np.float32(1e9), -1
        for j in range(len(xy_b)):
            error = lu * xy_b[j, 0] + lv * xy_b[j, 1] + l1
            if not error * error < variance_a * slope_b[j] + slope_a * sigma_b[j] * sigma_b[j]:
                continue
            d = distance(words_a, i, words_b, j)
            if d < best:
                second, best, at = best if at >= 0 else second, d, j
            elif d < second:
                second = d
        if at < 0 or best > ratio * second:
            continue
        if owner[at] >= 0:
            if match_distance[owner[at]] <= best:
                continue
            match[owner[at]] = -1
        owner[at], match[i], match_distance[i] = i, at, best


@njit
def triangulate(F, T_ba, pinhole, xy_a, sigma_a, xy_b, sigma_b, match, xyz):
    """Points `xyz` (N, 3) in camera a of its matches in b; `match` (N,) becomes -1 where there is no trusting them.

    Sampson's correction, weighted by the sigmas, makes the rays meet to first order (Hartley and Zisserman, section
    12.4); the point is the middle between them, so it is the most likely one to that order. Trusted are a parallax
    over 3 degrees, points before both cameras, and a reprojection within the 95 % gate of both.
    """
    fx, fy, cx, cy = pinhole[0], pinhole[1], pinhole[2], pinhole[3]
    R, t = T_ba[:3, :3], T_ba[:3, 3]
    for i in range(len(match)):
        j = match[i]
        if j < 0:
            continue
        match[i] = -1
        ua, va, ub, vb = np.float64(xy_a[i, 0]), np.float64(xy_a[i, 1]), np.float64(xy_b[j, 0]), np.float64(xy_b[j, 1])
        lu, lv = F[0, 0] * ua + F[0, 1] * va + F[0, 2], F[1, 0] * ua + F[1, 1] * va + F[1, 2]
        gu, gv = F[0, 0] * ub + F[1, 0] * vb + F[2, 0], F[0, 1] * ub + F[1, 1] * vb + F[2, 1]
        variance_a, variance_b = np.float64(sigma_a[i]) ** 2, np.float64(sigma_b[j]) ** 2
        variance = variance_a * (gu * gu + gv * gv) + variance_b * (lu * lu + lv * lv)
        if not variance > 0.0:
            continue
        k = (lu * ub + lv * vb + F[2, 0] * ua + F[2, 1] * va + F[2, 2]) / variance
        ax, ay = (ua - k * variance_a * gu - cx) / fx, (va - k * variance_a * gv - cy) / fy  # rays (x, y, 1)
        bx, by = (ub - k * variance_b * lu - cx) / fx, (vb - k * variance_b * lv - cy) / fy
        # in camera b: za * r + t = zb * (bx, by, 1), least squares in the depths za, zb
        rx = R[0, 0] * ax + R[0, 1] * ay + R[0, 2]
        ry = R[1, 0] * ax + R[1, 1] * ay + R[1, 2]
        rz = R[2, 0] * ax + R[2, 1] * ay + R[2, 2]
        rr, bb, rb = ax * ax + ay * ay + 1.0, bx * bx + by * by + 1.0, rx * bx + ry * by + rz
        rt, bt = rx * t[0] + ry * t[1] + rz * t[2], bx * t[0] + by * t[1] + t[2]
        determinant = rr * bb - rb * rb
        if not determinant > MIN_SINE_SQUARED * rr * bb:
            continue
        za, zb = (rb * bt - bb * rt) / determinant, (rr * bt - rb * rt) / determinant
        mx = 0.5 * (za * rx + zb * bx - t[0])  # the middle, from camera a's centre, along the axes of b
        my = 0.5 * (za * ry + zb * by - t[1])
        mz = 0.5 * (za * rz + zb - t[2])
        x = R[0, 0] * mx + R[1, 0] * my + R[2, 0] * mz
        y = R[0, 1] * mx + R[1, 1] * my + R[2, 1] * mz
        z = R[0, 2] * mx + R[1, 2] * my + R[2, 2] * mz
        depth_b = mz + t[2]
        if not (z > NEAR_M and depth_b > NEAR_M):
            continue
        eu, ev = fx * x / z + cx - ua, fy * y / z + cy - va
        fu, fv = fx * (mx + t[0]) / depth_b + cx - ub, fy * (my + t[1]) / depth_b + cy - vb
        if eu * eu + ev * ev < CHI2_POINT * variance_a and fu * fu + fv * fv < CHI2_POINT * variance_b:
            match[i], xyz[i, 0], xyz[i, 1], xyz[i, 2] = j, x, y, z
