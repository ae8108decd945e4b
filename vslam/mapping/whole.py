"""Global bundle adjustment: all keyframes and points; the problem copied out, solved elsewhere, and written back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vslam.mapping.bundle import Problem, Solution
from vslam.mapping.correct import correct_map
from vslam.mapping.map import Map
from vslam.mapping.window import drop_observations, gather
from vslam.types import Camera


@dataclass(frozen=True)
class WholeProblem:
    """The adjustment of all firm keyframes `id` (K,); rows (P,) and their generation name its points in the map, owner
    (M,) in `id` and feature (M,) its observations. `epoch` is the map's."""

    problem: Problem
    id: np.ndarray
    rows: np.ndarray
    generation: np.ndarray
    owner: np.ndarray
    feature: np.ndarray
    epoch: int


def whole_problem(map_: Map, camera: Camera) -> WholeProblem | None:
    """Copy the map; the first keyframe holds. Keyframes whose pose rests on surfaces stay out: they follow others."""
    keyframes = map_.keyframes
    ids = [keyframe for keyframe in sorted(map_.slot_of) if not keyframes.weak[map_.slot_of[keyframe]]]
    if len(ids) < 2:
        return None
    slots = np.array([map_.slot_of[keyframe] for keyframe in [*ids[1:], ids[0]]], np.int64)
    problem, rows, owner, feature = gather(map_, slots, len(slots) - 1, camera)
    if not len(owner):
        return None
    ids = keyframes.id[slots].copy()
    return WholeProblem(problem, ids, rows, map_.points.generation[rows].copy(), owner, feature, map_.epoch)


def commit_whole(map_: Map, whole: WholeProblem, solution: Solution) -> bool:
    """Write the solution, unless the map has been corrected since it was copied. Younger keyframes follow.

    Returns whether it was written.
    """
    if map_.epoch != whole.epoch:
        return False
    poses = {int(keyframe): T_cw for keyframe, T_cw in zip(whole.id, solution.poses, strict=True)}
    correct_map(map_, poses)
    points = map_.points
    same = (points.alive[whole.rows] > 0) & (points.generation[whole.rows] == whole.generation)
    points.xyz[whole.rows[same]] = solution.points[same]
    _drop_outliers(map_, whole, solution, same)
    return True


def _drop_outliers(map_: Map, whole: WholeProblem, solution: Solution, same: np.ndarray) -> None:
    """Observations that do not fit, where the keyframe still sees that point there."""
    bad = np.flatnonzero(~solution.inlier & same[whole.problem.point_index])
    ids = whole.id[whole.owner[bad]]
    bad = bad[[int(keyframe) in map_.slot_of for keyframe in ids]]
    slots = np.array([map_.slot_of[int(keyframe)] for keyframe in whole.id[whole.owner[bad]]], np.int64)
    features, rows = whole.feature[bad], whole.rows[whole.problem.point_index[bad]]
    still = map_.keyframes.point[slots, features] == rows if len(slots) else np.zeros(0, bool)
    if still.any():
        drop_observations(map_, slots[still], features[still])
