"""Local bundle adjustment: the newest keyframes and their points move, the keyframes around them hold their place."""

from __future__ import annotations

import numpy as np

from vslam.geometry import se3
from vslam.kernels import njit
from vslam.mapping.bundle import Problem, adjust
from vslam.mapping.map import Map, covisible
from vslam.types import Camera


def adjust_window(
    map_: Map, slot: int, camera: Camera, window: int, fixed_window: int, optimizer: str, stop_flag: np.ndarray
) -> int:
    """Adjust the keyframes around `slot` and what they see; drops outlying observations. Returns the observations."""
    moving, fixed = choose_window(map_, slot, window, fixed_window)
    if len(moving) + len(fixed) < 2:
        return 0
    slots = np.concatenate([moving, fixed]).astype(np.int64)
    problem, rows, owner, feature = gather(map_, slots, len(moving), camera)
    if not len(owner):
        return 0
    solution = adjust(problem, optimizer, stop_flag=stop_flag)
    commit(map_, slots[: len(moving)], rows, solution.poses, solution.points, camera.pinhole)
    outlier = ~solution.inlier
    drop_observations(map_, slots[owner[outlier]], feature[outlier])
    return len(owner)


def choose_window(map_: Map, slot: int, window: int, fixed_window: int) -> tuple[np.ndarray, np.ndarray]:
    """Slots that move, in order of time, and slots that hold them; one keyframe always holds, the first if in view.

    Keyframes whose pose rests on surfaces hold: their few points would pull them anywhere.
    """
    keyframes = map_.keyframes
    neighbours, _ = covisible(map_, slot)
    moving = np.concatenate([[slot], neighbours[: window - 1]]).astype(np.int64)
    weak = keyframes.weak[moving] > 0
    fixed = np.concatenate([moving[weak], fixed_around(map_, moving, fixed_window)])
    moving = moving[~weak]
    if not len(moving):
        return moving, fixed
    moving = moving[np.argsort(keyframes.id[moving])]
    if keyframes.id[moving[0]] == 0 or not len(fixed):
        moving, fixed = moving[1:], np.concatenate([moving[:1], fixed])
    return moving, fixed


def fixed_around(map_: Map, moving: np.ndarray, wanted: int) -> np.ndarray:
    """Keyframes outside `moving` that see most of what those see."""
    keyframes = map_.keyframes
    mark, shared = np.zeros(map_.points.capacity, np.uint8), np.zeros(keyframes.capacity, np.int32)
    count_seen(keyframes.id, keyframes.point, moving, mark, shared)
    shared[moving] = 0
    order = np.lexsort((-keyframes.id, -shared))[:wanted]
    return order[shared[order] > 0]


def gather(map_: Map, slots: np.ndarray, moving: int, camera: Camera):
    """The problem of keyframes `slots`, the first `moving` of which move.

    Points seen once tell nothing about poses and are left out; they follow their keyframe afterwards.

    Returns:
        problem, rows (P,) of its points in the map, and per observation owner (M,) in `slots` and feature (M,).
    """
    keyframes, points = map_.keyframes, map_.points
    seen, local = np.zeros(points.capacity, np.int32), np.full(points.capacity, -1, np.int32)
    total, used = count_observations(keyframes.point, slots, moving, seen, local)
    owner, feature = np.empty(total, np.int32), np.empty(total, np.int32)
    point_index, uv = np.empty(total, np.int32), np.empty((total, 2))
    disparity, weight = np.empty(total), np.empty((total, 2))
    fill_observations(
        keyframes.point, keyframes.xy, keyframes.sigma, keyframes.disparity, keyframes.disparity_sigma, slots, seen,
        local, used, owner, feature, point_index, uv, disparity, weight,
    )  # fmt: skip
    rows = np.flatnonzero(local >= 0)
    rows = rows[np.argsort(local[rows])]
    fixed = np.arange(len(slots)) >= moving
    problem = Problem(
        keyframes.T_cw[slots], fixed, points.xyz[rows], owner, point_index, uv, disparity, weight, camera.pinhole
    )
    return problem, rows, owner, feature


