"""Loops and relocalisation on recordings with ground truth: what was found, what was wrong, what it cost and gained.

    python -m benchmarks.loops FOLDER... [--extractor orb] [--max-frames N] [--set KEY=VALUE] [--json FILE]

Each recording is run twice, deterministically, with and without loops. A closed loop is wrong where the two keyframes
really see different places: more than WRONG_M apart or WRONG_DEG turned. A revisit is a stretch of frames that
`info.json` of a rendered sequence lists under `revisits`; it is found by an accepted row of the audit in its first
FOUND_S seconds (or at its end, if that comes first). A relocalised pose is wrong beyond 0.10 m or 5 degrees.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from vslam.config import load_config
from vslam.datasets import open_dataset
from vslam.evaluation.results import compute_metrics
from vslam.evaluation.runner import SequenceRun
from vslam.geometry import se3
from vslam.types import Reason
from vslam.warmup import warm_up

WRONG_M, WRONG_DEG = 3.0, 60.0
FOUND_S = 3.0
BAD_POSE_M, BAD_POSE_DEG = 0.10, 5.0


def main() -> None:
    options = _options()
    rows = []
    for folder in options.folders:
        row = measure(folder, options)
        rows.append(row)
        print(describe(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def measure(folder: Path, options: argparse.Namespace) -> dict:
    """One recording with and without loops."""
    name = [f"extractor.name={options.extractor}", *options.set]
    with_loops = _run(folder, load_config(None, name), options.max_frames)
    without = _run(folder, load_config(None, [*name, "loop.close=false"]), options.max_frames)
    figures, plain = compute_metrics(with_loops), compute_metrics(without)
    closed = [each for each in with_loops.audit if each.accepted]
    return {
        "name": folder.name,
        "frames": figures["frames"],
        "coverage": figures["coverage"],
        "ate_cm": _cm(figures["ate_rmse_m"]),
        "ate_no_loop_cm": _cm(plain["ate_rmse_m"]),
        "accepted": len(closed),
        "wrong": sum(_is_wrong(each, with_loops.truth) for each in closed),
        "revisits": _revisits(folder, with_loops),
        "relocalisations": _relocalisations(with_loops),
        "loop_cpu_ms_a_keyframe": 1e3 * figures["loop_cpu_s"] / max(1, sum(f.keyframe for f in with_loops.frames)),
        "audit_rows": len(with_loops.audit),
    }


def _run(folder: Path, config, max_frames: int | None):
    dataset = open_dataset("tum", folder)
    warm_up(config, quiet=True)
    with SequenceRun(dataset, config, "deterministic", max_frames=max_frames) as run:
        run.run()
        return run.record()


def _is_wrong(each, truth) -> bool:
    query, match = (true_pose(truth, t) for t in (each.t_query, each.t_match))
    shift, turn = pose_difference(query, match)
    return shift > WRONG_M or turn > WRONG_DEG


def _revisits(folder: Path, record) -> list[dict]:
    """Each stretch of frames that see an old place again, and how long it took to find that out."""
    info = folder / "info.json"
    if not info.exists():
        return []
    frames = np.unique(np.array(json.loads(info.read_text())["revisits"]).reshape(-1, 2)[:, 1])
    times = np.array([frame.timestamp for frame in record.frames])
    frames = frames[frames < len(times)]
    if not len(frames):
        return []
    closed = np.array([each.t_query for each in record.audit if each.accepted])
    known = [frame.timestamp for frame in record.frames if frame.reason is Reason.RELOCALISED]
    found = np.sort(np.concatenate([closed, known]))
    stretches = np.split(frames, np.flatnonzero(np.diff(times[frames]) > 0.5) + 1)
    rows = []
    for stretch in stretches:
        begin, end = times[stretch[0]], times[stretch[-1]]
        inside = found[(found >= begin - 1.0) & (found <= end + FOUND_S)]
        rows.append(
            {
                "frames": [int(stretch[0]), int(stretch[-1])],
                "seconds": float(end - begin),
                "found_after_s": float(inside[0] - begin) if len(inside) else None,
            }
        )
    return rows


def _relocalisations(record) -> list[dict]:
    """Every time the camera was found again: seconds it took, and the error against the first pose's truth."""
    origin = None
    rows = []
    for frame in record.frames:
        if frame.T_world_camera is None or record.truth is None:
            continue
        true = true_pose(record.truth, frame.timestamp)
        origin = true @ se3.inverse(frame.T_world_camera) if origin is None else origin
        if frame.recovery_s is not None and frame.reason is Reason.RELOCALISED:
            shift, turn = pose_difference(true, origin @ frame.T_world_camera)
            wrong = shift > BAD_POSE_M or turn > BAD_POSE_DEG
            rows.append({"recovery_s": frame.recovery_s, "error_m": shift, "error_deg": turn, "wrong": wrong})
    return rows


def true_pose(truth, time: float) -> np.ndarray:
    return truth.poses[int(np.argmin(np.abs(truth.timestamps - time)))]


def pose_difference(T_a: np.ndarray, T_b: np.ndarray) -> tuple[float, float]:
    """Metres and degrees between two cameras `T_world_camera`."""
    motion = se3.log(se3.inverse(T_a) @ T_b)
    return float(np.linalg.norm(T_a[:3, 3] - T_b[:3, 3])), float(np.degrees(np.linalg.norm(motion[3:])))


def _cm(metres: float | None) -> float | None:
    return None if metres is None else 100 * metres


def describe(row: dict) -> str:
    """One line for people."""
    ate, plain = row["ate_cm"], row["ate_no_loop_cm"]
    found = [f"{r['frames'][0]}+{r['found_after_s']:.1f}s" if r["found_after_s"] is not None else
             f"{r['frames'][0]} MISSED" for r in row["revisits"]]  # fmt: skip
    moved = [f"{r['recovery_s']:.2f}s {100 * r['error_m']:.1f}cm{' WRONG' if r['wrong'] else ''}"
             for r in row["relocalisations"]]  # fmt: skip
    return (
        f"{row['name']:28s} {row['frames']:5d} frames, {100 * row['coverage']:.0f} %, ATE {ate:7.2f} cm, without loops "
        f"{plain:7.2f}, ratio {ate / plain:.2f}, closed {row['accepted']} (wrong {row['wrong']}), "
        f"{row['loop_cpu_ms_a_keyframe']:.1f} ms a keyframe, revisits [{', '.join(found)}], found again {moved}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--extractor", default="orb")
    parser.add_argument("--max-frames", type=int)
    parser.add_argument("--set", action="extend", nargs="+", default=[])
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
