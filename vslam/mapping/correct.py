"""Corrections that move the whole map at once: poses from a pose graph or from global bundle adjustment."""

from __future__ import annotations

import numpy as np

from vslam.geometry import se3
from vslam.mapping.map import Map

Poses = dict[int, np.ndarray]
"""`T_cw` (4, 4) by keyframe id."""


def correct_map(map_: Map, poses: Poses) -> None:
    """Give keyframes new poses; those that `poses` does not name follow the one before them, points their keyframe.

    Raises the map's epoch: a result that was computed from older poses must not be written any more.
    """
    keyframes, points = map_.keyframes, map_.points
    known = sorted(keyframe for keyframe in poses if keyframe in map_.slot_of)
    if not known:
        return
    with map_.lock:
        old = {keyframe: map_.pose(keyframe).copy() for keyframe in range(len(map_.timestamp_of))}
        for keyframe, slot in map_.slot_of.items():
            keyframes.T_cw[slot] = rebased(keyframe, poses, known, old)
            se3.orthonormalise(keyframes.T_cw[slot])
        move = np.stack([se3.inverse(map_.pose(keyframe)) @ T_cw for keyframe, T_cw in old.items()])
        rows = np.flatnonzero(points.alive)
        D = move[points.born[rows]]
        points.xyz[rows] = np.einsum("nij,nj->ni", D[:, :3, :3], points.xyz[rows]) + D[:, :3, 3]
        points.normal[rows] = np.einsum("nij,nj->ni", D[:, :3, :3], points.normal[rows])
        map_.epoch += 1


def rebased(keyframe: int, poses: Poses, known: list[int], old: Poses) -> np.ndarray:
    """The new `T_cw` of a keyframe: its own, or where it was relative to the last one before it that has one."""
    if keyframe in poses:
        return poses[keyframe]
    at = max(int(np.searchsorted(known, keyframe)) - 1, 0)
    return old[keyframe] @ se3.inverse(old[known[at]]) @ poses[known[at]]
