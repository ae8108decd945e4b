"""The essential graph: the strong links between keyframes, which a correction bends as little as it can."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    shared = count_shared(keyframes.point[slots], map_.points.capacity)
    is_link = shared >= STRONG
    follows = np.arange(1, len(slots))
    is_link[follows - 1, follows] = True
    links = np.argwhere(np.triu(is_link, 1)).astype(np.int32)
    return EssentialGraph(
        keyframes.id[slots].copy(), keyframes.T_cw[slots].copy(), links, shared[links[:, 0], links[:, 1]], map_.epoch
    )


def count_shared(point: np.ndarray, points: int) -> np.ndarray:
    """(K, K) int32: how many points each pair of keyframes sees both; `point` (K, F) are those they see or -1."""
    from scipy.sparse import csr_matrix

    keyframe, feature = np.nonzero(point >= 0)
    sees = csr_matrix((np.ones(len(keyframe), np.int32), (keyframe, point[keyframe, feature])), (len(point), points))
    shared = (sees @ sees.T).toarray()
    np.fill_diagonal(shared, 0)
    return shared
