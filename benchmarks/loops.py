"""Loops and relocalisation on recordings with ground truth: what was found, what was wrong, what it cost and gained.

    python -m benchmarks.loops FOLDER... [--extractor orb] [--max-frames N] [--set KEY=VALUE] [--json FILE]

Each recording is run twice, deterministically, with and without loops. A closed loop is right where the two keyframes
really see the same: by the true poses and the depth images at least OVERLAP of what one of them shows lies in the
other's view at the depth that is there (from farther behind the nearer view is a small part of the picture, so one
direction is enough), or `info.json` of a rendered sequence lists them, or frames up to NEAR_S beside them, under
`revisits`. Everything else is wrong. A revisit is a stretch of frames that `info.json` lists so; it is found by
an accepted row of the audit in its first FOUND_S seconds (or at its end, if that comes first). A relocalised pose is
wrong beyond 0.10 m or 5 degrees.
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
from vslam.types import Camera, Reason
from vslam.warmup import warm_up

OVERLAP = 0.10
EVERY = 8  # rows and columns of the depth images that are compared
AGREE_M, AGREE_SHARE = 0.05, 0.05  # the same surface: so far apart in depth, and this part of it
NEAR_S = 0.5
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
    dataset = open_dataset(options.dataset, folder)
    with_loops = _run(dataset, load_config(None, name), options.max_frames)
    without = _run(dataset, load_config(None, [*name, "loop.close=false"]), options.max_frames)
    figures, plain = compute_metrics(with_loops), compute_metrics(without)
    closed = [each for each in with_loops.audit if each.accepted]
    return {
        "name": folder.name,
        "frames": figures["frames"],
        "coverage": figures["coverage"],
        "ate_cm": _cm(figures["ate_rmse_m"]),
        "ate_no_loop_cm": _cm(plain["ate_rmse_m"]),
        "loops": figures["loops"],
        "accepted": len(closed),
        "wrong": [describe_pair(each, dataset) for each in closed if not is_right(each, dataset, folder)],
        "revisits": _revisits(folder, with_loops),
        "relocalisations": _relocalisations(with_loops),
        "loop_cpu_ms_a_keyframe": 1e3 * figures["loop_cpu_s"] / max(1, sum(f.keyframe for f in with_loops.frames)),
        "audit_rows": len(with_loops.audit),
    }


def _run(dataset, config, max_frames: int | None):
    warm_up(config, quiet=True)
    with SequenceRun(dataset, config, "deterministic", max_frames=max_frames) as run:
        run.run()
        return run.record()


def is_right(each, dataset, folder: Path) -> bool:
    """Whether the two keyframes of a closed loop see the same place."""
    return shared_view(each, dataset) >= OVERLAP or is_listed(each, dataset.timestamps, folder)


def shared_view(each, dataset) -> float:
    """The larger of the shares of what either keyframe shows that the other shows too; 0 without depth."""
    (depth_a, T_a), (depth_b, T_b) = (_true_view(dataset, t) for t in (each.t_query, each.t_match))
    if depth_a is None or depth_b is None:
        return 0.0
    camera = dataset.camera
    return max(overlap(camera, depth_a, T_a, depth_b, T_b), overlap(camera, depth_b, T_b, depth_a, T_a))


def overlap(camera: Camera, depth: np.ndarray, T_wc: np.ndarray, other: np.ndarray, T_other: np.ndarray) -> float:
    """The share of a view's depth image (H, W) that lies in another view at the depth that is there."""
    y, x = np.mgrid[EVERY // 2 : depth.shape[0] : EVERY, EVERY // 2 : depth.shape[1] : EVERY].reshape(2, -1)
    y, x = y[depth[y, x] > 0], x[depth[y, x] > 0]
    xyz = camera.unproject(np.column_stack([x, y]), depth[y, x])
    T = se3.inverse(T_other) @ T_wc
    xyz = xyz @ T[:3, :3].T + T[:3, 3]
    seen = xyz[xyz[:, 2] > AGREE_M]
    at = np.rint(camera.project(seen)).astype(np.int64)
    inside = ((at >= 0) & (at < other.shape[::-1])).all(axis=1)
    there, z = other[at[inside, 1], at[inside, 0]], seen[inside, 2]
    agrees = (there > 0) & (np.abs(there - z) < AGREE_M + AGREE_SHARE * z)
    return float(agrees.sum() / max(1, len(xyz)))


def is_listed(each, times: np.ndarray, folder: Path) -> bool:
    """Whether `info.json` lists the pair, or one near it, as a revisit."""
    then, now = times[listed_revisits(folder)].reshape(-1, 2).T
    return bool(((np.abs(then - each.t_match) <= NEAR_S) & (np.abs(now - each.t_query) <= NEAR_S)).any())


def listed_revisits(folder: Path) -> np.ndarray:
    """Pairs of frames (N, 2), old and new, that `info.json` says see the same; none where there is no such file."""
    info = folder / "info.json"
    pairs = json.loads(info.read_text())["revisits"] if info.exists() else []
    return np.array(pairs, np.int64).reshape(-1, 2)


def describe_pair(each, dataset) -> dict:
    """A closed loop and what is true of it."""
    query, match = (true_pose(dataset.truth, t) for t in (each.t_query, each.t_match))
    shift, turn = pose_difference(query, match)
    row = {"t_query": each.t_query, "t_match": each.t_match, "reason": each.reason, "inliers": each.n_inliers}
    return row | {"true_m": shift, "true_deg": turn, "shared_view": shared_view(each, dataset)}


def _true_view(dataset, time: float) -> tuple[np.ndarray | None, np.ndarray]:
    frame = dataset.load(int(np.argmin(np.abs(dataset.timestamps - time))))
    return frame.depth, true_pose(dataset.truth, time)


def _revisits(folder: Path, record) -> list[dict]:
    """Each stretch of frames that see an old place again, and how long it took to find that out."""
    frames = np.unique(listed_revisits(folder)[:, 1])
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
        f"{plain:7.2f}, ratio {ate / plain:.2f}, {row['loops']} loops, {row['accepted']} keyframes (wrong "
        f"{len(row['wrong'])}), "
        f"{row['loop_cpu_ms_a_keyframe']:.1f} ms a keyframe, revisits [{', '.join(found)}], found again {moved}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--dataset", default="tum", help="layout of the folders")
    parser.add_argument("--extractor", default="orb")
    parser.add_argument("--max-frames", type=int)
    parser.add_argument("--set", action="extend", nargs="+", default=[])
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
