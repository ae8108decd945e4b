"""How far an estimated trajectory is from the truth: association, alignment, absolute and relative error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vslam.errors import VslamError
from vslam.geometry.alignment import umeyama
from vslam.types import Trajectory

Alignment = Literal["none", "se3", "sim3"]

MAX_GAP_S = 0.02
"""A pose and its truth may be this far apart: half a frame at 25 Hz."""
MIN_POSES = 3
"""Fewer matched positions than this can be aligned almost perfectly, so that an error says nothing."""


MIN_SPAN_FOR_SCALE_M = 0.5
"""Below this size of the true path its scale is not observable through millimetres of noise."""


@dataclass(frozen=True)
class Pairs:
    """Poses of an estimate with the true poses of the same instants.

    `timestamps` (K,) s of the estimate; `estimate` and `truth` (K, 4, 4) `T_world_camera`, each in its own world;
    `estimate_ids` and `truth_ids` (K,) where they come from.
    """

    timestamps: np.ndarray
    estimate: np.ndarray
    truth: np.ndarray
    estimate_ids: np.ndarray
    truth_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.timestamps)


@dataclass(frozen=True)
class Delta:
    """How far apart the two poses of a relative error are: `value` in `unit` s, f (frames) or m (path length)."""

    value: float
    unit: Literal["s", "f", "m"]

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"

    @classmethod
    def parse(cls, text: str) -> Delta:
        """From words such as `1s`, `10f`, `0.5m`.

        Raises:
            VslamError: anything else, or not positive, or a fraction of a frame.
        """
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([sfm])\s*", text)
        value = float(match[1]) if match else 0.0
        if match is None or value <= 0 or (match[2] == "f" and value != int(value)):
            raise VslamError(f"--delta {text}: expected seconds, frames or metres: for example 1s, 10f, 0.5m")
        return cls(value, match[2])  # type: ignore[arg-type]


@dataclass(frozen=True)
class RelativeError:
    """Errors of M relative motions: `ids` (M, 2) into the pairs, `trans_m` (M,), `rot_deg` (M,)."""

    ids: np.ndarray
    trans_m: np.ndarray
    rot_deg: np.ndarray


def associate(estimate: Trajectory, truth: Trajectory, max_gap: float) -> Pairs:
    """Pair the poses that are each other's nearest in time and at most `max_gap` s apart: one to one."""
    if not len(estimate) or not len(truth):
        none = np.zeros(0, np.int64)
        return Pairs(np.zeros(0), np.zeros((0, 4, 4)), np.zeros((0, 4, 4)), none, none)
    to_truth = nearest(truth.timestamps, estimate.timestamps)
    to_estimate = nearest(estimate.timestamps, truth.timestamps)
    ids = np.arange(len(estimate))
    gap = np.abs(truth.timestamps[to_truth] - estimate.timestamps)
    ids = ids[(to_estimate[to_truth] == ids) & (gap <= max_gap)]
    return Pairs(estimate.timestamps[ids], estimate.poses[ids], truth.poses[to_truth[ids]], ids, to_truth[ids])


