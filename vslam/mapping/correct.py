"""Corrections that move the whole map at once: poses from a pose graph or from global bundle adjustment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vslam.geometry import se3, sim3
from vslam.mapping.map import Map, Retired
from vslam.types import Frame

Poses = dict[int, np.ndarray]
"""`T_cw` (4, 4) by keyframe id; similarities `S_cw` where the keyframe's own metres are not those of the world."""


def correct_map(map_: Map, poses: Poses) -> None:
    """Give keyframes new poses; those that `poses` does not name follow the one before them, points their keyframe.

    Of a similarity the camera gets the rigid part; its scale goes to what the keyframe has seen: depth and points.
    Raises the map's epoch: a result that was computed from older poses must not be written any more.
    """
    keyframes, points = map_.keyframes, map_.points
    known = sorted(keyframe for keyframe in poses if keyframe in map_.slot_of)
    if not known:
        return
    with map_.lock:
        old = {keyframe: map_.pose(keyframe).copy() for keyframe in range(len(map_.timestamp_of))}
        scale, T_cw = sim3.split(np.stack([rebased(keyframe, poses, known, old) for keyframe in map_.slot_of]))
        for slot, T in zip(map_.slot_of.values(), T_cw, strict=True):
            keyframes.T_cw[slot] = T
            se3.orthonormalise(keyframes.T_cw[slot])
        grown = np.ones(len(old))  # new metres of each old one, by keyframe
        grown[list(map_.slot_of)] = 1.0 / scale
        stretch_keyframes(map_, grown)
        map_.epoch += 1
        if (grown != 1.0).any():
            map_.growth[map_.epoch] = grown
        move = np.stack([se3.inverse(map_.pose(k)) @ sim3.compose(grown[k], T_cw) for k, T_cw in old.items()])
        rows = np.flatnonzero(points.alive)
        D, grown = move[points.born[rows]], grown[points.born[rows]]
        points.xyz[rows] = np.einsum("nij,nj->ni", D[:, :3, :3], points.xyz[rows]) + D[:, :3, 3]
        points.normal[rows] = np.einsum("nij,nj->ni", D[:, :3, :3], points.normal[rows]) / grown[:, None]
        points.size[rows] *= grown


def rebased(keyframe: int, poses: Poses, known: list[int], old: Poses) -> np.ndarray:
    """The new `T_cw` of a keyframe: its own, or where it was relative to the last one before it that has one."""
    if keyframe in poses:
        return poses[keyframe]
    at = max(int(np.searchsorted(known, keyframe)) - 1, 0)
    return old[keyframe] @ se3.inverse(old[known[at]]) @ poses[known[at]]


def stretch_keyframes(map_: Map, grown: np.ndarray) -> None:
    """Make what keyframes saw as much larger as `grown` (by id) says: depths, surfaces, and the way to removed ones,
    whose own entries are filled in."""
    for keyframe, slot in map_.slot_of.items():
        if grown[keyframe] != 1.0:
            map_.keyframes.disparity[slot] /= grown[keyframe]
            map_.keyframes.disparity_sigma[slot] /= grown[keyframe]
            map_.frames[slot] = stretched(map_.frames[slot], grown[keyframe])
    for keyframe, gone in map_.retired.items():
        parent = gone.parent
        while parent in map_.retired:
            parent = map_.retired[parent].parent
        grown[keyframe] = grown[parent]
        if grown[parent] != 1.0:
            T_self_parent = gone.T_self_parent.copy()
            T_self_parent[:3, 3] *= grown[parent]
            map_.retired[keyframe] = Retired(gone.parent, T_self_parent)


def stretched(frame: Frame, grown: float) -> Frame:
    """The frame as if its depth were so many times larger."""
    grown = np.float32(grown)
    surface = frame.surface
    if surface is not None:
        surface = replace(surface, xyz=surface.xyz * grown, sigma=surface.sigma * grown)
    return replace(
        frame, disparity=frame.disparity / grown, disparity_sigma=frame.disparity_sigma / grown, surface=surface
    )
