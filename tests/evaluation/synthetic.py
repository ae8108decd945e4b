"""Hand-made trajectories and runs for the tests of evaluation."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from vslam.types import Camera, Reason, State, Tracked, Trajectory

CAMERA = Camera(525.0, 525.0, 319.5, 239.5, 640, 480)


def smooth_trajectory(count: int = 200, seed: int = 0, rate: float = 30.0, start: float = 1305031101.5) -> Trajectory:
    """A wandering camera: metres-sized smooth curves in position and orientation."""
    rng = np.random.default_rng(seed)
    time = np.arange(count) / rate
    phase, speed = rng.uniform(0, 6.28, (2, 3, 3)), rng.uniform(0.3, 1.2, (2, 3, 3))
    waves = np.sin(time[:, None, None, None] * speed + phase).sum(axis=3) * [[0.8], [0.4]]
    return Trajectory(start + time, poses_of(waves[:, 0], Rotation.from_rotvec(waves[:, 1]).as_matrix()))


def poses_of(positions: np.ndarray, rotations: np.ndarray | None = None) -> np.ndarray:
    """Poses (N, 4, 4) of positions (N, 3) and rotations (N, 3, 3), identity when left out."""
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, 3] = positions
    if rotations is not None:
        poses[:, :3, :3] = rotations
    return poses


def random_pose(seed: int, reach: float = 5.0) -> np.ndarray:
    """One rigid motion (4, 4)."""
    rng = np.random.default_rng(seed)
    return poses_of(rng.uniform(-reach, reach, (1, 3)), Rotation.random(1, random_state=seed).as_matrix())[0]


def noisy(trajectory: Trajectory, metres: float = 0.02, radians: float = 0.01, seed: int = 1) -> Trajectory:
    """The same with independent Gaussian noise on position and orientation."""
    rng = np.random.default_rng(seed)
    count = len(trajectory)
    turns = Rotation.from_rotvec(rng.normal(0, radians, (count, 3))).as_matrix()
    poses = trajectory.poses.copy()
    poses[:, :3, 3] += rng.normal(0, metres, (count, 3))
    poses[:, :3, :3] = poses[:, :3, :3] @ turns
    return Trajectory(trajectory.timestamps, poses)


def moved(trajectory: Trajectory, T: np.ndarray, scale: float = 1.0) -> Trajectory:
    """The trajectory as seen from another world: `T @ pose`, positions scaled first."""
    poses = trajectory.poses.copy()
    poses[:, :3, 3] *= scale
    return Trajectory(trajectory.timestamps, T @ poses)


def tracked_frames(trajectory: Trajectory, lost: range = range(0), seed: int = 2) -> tuple[Tracked, ...]:
    """One OK frame a pose, with plausible times; those in `lost` have none."""
    rng = np.random.default_rng(seed)
    frames = []
    for index, (stamp, pose) in enumerate(zip(trajectory.timestamps.tolist(), trajectory.poses, strict=True)):
        stages = {"extract": rng.gamma(40, 0.2), "match": rng.gamma(20, 0.1), "pose": rng.gamma(20, 0.08)}
        times = {"stage_ms": stages, "tracking_ms": sum(stages.values()) + 0.5, "tracking_cpu_ms": 9.0}
        if index in lost:
            frames.append(Tracked(stamp, State.LOST, Reason.FEW_MATCHES, **times))
        else:
            frames.append(Tracked(stamp, State.OK, Reason.NONE, pose, 300, 250, index % 20 == 0, **times))
    return tuple(frames)