def nearest(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each of `wanted` (M,) the index of the nearest of `values` (N,), rising, N >= 1; the first one of a tie."""
    after = np.clip(np.searchsorted(values, wanted), 1, max(len(values) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(values) - 1)
    return np.where(values[after] - wanted < wanted - values[before], after, before)


def alignment(pairs: Pairs, kind: Alignment) -> tuple[float, np.ndarray, np.ndarray]:
    """The `(s, R, t)` that takes the estimate's world to the true one, fitted to the positions; identity for none."""
    if kind == "none":
        return 1.0, np.eye(3), np.zeros(3)
    return umeyama(pairs.estimate[:, :3, 3], pairs.truth[:, :3, 3], with_scale=kind == "sim3")


def transform(poses: np.ndarray, s: float, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Poses (N, 4, 4) in another world: positions `s * R @ p + t`, rotations turned by `R`."""
    moved = poses.copy()
    moved[:, :3, :3] = R @ poses[:, :3, :3]
    moved[:, :3, 3] = s * poses[:, :3, 3] @ R.T + t
    return moved


def align(pairs: Pairs, kind: Alignment) -> Pairs:
    """The pairs with the estimate moved into the true world.

    Raises:
        VslamError: sim3 of an estimate that never moves: its scale is undefined.
    """
    s, R, t = alignment(pairs, kind)
    if not np.isfinite(s):
        raise VslamError("--align sim3: all matched positions of the estimate are equal, so it has no scale; use se3")
    moved = transform(pairs.estimate, s, R, t)
    return Pairs(pairs.timestamps, moved, pairs.truth, pairs.estimate_ids, pairs.truth_ids)


def ate(pairs: Pairs) -> np.ndarray:
    """Absolute trajectory error: the distance (K,) in metres between estimated and true positions, as aligned.

    Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems", IROS 2012, eq. 3.
    """
    return np.linalg.norm(pairs.estimate[:, :3, 3] - pairs.truth[:, :3, 3], axis=1)


def rpe(pairs: Pairs, delta: Delta, max_gap: float) -> RelativeError:
    """Relative pose error: how much the motion from pose i to pose j differs from the true one.

    Sturm et al., IROS 2012, eq. 1: `E = (Q_i^-1 Q_j)^-1 (P_i^-1 P_j)` with Q true and P estimated. Seconds: every i
    that has a j within `max_gap` s of `t_i + delta`. Frames and metres: consecutive pairs that share their ends.
    """
    ids = pair_ids(pairs, delta, max_gap)
    i, j = ids[:, 0], ids[:, 1]
    true_motion = inverse(pairs.truth[i]) @ pairs.truth[j]
    error = inverse(true_motion) @ (inverse(pairs.estimate[i]) @ pairs.estimate[j])
    return RelativeError(ids, np.linalg.norm(error[:, :3, 3], axis=1), np.degrees(angles(error[:, :3, :3])))


def pair_ids(pairs: Pairs, delta: Delta, max_gap: float) -> np.ndarray:
    """The (M, 2) indices (i, j), i < j, of the poses whose relative motion is compared."""
    if not len(pairs):
        return np.zeros((0, 2), np.int64)
    if delta.unit == "s":
        i = np.arange(len(pairs))
        j = nearest(pairs.timestamps, pairs.timestamps + delta.value)
        is_close = np.abs(pairs.timestamps[j] - pairs.timestamps - delta.value) <= max_gap
        return np.stack([i, j], axis=1)[is_close & (j > i)]
    if delta.unit == "f":
        ends = np.arange(0, len(pairs), int(delta.value))
    else:
        ends = _path_marks(pairs.estimate[:, :3, 3], delta.value)
    return np.stack([ends[:-1], ends[1:]], axis=1)


def _path_marks(positions: np.ndarray, length: float) -> np.ndarray:
    """Indices along the path (N, 3), from 0, each the first at least `length` metres of path after the last one."""
    marks, walked = [0], 0.0
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1).tolist()
    for index, step in enumerate(steps, start=1):
        walked += step
        if walked >= length:
            marks.append(index)
            walked = 0.0
    return np.array(marks)


def inverse(poses: np.ndarray) -> np.ndarray:
    """Inverses (N, 4, 4) of rigid motions (N, 4, 4)."""
    turned = poses[:, :3, :3].transpose(0, 2, 1)
    inverted = np.zeros_like(poses)
    inverted[:, :3, :3] = turned
    inverted[:, :3, 3] = -np.einsum("nij,nj->ni", turned, poses[:, :3, 3])
    inverted[:, 3, 3] = 1.0
    return inverted


def angles(R: np.ndarray) -> np.ndarray:
    """Rotation angles (N,) in radians of rotation matrices (N, 3, 3), exact near 0 and near pi alike."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(R).magnitude() if len(R) else np.zeros(0)


def scale_error(pairs: Pairs) -> float | None:
    """`s - 1` of a Sim3 fit; None where the truth is too small to tell, or the estimate never moves."""
    if len(pairs) < MIN_POSES or span(pairs.truth) < MIN_SPAN_FOR_SCALE_M:
        return None
    scale = alignment(pairs, "sim3")[0]
    return scale - 1.0 if np.isfinite(scale) else None


def span(poses: np.ndarray) -> float:
    """Size in metres of the region the positions of `poses` (N, 4, 4) cover: the diagonal of their bounding box."""
    return float(np.linalg.norm(np.ptp(poses[:, :3, 3], axis=0))) if len(poses) else 0.0


def rmse(errors: np.ndarray) -> float:
    """Root mean square of errors (N,), N >= 1."""
    return float(np.sqrt(np.mean(np.square(errors))))
