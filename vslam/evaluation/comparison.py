"""Trajectory files scored against a true one: what `vslam eval` reports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vslam.datasets.trajectory import TrajectoryFile, open_trajectory
from vslam.errors import VslamError
from vslam.evaluation import metrics
from vslam.evaluation.charts import GAP_FACTOR
from vslam.types import Trajectory

SPREAD_KEYS = (
    "ate_rmse_m",
    "ate_mean_m",
    "ate_median_m",
    "ate_max_m",
    "rpe_trans_rmse_m",
    "rpe_rot_rmse_deg",
    "scale_error",
    "coverage",
    "time_coverage",
)


@dataclass(frozen=True)
class Rules:
    """How to compare: alignment, largest time gap of a match in s, distance of a relative error's poses."""

    align: metrics.Alignment = "se3"
    max_gap: float = metrics.MAX_GAP_S
    delta: metrics.Delta | None = None  # one second; one frame where files hold no times


def open_estimate(path: str | Path, format: str = "auto") -> TrajectoryFile:
    """A trajectory file, or that of a run's output folder."""
    file = Path(path)
    return open_trajectory(file / "trajectory.txt" if file.is_dir() else file, format)


def open_truth(path: str | Path, format: str = "auto") -> TrajectoryFile:
    """A trajectory file, or that of a TUM sequence's folder."""
    file = Path(path)
    return open_trajectory(file / "groundtruth.txt" if file.is_dir() else file, format)


def compare(estimates: list[TrajectoryFile], truth: TrajectoryFile, rules: Rules) -> dict[str, Any]:
    """Every estimate's figures, and their median, least and largest; the keys are those of `vslam eval --json`.

    Raises:
        VslamError: files whose times cannot be compared, or fewer than three poses that match.
    """
    rules = settle(rules, truth)
    rows = [score(estimate, truth, rules) for estimate in estimates]
    spread = {key: _spread([row[key] for row in rows]) for key in SPREAD_KEYS}
    return {
        "truth": str(truth.path),
        "truth_poses": len(truth.trajectory),
        "alignment": rules.align,
        "max_gap_s": rules.max_gap,
        "delta": str(rules.delta),
        **{key: values and values["median"] for key, values in spread.items()},
        "estimates": rows,
        "spread": spread,
    }


def settle(rules: Rules, truth: TrajectoryFile) -> Rules:
    """The rules with a delta that the truth's times allow.

    Raises:
        VslamError: seconds are asked for and there are none.
    """
    if rules.delta is None:
        return replace(rules, delta=metrics.Delta(1.0, "f" if truth.unit == "index" else "s"))
    if truth.unit == "index" and rules.delta.unit == "s":
        raise VslamError(f"--delta {rules.delta}: {truth.path} has no time stamps (KITTI); use frames or metres")
    return rules


def score(estimate: TrajectoryFile, truth: TrajectoryFile, rules: Rules) -> dict[str, Any]:
    """The figures of one estimate."""
    check_times(estimate, truth)
    pairs = metrics.associate(estimate.trajectory, truth.trajectory, rules.max_gap)
    if len(pairs) < metrics.MIN_POSES:
        raise VslamError(_too_few(estimate, truth, len(pairs), rules.max_gap))
    aligned = metrics.align(pairs, rules.align)
    errors = metrics.ate(aligned)
    drift = metrics.rpe(aligned, settle(rules, truth).delta, rules.max_gap)
    return {
        "file": str(estimate.path),
        "format": estimate.format,
        "poses": len(estimate.trajectory),
        "matched": len(pairs),
        "coverage": len(pairs) / len(estimate.trajectory),
        "time_coverage": time_coverage(pairs.timestamps, truth.trajectory),
        **{f"ate_{name}_m": value for name, value in _statistics(errors).items()},
        "rpe_pairs": len(drift.trans_m),
        **{f"rpe_trans_{name}_m": value for name, value in _statistics(drift.trans_m).items()},
        **{f"rpe_rot_{name}_deg": value for name, value in _statistics(drift.rot_deg).items()},
        "scale_error": metrics.scale_error(pairs),
    }


def check_times(estimate: TrajectoryFile, truth: TrajectoryFile) -> None:
    """Refuse times that would be compared wrongly.

    Raises:
        VslamError: seconds against nanoseconds in one format; line indices against times; KITTI files of two lengths.
    """
    units = {estimate.unit, truth.unit}
    if units == {"index"} and len(estimate.trajectory) != len(truth.trajectory):
        lengths = f"{len(estimate.trajectory)} poses, {truth.path} {len(truth.trajectory)}"
        raise VslamError(f"{estimate.path}: {lengths}; KITTI files have no time stamps: write one line for every frame")
    if "index" in units and len(units) > 1:
        raise VslamError(
            f"{estimate.path}: {_time_words(estimate)}, but {truth.path}: {_time_words(truth)}; use TUM files"
        )
    if estimate.format == truth.format and len(units) > 1:
        cure = "divide the larger ones by 1e9"
        raise VslamError(f"{estimate.path}: {_time_words(estimate)}, but {truth.path}: {_time_words(truth)}; {cure}")


def time_coverage(matched: np.ndarray, truth: Trajectory) -> float:
    """The share of the truth's time span that the matched poses (K,) s cover.

    From one matched pose to the next the time counts as covered unless the step is a gap: more than 3.5 times the
    median step.
    """
    whole = truth.timestamps[-1] - truth.timestamps[0]
    steps = np.diff(matched)
    if whole <= 0 or not len(steps):
        return 0.0
    return float(min(steps[steps <= GAP_FACTOR * np.median(steps)].sum() / whole, 1.0))


def _statistics(errors: np.ndarray) -> dict[str, float | None]:
    if not len(errors):
        return dict.fromkeys(("rmse", "mean", "median", "max"))
    middle = float(np.median(errors))
    return {"rmse": metrics.rmse(errors), "mean": float(errors.mean()), "median": middle, "max": float(errors.max())}


def _spread(values: list[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"median": float(np.median(known)), "min": min(known), "max": max(known)}


def _time_words(file: TrajectoryFile) -> str:
    if file.unit == "index":
        return "poses without time stamps (KITTI)"
    first = file.trajectory.timestamps[0]
    return f"time stamps in nanoseconds ({first * 1e9:.0f})" if file.unit == "ns" else f"in seconds ({first:.6f})"


def _too_few(estimate: TrajectoryFile, truth: TrajectoryFile, found: int, max_gap: float) -> str:
    spans = [
        f"{file.trajectory.timestamps[0]:.3f} to {file.trajectory.timestamps[-1]:.3f} s" for file in (estimate, truth)
    ]
    what = f"only {found} poses have a true one within {max_gap:g} s; 3 are needed"
    return (
        f"{estimate.path}: {what}: it covers {spans[0]}, {truth.path} {spans[1]}: same recording, same clock? --max-gap"
    )