def commit(map_: Map, moving: np.ndarray, rows: np.ndarray, poses: np.ndarray, xyz: np.ndarray, pinhole) -> None:
    """Write poses of `moving` and points `rows`; points that only one keyframe sees move with it."""
    keyframes, points = map_.keyframes, map_.points
    with map_.lock:
        carry_lone_points(
            keyframes.point, moving, keyframes.T_cw, poses[: len(moving)], points.observations, points.xyz
        )
        keyframes.T_cw[moving] = poses[: len(moving)]
        for slot in moving:
            se3.orthonormalise(keyframes.T_cw[slot])
        points.xyz[rows] = xyz


def drop_observations(map_: Map, slots: np.ndarray, features: np.ndarray) -> None:
    """Keyframes `slots` (K,) do not see, after all, what they were thought to see at `features` (K,)."""
    rows = map_.keyframes.point[slots, features]
    map_.keyframes.point[slots, features] = -1
    np.subtract.at(map_.points.observations, rows, 1)
    map_.remove_points(np.unique(rows[map_.points.observations[rows] <= 0]))


@njit
def count_seen(ids, point, slots, mark, shared):
    """`shared` (S,): how many of the points that `slots` see each keyframe sees."""
    for slot in slots:
        for f in range(point.shape[1]):
            if point[slot, f] >= 0:
                mark[point[slot, f]] = 1
    for s in range(len(ids)):
        if ids[s] >= 0:
            for f in range(point.shape[1]):
                p = point[s, f]
                shared[s] += p >= 0 and mark[p] == 1


@njit
def count_observations(point, slots, moving, seen, local):
    """Number points that a moving keyframe and any other sees (`local`); returns observations and points."""
    for k in range(len(slots)):
        for f in range(point.shape[1]):
            p = point[slots[k], f]
            if p >= 0 and (k < moving or seen[p] > 0):
                seen[p] += 1
    total, used = 0, 0
    for k in range(moving):
        for f in range(point.shape[1]):
            p = point[slots[k], f]
            if p >= 0 and seen[p] > 1 and local[p] < 0:
                local[p] = used
                used += 1
                total += seen[p]
    return total, used


@njit
def fill_observations(
    point, xy, sigma, disparity, disparity_sigma, slots, seen, local, used, owner, feature, point_index, uv, d, weight
):
    """Write the observations of numbered points, sorted by point."""
    place = np.zeros(used + 1, np.int64)
    for p in range(len(local)):
        if local[p] >= 0:
            place[local[p] + 1] = seen[p]
    for i in range(used):
        place[i + 1] += place[i]
    for k in range(len(slots)):
        s = slots[k]
        for f in range(point.shape[1]):
            p = point[s, f]
            if p < 0 or local[p] < 0:
                continue
            i = place[local[p]]
            place[local[p]] += 1
            owner[i], feature[i], point_index[i] = k, f, local[p]
            uv[i, 0], uv[i, 1] = xy[s, f, 0], xy[s, f, 1]
            d[i] = disparity[s, f]
            weight[i, 0] = 1.0 / (sigma[s, f] * sigma[s, f])
            weight[i, 1] = 1.0 / (disparity_sigma[s, f] * disparity_sigma[s, f])


@njit
def carry_lone_points(point, moving, T_cw, new_T_cw, observations, xyz):
    """Move the points that only one keyframe sees as that keyframe moves."""
    p_c = np.empty(3)
    for k in range(len(moving)):
        old, new = T_cw[moving[k]], new_T_cw[k]
        for f in range(point.shape[1]):
            p = point[moving[k], f]
            if p < 0 or observations[p] != 1:
                continue
            for i in range(3):
                p_c[i] = old[i, 0] * xyz[p, 0] + old[i, 1] * xyz[p, 1] + old[i, 2] * xyz[p, 2] + old[i, 3] - new[i, 3]
            for i in range(3):
                xyz[p, i] = new[0, i] * p_c[0] + new[1, i] * p_c[1] + new[2, i] * p_c[2]
