"""How the sample's camera is carried: once round the table, looking about quickly, and back to where it began."""

from __future__ import annotations

import numpy as np

PERIOD_S = 299 / 30  # the last of 300 frames stands where the first stood
RADII_M = (1.3, 0.9)
EYE_M = 1.3


def carried_poses(times: np.ndarray) -> np.ndarray:
    """`T_world_camera` (N, 4, 4) at `times` (N,) in seconds from 0 to `PERIOD_S`; the world's z points up."""
    s = np.clip(np.asarray(times, np.float64) / PERIOD_S, 0.0, 1.0)
    way = 2 * np.pi * _eased(s)
    awake = np.sin(np.pi * s) ** 0.5  # the hand's tremor fades at both ends, so that the return is exact
    tremor = [awake * _tremor(s, k) for k in range(6)]
    position = np.stack([
        RADII_M[0] * np.cos(way) + 0.004 * tremor[0],
        RADII_M[1] * np.sin(way) + 0.004 * tremor[1],
        EYE_M + 0.12 * np.sin(2 * way) + 0.004 * tremor[2],
    ], axis=1)  # fmt: skip
    heading = way + np.pi - 0.55 + 0.55 * np.sin(3 * way) + 0.008 * tremor[3]
    pitch = -0.26 + 0.1 * np.sin(2 * way + 0.5) + 0.008 * tremor[4]
    roll = 0.06 * np.sin(way) + 0.008 * tremor[5]
    return _poses(position, heading, pitch, roll)


def _eased(s: np.ndarray, ease: float = 0.12) -> np.ndarray:
    """From 0 to 1 at constant speed, but for smooth starting and stopping over the share `ease` at each end."""
    share = np.clip(np.minimum(s, 1 - s) / ease, 0.0, 1.0)
    ramp = ease * (share**3 - share**4 / 2)  # the integral of the smooth step 3 x^2 - 2 x^3
    inner = np.clip(s - ease, 0.0, 1 - 2 * ease)
    covered = np.where(s <= 0.5, ramp + inner, 1 - ease - ramp)
    late = s > 1 - ease
    covered = np.where((s > 0.5) & ~late, ease / 2 + inner, covered)
    return covered / (1 - ease)


def _tremor(s: np.ndarray, k: int) -> np.ndarray:
    """A hand's shaking, about +-1, at 1.5 to 5 Hz."""
    hertz = np.array([1.7, 2.9, 4.6]) * (1 + 0.07 * k)
    return np.sin(2 * np.pi * s[:, None] * PERIOD_S * hertz + 1.3 * k + np.arange(3)) @ np.array([0.5, 0.3, 0.2])


def _poses(position, heading, pitch, roll) -> np.ndarray:
    """Cameras (N, 4, 4) that look along `heading` (about +z, from +x) and `pitch` (up), rolled about that axis."""
    forward = np.stack([np.cos(pitch) * np.cos(heading), np.cos(pitch) * np.sin(heading), np.sin(pitch)], axis=1)
    level = np.stack([np.sin(heading), -np.cos(heading), np.zeros_like(heading)], axis=1)
    below = np.cross(forward, level)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    poses = np.tile(np.eye(4), (len(position), 1, 1))
    poses[:, :3, 0] = c * level + s * below
    poses[:, :3, 1] = c * below - s * level
    poses[:, :3, 2] = forward
    poses[:, :3, 3] = position
    return poses
