"""A camera that turns round in the painted room and sees its first views again, and a drifted map."""

from functools import cache

import numpy as np

from tests.world import CAMERA, FPS, render
from vslam.config import load_config
from vslam.geometry import se3
from vslam.mapping.correct import correct_map
from vslam.system import System
from vslam.types import RawFrame, Tracked, Trajectory

ROUND = 90  # frames of one turn
FRAMES = 110
DRIFT = np.array([0.15, 0.0, 0.06, 0.0, np.radians(8.0), 0.0])
"""What the map's last keyframe is off by: metres and radians."""
SETTINGS = ("extractor.max_keypoints=600", "loop.min_gap_s=2")


def path() -> np.ndarray:
    """`T_wc` (N, 4, 4), at the origin first: a turn about the vertical axis, the camera ahead of it."""
    angle = 2 * np.pi * np.arange(FRAMES) / ROUND
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(angle)
    poses[:, 0, 2], poses[:, 2, 0] = np.sin(angle), -np.sin(angle)
    poses[:, 0, 3], poses[:, 2, 3] = 0.3 * np.sin(angle), 0.3 * np.cos(angle) - 0.3
    return poses


@cache
def filmed() -> tuple[RawFrame, ...]:
    """The turn as frames; kept, so treat as read-only."""
    return tuple(RawFrame(k / FPS, *render(T_wc)) for k, T_wc in enumerate(path()))


def turn_round(mode: str, *settings: str, drift_at: int = 80) -> tuple[System, list[Tracked], Trajectory]:
    """Track the turn; after frame `drift_at` the map is bent as if every keyframe had drifted a little."""
    config = load_config(None, [*SETTINGS, *settings])
    with System(CAMERA, config, mode) as system:
        answers = []
        for k, frame in enumerate(filmed()):
            answers.append(system.track(frame))
            if k == drift_at:
                system.drain()
                system._mapping.ask(lambda: bend(system))
        return system, answers, system.trajectory()


def bend(system: System) -> None:
    map_ = system._mapper.map
    last = max(map_.slot_of)
    correct_map(map_, {k: map_.pose(k) @ se3.exp(DRIFT * (k / last)) for k in map_.slot_of})
    system._mapper.turn_to(last)


def errors(poses: np.ndarray) -> np.ndarray:
    """Metres and radians (N, 2) from the truth, seen from the first pose."""
    error = se3.log(np.linalg.inv(path()) @ np.linalg.inv(poses[0]) @ poses)
    return np.stack([np.linalg.norm(error[:, :3], axis=1), np.linalg.norm(error[:, 3:], axis=1)], axis=1)
