"""From where a trajectory is looked at, and the estimate laid over the truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vslam.evaluation import metrics
from vslam.evaluation.charts import Curve, breaks
from vslam.types import State, Tracked, Trajectory

LOOP_COLOUR, REJECTED_COLOUR = "series3", "muted"
MIN_AGREEMENT = 0.5
"""Length of the mean of the cameras' down axes from which that mean is taken for the direction of gravity."""


@dataclass(frozen=True)
class Overlay:
    """An estimate in the true world, where there is one; otherwise in its own.

    `errors` (K,) metres at `error_times` (K,) s; both empty without truth or with too few matched poses.
    `s`, `R`, `t` take the estimate's world to the one that is shown.
    """

    estimate: Trajectory
    error_times: np.ndarray
    errors: np.ndarray
    s: float
    R: np.ndarray
    t: np.ndarray


def overlay(estimate: Trajectory, truth: Trajectory | None, align: metrics.Alignment, max_gap: float) -> Overlay:
    """Align an estimate to the truth by the poses that have a true one within `max_gap` s."""
    pairs = metrics.associate(estimate, truth, max_gap) if truth is not None else None
    if pairs is None or len(pairs) < metrics.MIN_POSES:
        return Overlay(estimate, np.zeros(0), np.zeros(0), 1.0, np.eye(3), np.zeros(3))
    s, R, t = metrics.alignment(pairs, align)
    errors = metrics.ate(metrics.align(pairs, align))
    shown = Trajectory(estimate.timestamps, metrics.transform(estimate.poses, s, R, t))
    return Overlay(shown, pairs.timestamps, errors, s, R, t)


def view_axes(poses: np.ndarray) -> np.ndarray:
    """Rows right, forward, up (3, 3) of a view along which the path of `poses` (N, 4, 4) is widest.

    Up is opposite to the cameras' mean down axis, a good guess for a camera that is carried or driven; where the
    cameras do not agree on one, it is the direction in which the path is flattest.
    """
    if not len(poses):
        return np.eye(3)
    positions = poses[:, :3, 3] - poses[:, :3, 3].mean(axis=0)
    principal = np.linalg.svd(positions.T @ positions)[2]
    down = poses[:, :3, 1].mean(axis=0)
    length = np.linalg.norm(down)
    up = -down / length if length > MIN_AGREEMENT else principal[2]
    level = positions - np.outer(positions @ up, up)
    right = np.linalg.svd(level.T @ level)[2][0]
    right = right - up * (right @ up)
    if np.linalg.norm(right) < 1e-6:
        right = np.cross(up, [1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(up, right), up])


def clip_time(trajectory: Trajectory, begin: float, end: float) -> Trajectory:
    """The poses from `begin` to `end` s."""
    kept = (trajectory.timestamps >= begin) & (trajectory.timestamps <= end)
    return Trajectory(trajectory.timestamps[kept], trajectory.poses[kept])


def flat(trajectory: Trajectory, axes: np.ndarray, colour: str, width: float = 1.5) -> list[Curve]:
    """The path along two axes (2, 3), as one curve per stretch without a gap."""
    places = trajectory.poses[:, :3, 3] @ axes.T
    parts = np.split(np.arange(len(places)), breaks(trajectory.timestamps))
    return [Curve(places[part, 0], places[part, 1], colour, width) for part in parts if len(part)]


def loop_links(trajectory: Trajectory, axes: np.ndarray, loops: Iterable[tuple[float, float, bool]]) -> list[Curve]:
    """Straight lines along two axes (2, 3) between places that were taken for one.

    Args:
        loops: per candidate the time stamps (s) of the query and of its match, and whether it was accepted; one whose
            times have no pose in the trajectory is left out.

    Returns:
        Rejected ones dashed and below, accepted ones above.
    """
    rows = {stamp: row for row, stamp in enumerate(trajectory.timestamps.tolist())}
    flat_places = trajectory.poses[:, :3, 3] @ axes.T
    links = []
    for query, match, accepted in sorted(loops, key=lambda loop: loop[2]):
        if query in rows and match in rows:
            x, y = flat_places[[rows[query], rows[match]]].T
            colour, width = (LOOP_COLOUR, 1.6) if accepted else (REJECTED_COLOUR, 1.0)
            links.append(Curve(x, y, colour, width, dashed=not accepted))
    return links


def stretches(frames: tuple[Tracked, ...], states: set[State]) -> list[tuple[int, int]]:
    """Runs `[first, last]` of frames whose state is one of `states`."""
    inside = np.array([False, *(frame.state in states for frame in frames), False])
    edges = np.flatnonzero(np.diff(inside.astype(int)))
    return [(int(first), int(last) - 1) for first, last in edges.reshape(-1, 2)]
