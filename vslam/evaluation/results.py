"""A finished run: what is kept of it, the figures that follow, and the folder it is written to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from vslam.datasets.trajectory import write_atomically, write_tum
from vslam.evaluation import files, metrics
from vslam.types import Camera, LoopCandidate, Reason, State, Tracked, Trajectory

METRICS = "metrics.json"
"""Written last: a folder that has it holds a whole result."""
RPE_DELTA_S = 1.0
"""Drift is stated per second, as the TUM RGB-D benchmark does."""
PACKAGES = {"vslam": "vslam", "numpy": "numpy", "numba": "numba", "g2opy": "g2opy"}
OPENCV_WHEELS = ("opencv-contrib-python-headless", "opencv-python-headless", "opencv-contrib-python", "opencv-python")


@dataclass(frozen=True)
class RunRecord:
    """Everything `vslam run` knows at its end.

    `frames` has one entry per frame of the part of the sequence that was run, dropped and unreadable ones included;
    their `T_world_camera` are the poses as they came out. `final` holds every tracked frame after the last correction
    of the map, `truth` the dataset's poses in its own world. `mapping_ms` names the stages of mapping and the
    durations of each call, `audit` every place that was compared with a keyframe. `points_xyz` (P, 3) float64 metres,
    `points_rgb` (P, 3) uint8.
    """

    dataset: str
    sequence: str
    extractor: str
    camera: Camera
    frames: tuple[Tracked, ...]
    final: Trajectory
    keyframes: Trajectory
    points_xyz: np.ndarray
    points_rgb: np.ndarray
    truth: Trajectory | None = None
    config: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_rss_mb: float = 0.0
    map_mb: float = 0.0
    mapping_ms: dict[str, list[float]] = field(default_factory=dict)
    audit: tuple[LoopCandidate, ...] = ()
    loops: int = 0
    loop_cpu_s: float = 0.0
    interrupted: bool = False

    @property
    def live(self) -> Trajectory:
        """Every tracked frame's pose as it came out."""
        posed = [frame for frame in self.frames if frame.T_world_camera is not None]
        poses = np.array([frame.T_world_camera for frame in posed], np.float64).reshape(-1, 4, 4)
        return Trajectory(np.array([frame.timestamp for frame in posed], np.float64), poses)


def compute_metrics(record: RunRecord) -> dict[str, Any]:
    """The content of `metrics.json`: plain numbers, strings and None; every key is explained in docs/files.md."""
    states = Counter(frame.state for frame in record.frames)
    tracked = states[State.OK] + states[State.WEAK]
    frames = len(record.frames)
    processed = tracked + states[State.LOST]
    return {
        "frames": frames,
        "tracked": tracked,
        "weak": states[State.WEAK],
        "lost": states[State.LOST],
        "dropped": states[State.DROPPED],
        "coverage": tracked / frames if frames else 0.0,
        **_accuracy(record),
        **_tracking_times(record.frames),
        "fps": processed / record.wall_s if record.wall_s > 0 else None,
        "wall_s": float(record.wall_s),
        "cpu_s": float(record.cpu_s),
        "peak_rss_mb": float(record.peak_rss_mb),
        "map_mb": float(record.map_mb),
        "loops": record.loops,
        "relocalisations": sum(frame.reason is Reason.RELOCALISED for frame in record.frames),
        "loop_cpu_s": float(record.loop_cpu_s),
        "keyframes": len(record.keyframes),
        "map_points": len(record.points_xyz),
        "states": {state.value: states[state] for state in State},
        "reasons": dict(Counter(frame.reason.value for frame in record.frames if frame.reason)),
        "extractor": record.extractor,
        "dataset": record.dataset,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that decide the result; those that are not installed are left out."""
    found = {name: _version(package) for name, package in PACKAGES.items()}
    found["opencv"] = next(filter(None, map(_version, OPENCV_WHEELS)), None)
    if found["vslam"] is None:  # run from a checkout
        from vslam import __version__

        found["vslam"] = __version__
    from platform import python_version

    return {"python": python_version(), **{name: text for name, text in found.items() if text}}


def write_results(record: RunRecord, folder: str | Path) -> dict[str, Any]:
    """Write the whole output folder (docs/files.md lists its files) and return the metrics.

    Each file appears under its name only when complete, and METRICS last; that of an older result goes first.
    """
    from vslam.evaluation.report import report_html  # not needed by those who only want the figures

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).unlink(missing_ok=True)
    figures = files.plain(compute_metrics(record))
    loops = [(each.t_query, each.t_match, each.accepted) for each in record.audit if each.n_inliers or each.accepted]
    write_tum(folder / "trajectory.txt", record.final)
    write_tum(folder / "trajectory_live.txt", record.live)
    write_tum(folder / "keyframes.txt", record.keyframes)
    write_atomically(folder / "map.ply", files.ply_bytes(record.points_xyz, record.points_rgb))
    write_atomically(folder / "config.yaml", files.yaml_text(record.config))
    write_atomically(folder / "frames.csv", files.frames_csv(record.frames))
    write_atomically(folder / "loops.csv", files.loops_csv(record.audit))
    write_atomically(folder / "report.html", report_html(record, figures, loops))
    write_atomically(folder / METRICS, files.json_text(figures))
    return figures


def _accuracy(record: RunRecord) -> dict[str, Any]:
    scores: dict[str, Any] = dict.fromkeys(
        ("ate_rmse_m", "ate_live_rmse_m", "rpe_trans_m_per_s", "rpe_rot_deg_per_s", "scale_error")
    )
    scores["ate_alignment"] = "se3"
    if record.truth is None or not len(record.truth):
        return scores
    pairs = metrics.associate(record.final, record.truth, metrics.MAX_GAP_S)
    scores["ate_rmse_m"] = _ate_rmse(pairs)
    scores["ate_live_rmse_m"] = _ate_rmse(metrics.associate(record.live, record.truth, metrics.MAX_GAP_S))
    drift = metrics.rpe(pairs, metrics.Delta(RPE_DELTA_S, "s"), metrics.MAX_GAP_S)
    if len(drift.trans_m):
        scores["rpe_trans_m_per_s"] = metrics.rmse(drift.trans_m) / RPE_DELTA_S
        scores["rpe_rot_deg_per_s"] = metrics.rmse(drift.rot_deg) / RPE_DELTA_S
    scores["scale_error"] = metrics.scale_error(pairs)
    return scores


def _ate_rmse(pairs: metrics.Pairs) -> float | None:
    if len(pairs) < metrics.MIN_POSES:
        return None
    return metrics.rmse(metrics.ate(metrics.align(pairs, "se3")))


def _tracking_times(frames: tuple[Tracked, ...]) -> dict[str, float | None]:
    wall = [frame.tracking_ms for frame in frames if frame.tracking_ms > 0]
    cpu = [frame.tracking_cpu_ms for frame in frames if frame.tracking_cpu_ms > 0]
    return {
        "tracking_ms_median": float(np.median(wall)) if wall else None,
        "tracking_ms_p95": float(np.percentile(wall, 95)) if wall else None,
        "tracking_cpu_ms_median": float(np.median(cpu)) if cpu else None,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
