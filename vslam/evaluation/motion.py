"""How far apart may two frames be before an extractor no longer recovers the motion between them?

For every frame gap: mutual matches of a frame and a later one, lifted by the first one's depth, PnP by RANSAC, compared
with the true motion: right within 5 degrees and 5 cm. The overlap of the views stands beside it: little success at
little overlap is the camera's doing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vslam.datasets.dataset import Dataset
from vslam.errors import FrameError, VslamError
from vslam.evaluation.frontend import Contender, Rules, open_contender, resized
from vslam.evaluation.metrics import nearest
from vslam.matching.matcher import MutualMatcher
from vslam.types import Camera, Features

MIN_POINTS = 6
REPROJECTION_PX = 3.0
ROUNDS = 300
GRID = 16


@dataclass(frozen=True)
class MotionRules:
    """Which pairs are tried, and what counts as recovered."""

    gaps: tuple[int, ...] = (5, 15, 30, 60, 90)  # frames
    stride: int = 8  # every so many frames are the first of a pair
    max_deg: float = 5.0
    max_m: float = 0.05
    truth_within_s: float = 0.02  # of a frame


@dataclass(frozen=True)
class View:
    """A frame's keypoints, undistorted `xy` (N, 2), with depth (N,) metres (0: none), and `T_world_camera`."""

    features: Features
    xy: np.ndarray
    depth: np.ndarray
    T_wc: np.ndarray
    surface: np.ndarray  # metres, at every GRID-th pixel from the GRID / 2-th on


