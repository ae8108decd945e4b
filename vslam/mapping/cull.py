"""What the map forgets: points that do not prove themselves, keyframes that add nothing."""

from __future__ import annotations

import numpy as np

from vslam.kernels import njit
from vslam.mapping.map import Map, covisible

MIN_FOUND_SHARE = 0.25  # of the times it should have been seen (ORB-SLAM, Mur-Artal et al., T-RO 2015, section VI-B)
TRIAL_KEYFRAMES = 3  # a point must be seen again before it is this many keyframes old
WITNESSES = 3  # keyframes that must see a point at about the same scale before another of them is redundant
SAME_SCALE = 1.3


def cull_points(map_: Map, newest: int) -> int:
    """Remove points that tracking rarely finds, and those past their trial that one keyframe alone sees."""
    points = map_.points
    alive = points.alive > 0
    rare = points.found < MIN_FOUND_SHARE * points.visible
    alone = (newest - points.born >= TRIAL_KEYFRAMES) & (points.observations < 2)
    rows = np.flatnonzero(alive & (rare | alone))
    map_.remove_points(rows)
    return len(rows)


def cull_keyframes(map_: Map, slot: int, redundant_share: float, candidates: int) -> int:
    """Remove neighbours of `slot` nearly all of whose points are seen by others as closely; never the first."""
    keyframes = map_.keyframes
    removed = 0
    neighbours, _ = covisible(map_, slot)
    for candidate in neighbours[:candidates]:
        keyframe = int(keyframes.id[candidate])
        if keyframe == 0 or keyframe >= keyframes.id[slot] - 1:
            continue
        witnessed, total = count_witnessed(
            keyframes.id, keyframes.point, keyframes.sigma, keyframes.T_cw, map_.points.xyz, int(candidate)
        )
        if total and witnessed > redundant_share * total:
            parent = covisible(map_, int(candidate))[0][0]
            map_.remove_keyframe(keyframe, int(keyframes.id[parent]))
            removed += 1
    return removed


@njit
def count_witnessed(ids, point, sigma, T_cw, xyz, slot):
    """How many points of keyframe `slot` at least WITNESSES others see as closely, and how many it sees."""
    limit = np.zeros(len(xyz), np.float32)
    count = np.zeros(len(xyz), np.int32)
    for f in range(point.shape[1]):
        p = point[slot, f]
        if p >= 0:
            limit[p] = SAME_SCALE * sigma[slot, f] * _depth(T_cw[slot], xyz[p])
    for s in range(len(ids)):
        if ids[s] < 0 or s == slot:
            continue
        for f in range(point.shape[1]):
            p = point[s, f]
            if p >= 0 and limit[p] > 0.0 and sigma[s, f] * _depth(T_cw[s], xyz[p]) <= limit[p]:
                count[p] += 1
    witnessed, total = 0, 0
    for f in range(point.shape[1]):
        p = point[slot, f]
        if p >= 0:
            total += 1
            witnessed += count[p] >= WITNESSES
    return witnessed, total


@njit
def _depth(T, p):
    return T[2, 0] * p[0] + T[2, 1] * p[1] + T[2, 2] * p[2] + T[2, 3]
