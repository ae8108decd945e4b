"""The essential graph: the strong links between keyframes, which a correction bends as little as it can."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vslam.kernels import njit
from vslam.mapping.map import Map

STRONG = 100
"""Shared points that make a link (the essential graph of ORB-SLAM, Mur-Artal et al., T-RO 2015, section III-D)."""


@dataclass(frozen=True)
class EssentialGraph:
    """Keyframes `id` (K,) int32, rising, with poses `T_cw` (K, 4, 4); `links` (E, 2) int32 are pairs of rows that share
    `shared` (E,) int32 points: all strong ones, and each keyframe with the one before it. `epoch` is the map's."""

    id: np.ndarray
    T_cw: np.ndarray
    links: np.ndarray
    shared: np.ndarray
    epoch: int


def essential_graph(map_: Map) -> EssentialGraph:
    """The graph of all keyframes as they are now."""
    keyframes = map_.keyframes
    slots = np.array([map_.slot_of[keyframe] for keyframe in sorted(map_.slot_of)], np.int64)
    shared = np.zeros((len(slots), len(slots)), np.int32)
    count_shared(keyframes.point, slots, map_.points.capacity, shared)
    is_link = shared >= STRONG
    follows = np.arange(1, len(slots))
    is_link[follows - 1, follows] = True
    links = np.argwhere(np.triu(is_link, 1)).astype(np.int32)
    return EssentialGraph(
        keyframes.id[slots].copy(), keyframes.T_cw[slots].copy(), links, shared[links[:, 0], links[:, 1]], map_.epoch
    )


@njit
def count_shared(point, slots, points, shared):
    """`shared` (K, K): how many points each pair of keyframes `slots` (K,) sees both."""
    mark = np.full(points, -1, np.int32)
    for a in range(len(slots)):
        for f in range(point.shape[1]):
            if point[slots[a], f] >= 0:
                mark[point[slots[a], f]] = a
        for b in range(a + 1, len(slots)):
            count = 0
            for f in range(point.shape[1]):
                p = point[slots[b], f]
                count += p >= 0 and mark[p] == a
            shared[a, b] = shared[b, a] = count
