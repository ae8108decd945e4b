"""A whole map made by hand from bare points: keyframes on a path, what they see, and the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.world import Points, request, scatter, see
from vslam.geometry import se3
from vslam.mapping.map import Map
from vslam.types import Frame

STEP = np.array([0.06, -0.02, 0.03, 0.01, -0.03, 0.01])


@dataclass
class Made:
    """`row` (P,) where each point is in the map, -1 for none; `T_cw` (K, 4, 4) true poses by keyframe id."""

    map: Map
    points: Points
    T_cw: np.ndarray
    row: np.ndarray
    frames: list[Frame]
    shown: list[np.ndarray]

    def slot(self, keyframe: int) -> int:
        return self.map.slot_of[keyframe]

    def pose_errors(self) -> np.ndarray:
        """(K,) lengths of the pose errors, metres and radians mixed."""
        return np.array([np.linalg.norm(se3.log(self.map.pose(k) @ se3.inverse(T))) for k, T in enumerate(self.T_cw)])

    def point_errors(self) -> np.ndarray:
        """(Q,) distances of the points in the map from where they are."""
        here = np.flatnonzero(self.row >= 0)
        here = here[self.map.points.alive[self.row[here]] > 0]
        return np.linalg.norm(self.map.points.xyz[self.row[here]] - self.points.xyz[here], axis=1)


def make_map(keyframes=6, noise_px=0.0, seed=0, twice=False, at=None, step=STEP, world: Points | None = None) -> Made:
    """Keyframes along a path; each point is one row, or with `twice` a new row in every keyframe that sees it.

    `at` (K,) are the places on the path, whole numbers if not given.
    """
    world = scatter(400, seed) if world is None else world
    made = Made(Map(), world, np.empty((0, 4, 4)), np.full(len(world), -1), [], [])
    for k, place in enumerate(range(keyframes) if at is None else at):
        T_cw = se3.exp(step * place)
        frame, shown = see(world, T_cw, k / 10, noise_px, seed + k)
        known = np.full(len(shown), -1) if twice else made.row[shown]
        T_frame_reference = T_cw @ se3.inverse(made.T_cw[k - 1]) if k else T_cw
        slot = made.map.insert(request(frame, k - 1, T_frame_reference, known), len(world))
        new = np.flatnonzero(known < 0)
        made.row[shown[new]] = made.map.add_points(slot, new, world.xyz[shown[new]])
        made.T_cw = np.concatenate([made.T_cw, T_cw[None]])
        made.frames.append(frame), made.shown.append(shown)
    return made
