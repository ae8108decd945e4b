"""What the tracker gets of the map: the points of the keyframes around the newest one, copied."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from vslam.geometry import se3
from vslam.kernels import njit
from vslam.mapping.map import Map, count_seen, covisible
from vslam.types import LocalMap, Surfaces

RECENT_POSES = 64  # keyframes whose poses go along besides those in view: the tracker's anchor is one of them
OTHER_SURFACES = 2  # keyframes besides the newest whose shape the tracker may lean on
NEAR_ANGLE = 0.7  # radians between optical axes, NEAR_M metres between centres: such keyframes see much the same
NEAR_M = 1.0
LINKED = 15  # points that a near keyframe shares with those around


def build_local_map(
    map_: Map, slot: int, keyframes_wanted: int, near_s: float = np.inf, without: Collection[int] = ()
) -> LocalMap:
    """The local map around keyframe `slot`: its points, those of its covisible keyframes, and those of near ones.

    Near keyframes more than `near_s` seconds older or younger, which nothing links to those around `slot`, are left
    out: they lie where they seem to as far as the way between is right. Of keyframes `without` (ids) only the points
    that others see too count.
    """
    keyframes, points = map_.keyframes, map_.points
    left_out = [map_.slot_of[keyframe] for keyframe in without if keyframe in map_.slot_of]
    neighbours, near = (
        some[~np.isin(some, left_out)] for some in (covisible(map_, slot)[0], near_keyframes(map_, slot))
    )
    neighbours = neighbours[:keyframes_wanted]
    is_old = age_s(map_, near, slot) > near_s
    is_old[is_old] = ~is_linked(map_, near[is_old], np.append(neighbours, slot))
    near = near[~is_old][:keyframes_wanted]
    slots = np.concatenate([[slot], neighbours, near[~np.isin(near, neighbours)]]).astype(np.int64)
    mark = np.zeros(points.capacity, np.uint8)
    mark_points(keyframes.point, slots, mark)
    row = np.flatnonzero(mark).astype(np.int32)
    newest = len(map_.timestamp_of)
    posed = {*keyframes.id[slots].tolist(), *range(max(0, newest - RECENT_POSES), newest)}
    return LocalMap(
        row, points.generation[row], points.xyz[row], points.normal[row], points.size[row], points.words[row],
        mark[row] == 2, int(keyframes.id[slot]), {keyframe: map_.pose(keyframe).copy() for keyframe in posed},
        _surfaces(map_, np.concatenate([[slot], near[:OTHER_SURFACES]])), map_.epoch,
    )  # fmt: skip


def _surfaces(map_: Map, slots: np.ndarray) -> Surfaces | None:
    seen = [(slot, map_.frames[slot].surface) for slot in slots.tolist() if map_.frames[slot].surface is not None]
    if not seen:
        return None
    return Surfaces(
        np.stack([map_.keyframes.T_cw[slot] for slot, _ in seen]),
        np.stack([surface.xyz for _, surface in seen]),
        np.stack([surface.normal for _, surface in seen]),
    )


def near_keyframes(map_: Map, slot: int) -> np.ndarray:
    """Slots of other keyframes whose view is near that of `slot`, nearest first."""
    keyframes = map_.keyframes
    others = np.flatnonzero((keyframes.id >= 0) & (np.arange(keyframes.capacity) != slot))
    T_wc = se3.inverse(keyframes.T_cw[slot])
    rotation = keyframes.T_cw[others, :3, :3]
    centre = -np.einsum("nij,ni->nj", rotation, keyframes.T_cw[others, :3, 3])
    distance = np.linalg.norm(centre - T_wc[:3, 3], axis=1)
    angle = np.arccos(np.clip(rotation[:, 2] @ T_wc[:3, 2], -1.0, 1.0))
    cost = distance / NEAR_M + angle / NEAR_ANGLE
    near = (distance < NEAR_M) & (angle < NEAR_ANGLE)
    return others[near][np.argsort(cost[near], kind="stable")]


def is_linked(map_: Map, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) bool: keyframes `some` (N,) see LINKED points of those that `others` see; both slots."""
    return count_seen(map_, some, map_.keyframes.point[others]) >= LINKED


def age_s(map_: Map, some: np.ndarray, slot: int) -> np.ndarray:
    """(N,) seconds between keyframes `some` (N,) and keyframe `slot`."""
    times = [map_.timestamp_of[keyframe] for keyframe in map_.keyframes.id[some].tolist()]
    return np.abs(np.array(times) - map_.timestamp_of[int(map_.keyframes.id[slot])])


@njit
def mark_points(point, slots, mark):
    """Mark with 1 the points that keyframes `slots` see, with 2 those that the first of them sees."""
    for k in range(len(slots) - 1, -1, -1):
        for f in range(point.shape[1]):
            p = point[slots[k], f]
            if p >= 0:
                mark[p] = 2 if k == 0 else 1