def score_motion(
    dataset: Dataset,
    chosen: list[Contender],
    rules: Rules = Rules(),
    motion: MotionRules = MotionRules(),
    most: int | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Shares of recovered motions by front end and gap, with the number of pairs and their mean overlap.

    Raises:
        VslamError: no true poses, no depth, or fewer frames than the smallest gap.
    """
    poses = frame_poses(dataset, motion.truth_within_s)
    frames = [k for k in range(min(len(dataset), most or len(dataset))) if k in poses]
    wanted = _wanted(frames, motion)
    if not wanted:
        raise VslamError(f"{dataset.name}: {len(frames)} frames with true poses; gaps of {motion.gaps} need more")
    extractors = {c.label: open_contender(c, rules) for c in chosen}
    views: dict[str, dict[int, View]] = {label: {} for label in extractors}
    for k in sorted({index for pair in wanted for index in pair[:2]}):
        on_frame()
        for label, view in _look(dataset, k, poses[k], extractors, rules).items():
            views[label][k] = view
    found = {label: _tally(seen, wanted, dataset.camera, motion) for label, seen in views.items()}
    return {"frames": len(frames), "gaps": list(motion.gaps), "frontends": found}


def frame_poses(dataset: Dataset, within_s: float) -> dict[int, np.ndarray]:
    """`T_world_camera` of the frames that have one near in time.

    Raises:
        VslamError: the sequence has no true poses.
    """
    if dataset.truth is None or not len(dataset.truth):
        raise VslamError(f"{dataset.name}: no true poses (groundtruth.txt); this benchmark needs them, and depth")
    index = nearest(dataset.truth.timestamps, dataset.timestamps)
    near = np.abs(dataset.truth.timestamps[index] - dataset.timestamps) <= within_s
    return {k: dataset.truth.poses[index[k]] for k in np.flatnonzero(near).tolist()}


def recovers(a: View, b: View, camera: Camera, motion: MotionRules) -> bool:
    """Whether PnP from the matches of two views gives the true motion."""
    pairs = MutualMatcher().match(a.features, b.features).pairs
    i, j = pairs[a.depth[pairs[:, 0]] > 0].T
    if len(i) < MIN_POINTS:
        return False
    T_b_a = np.linalg.inv(b.T_wc) @ a.T_wc
    points = camera.unproject(a.xy[i], a.depth[i])
    cv2.setRNGSeed(1)
    try:
        good, turn, shift, inliers = cv2.solvePnPRansac(
            points, b.xy[j].astype(np.float64), camera.K, None, iterationsCount=ROUNDS,
            reprojectionError=REPROJECTION_PX, confidence=0.999, flags=cv2.SOLVEPNP_EPNP,
        )  # fmt: skip
    except cv2.error:  # degenerate points
        return False
    if not good or inliers is None or len(inliers) < MIN_POINTS:
        return False
    R = cv2.Rodrigues(turn)[0]
    angle = np.degrees(np.linalg.norm(cv2.Rodrigues(R @ T_b_a[:3, :3].T)[0]))
    away = np.linalg.norm(R.T @ shift[:, 0] - T_b_a[:3, :3].T @ T_b_a[:3, 3])
    return bool(angle < motion.max_deg and away < motion.max_m)


def overlap(a: View, b: View, camera: Camera) -> float:
    """Share of a's depth that falls into b's picture (occlusion not regarded)."""
    rows, columns = np.mgrid[: a.surface.shape[0], : a.surface.shape[1]] * GRID + GRID // 2
    depth = a.surface.ravel()
    xy = np.stack([columns.ravel(), rows.ravel()], axis=1)[depth > 0]
    if not len(xy):
        return 0.0
    T_b_a = np.linalg.inv(b.T_wc) @ a.T_wc
    points = camera.unproject(xy, depth[depth > 0]) @ T_b_a[:3, :3].T + T_b_a[:3, 3]
    ahead = points[points[:, 2] > 0.1]
    there = camera.project(ahead) if len(ahead) else np.zeros((0, 2))
    inside = (there >= 0).all(axis=1) & (there < (camera.width, camera.height)).all(axis=1)
    return float(inside.sum() / len(xy))


def _wanted(frames: list[int], motion: MotionRules) -> list[tuple[int, int, int]]:
    """(first, second, gap) frames; gaps count frames that have poses."""
    firsts = range(0, len(frames), motion.stride)
    return [(frames[n], frames[n + g], g) for n in firsts for g in motion.gaps if n + g < len(frames)]


def _look(dataset: Dataset, k: int, T_wc: np.ndarray, extractors: dict[str, Any], rules: Rules) -> dict[str, View]:
    try:
        frame = dataset.load(k)
    except FrameError:
        return {}
    if frame.depth is None:
        raise VslamError(f"{dataset.name}: no depth; this benchmark needs it, and true poses")
    grey = frame.image if frame.image.ndim == 2 else cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)
    small, _ = resized(np.ascontiguousarray(grey), rules.image_size)
    zoom = np.array([grey.shape[1] / small.shape[1], grey.shape[0] / small.shape[0]], np.float32)
    surface = frame.depth[GRID // 2 :: GRID, GRID // 2 :: GRID].copy()
    found = {}
    for label, extractor in extractors.items():
        features = extractor.extract(small)
        seen = (features.xy + 0.5) * zoom - 0.5
        column, row = np.clip(np.rint(seen).astype(int), 0, np.array(grey.shape[::-1]) - 1).T
        found[label] = View(features, dataset.camera.undistort(seen), frame.depth[row, column], T_wc, surface)
    return found


def _tally(
    seen: dict[int, View], wanted: list[tuple[int, int, int]], camera: Camera, motion: MotionRules
) -> dict[str, Any]:
    """By gap: pairs, share recovered, mean overlap; and the mean over gaps and number of keypoints."""
    rows = {}
    for gap in motion.gaps:
        pairs = [(seen[i], seen[j]) for i, j, g in wanted if g == gap and i in seen and j in seen]
        shares = [overlap(a, b, camera) for a, b in pairs]
        right = [recovers(a, b, camera, motion) for a, b in pairs]
        rows[str(gap)] = {
            "pairs": len(pairs),
            "success": float(np.mean(right)) if pairs else None,
            "overlap": float(np.mean(shares)) if pairs else None,
        }
    reached = [row["success"] for row in rows.values() if row["success"] is not None]
    keypoints = float(np.mean([len(view.features) for view in seen.values()])) if seen else 0.0
    return {"gaps": rows, "mean": float(np.mean(reached)) if reached else None, "keypoints": keypoints}
