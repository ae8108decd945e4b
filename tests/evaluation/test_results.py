"""The figures of a run worked out by hand, and the folder it is written to."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import yaml

from tests.evaluation.synthetic import CAMERA, moved, poses_of, random_pose, smooth_trajectory, tracked_frames
from vslam.datasets.trajectory import read_trajectory
from vslam.evaluation.results import RunRecord, compute_metrics, write_results
from vslam.types import Reason, State, Tracked, Trajectory

METRICS = [
    "frames",
    "tracked",
    "weak",
    "lost",
    "dropped",
    "coverage",
    "ate_rmse_m",
    "ate_live_rmse_m",
    "ate_alignment",
    "rpe_trans_m_per_s",
    "rpe_rot_deg_per_s",
    "scale_error",
    "tracking_ms_median",
    "tracking_ms_p95",
    "tracking_cpu_ms_median",
    "fps",
    "wall_s",
    "cpu_s",
    "peak_rss_mb",
    "map_mb",
    "loops",
    "relocalisations",
    "loop_cpu_s",
    "keyframes",
    "map_points",
    "states",
    "reasons",
    "extractor",
    "dataset",
    "versions",
]
FILES = [
    "trajectory.txt",
    "trajectory_live.txt",
    "keyframes.txt",
    "map.ply",
    "metrics.json",
    "config.yaml",
    "frames.csv",
    "loops.csv",
    "report.html",
]
NEEDS_TRUTH = ("ate_rmse_m", "ate_live_rmse_m", "rpe_trans_m_per_s", "rpe_rot_deg_per_s", "scale_error")


def run_record(frames, final, truth=None, **changes) -> RunRecord:
    """A run with a small map."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (50, 3)).astype(np.uint8)
    keyframes = Trajectory(final.timestamps[::10], final.poses[::10])
    values = {
        "config": {"extractor": {"name": "orb"}},
        "wall_s": 4.0,
        "cpu_s": 6.0,
        "peak_rss_mb": 300.0,
        "map_mb": 8.0,
    }
    values |= {"points_xyz": rng.normal(size=(50, 3)), "points_rgb": colours}
    return RunRecord("tum", "room", "orb", CAMERA, tuple(frames), final, keyframes, truth=truth, **values | changes)


def empty() -> Trajectory:
    return Trajectory(np.zeros(0), np.zeros((0, 4, 4)))


def straight(count=60, rate=10.0, speed=1.0) -> Trajectory:
    """Along x."""
    times = np.arange(count) / rate
    return Trajectory(times, poses_of(np.outer(times, [speed, 0.0, 0.0])))


def test_figures_by_hand():
    """A straight drive of 5.9 s at 1 m/s that the estimate makes 10 % too fast, with every state once."""
    truth = straight()
    final = moved(straight(speed=1.1), random_pose(4))
    frames = list(tracked_frames(final))
    frames[10] = dataclasses.replace(frames[10], state=State.WEAK, reason=Reason.FROM_DEPTH)
    for index, state in ((20, State.LOST), (30, State.DROPPED), (40, State.UNREADABLE)):
        frames[index] = Tracked(frames[index].timestamp, state)
    frames = [dataclasses.replace(frame, tracking_ms=float(k), tracking_cpu_ms=k / 2) for k, frame in enumerate(frames)]
    kept = np.setdiff1d(np.arange(60), [20, 30, 40])
    figures = compute_metrics(run_record(frames, Trajectory(final.timestamps[kept], final.poses[kept]), truth))

    assert [figures[name] for name in ("frames", "tracked", "weak", "lost", "dropped")] == [60, 57, 1, 1, 1]
    assert figures["coverage"] == 57 / 60
    assert figures["states"] == {"ok": 56, "weak": 1, "lost": 1, "dropped": 1, "unreadable": 1}
    assert figures["reasons"] == {"from depth alone": 1}
    expected = 0.1 * np.std(
        kept / 10
    )  # after the best shift, each position is off by a tenth of its distance to the mean
    assert figures["ate_rmse_m"] == pytest.approx(expected, abs=1e-9)
    assert figures["ate_live_rmse_m"] == pytest.approx(expected, abs=1e-9)
    assert figures["rpe_trans_m_per_s"] == pytest.approx(0.1, abs=1e-9)
    assert figures["rpe_rot_deg_per_s"] == pytest.approx(0.0, abs=1e-6)
    assert figures["scale_error"] == pytest.approx(1 / 1.1 - 1, abs=1e-9)
    assert figures["ate_alignment"] == "se3"
    assert figures["tracking_ms_median"] == np.median(np.arange(1, 60))
    assert figures["tracking_ms_p95"] == pytest.approx(np.percentile(np.arange(1, 60), 95))
    assert figures["tracking_cpu_ms_median"] == np.median(np.arange(1, 60)) / 2
    assert figures["fps"] == 58 / 4.0
    assert (figures["keyframes"], figures["map_points"]) == (6, 50)


def test_live_and_final_errors_are_told_apart():
    truth = smooth_trajectory(60)
    late = truth.poses.copy()
    late[30:, 0, 3] += 0.5
    figures = compute_metrics(run_record(tracked_frames(Trajectory(truth.timestamps, late)), truth, truth))
    assert figures["ate_rmse_m"] == pytest.approx(0.0, abs=1e-12)
    assert figures["ate_live_rmse_m"] > 0.1


def test_keys_are_stable_and_null_without_truth():
    final = smooth_trajectory(60)
    for truth in (None, empty(), final):
        figures = compute_metrics(run_record(tracked_frames(final), final, truth))
        assert sorted(figures) == sorted(METRICS)
        assert all((figures[name] is None) == (truth is not final) for name in NEEDS_TRUTH)
    assert {"vslam", "python", "numpy", "numba", "opencv"} <= set(figures["versions"])


def test_scale_error_is_null_where_the_truth_is_small():
    truth = straight(speed=0.05)
    figures = compute_metrics(run_record(tracked_frames(truth), truth, truth))
    assert figures["scale_error"] is None and figures["ate_rmse_m"] is not None


def test_folder_holds_every_file_and_they_agree(tmp_path):
    final = smooth_trajectory(60)
    record = run_record(tracked_frames(final, lost=range(20, 25)), final, final)
    figures = write_results(record, tmp_path / "deep" / "run")
    folder = tmp_path / "deep" / "run"
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    assert json.loads((folder / "metrics.json").read_text()) == figures
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {"extractor": {"name": "orb"}}
    np.testing.assert_array_equal(read_trajectory(folder / "trajectory.txt").timestamps, final.timestamps)
    assert len(read_trajectory(folder / "trajectory_live.txt")) == 55
    assert len(read_trajectory(folder / "keyframes.txt")) == 6


def test_frame_table_has_a_line_a_frame_and_a_column_a_stage(tmp_path):
    final = smooth_trajectory(4)
    frames = (*tracked_frames(final), Tracked(final.timestamps[-1] + 1, State.DROPPED))
    write_results(run_record(frames, final), tmp_path)
    rows = list(csv.DictReader((tmp_path / "frames.csv").open()))
    assert len(rows) == 5
    assert list(rows[0]) == [
        "timestamp",
        "state",
        "reason",
        "keyframe",
        "matches",
        "inliers",
        "recovery_s",
        "tracking_ms",
        "tracking_cpu_ms",
        "extract_ms",
        "match_ms",
        "pose_ms",
    ]
    assert float(rows[1]["timestamp"]) == final.timestamps[1]
    assert rows[0]["keyframe"] == "1" and rows[1]["keyframe"] == "0"
    assert float(rows[0]["extract_ms"]) == pytest.approx(frames[0].stage_ms["extract"], abs=5e-4)
    assert rows[4]["state"] == "dropped" and rows[4]["tracking_ms"] == rows[4]["extract_ms"] == ""


def test_map_is_a_binary_ply_with_colour(tmp_path):
    final = smooth_trajectory(4)
    record = run_record(tracked_frames(final), final)
    write_results(record, tmp_path)
    header, _, body = (tmp_path / "map.ply").read_bytes().partition(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\n") and b"element vertex 50\n" in header
    points = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    np.testing.assert_array_equal(points["xyz"], record.points_xyz.astype(np.float32))
    np.testing.assert_array_equal(points["rgb"], record.points_rgb)


def lost_frames(count):
    return tuple(Tracked(k / 30, State.LOST, Reason.NO_DEPTH, tracking_ms=5.0) for k in range(count))


EDGES = {
    "no truth": lambda: run_record(tracked_frames(smooth_trajectory(50), lost=range(9, 20)), smooth_trajectory(50)),
    "all lost": lambda: run_record(lost_frames(30), empty(), straight()),
    "all lost, no truth": lambda: run_record(lost_frames(30), empty()),
    "no frames": lambda: run_record((), empty()),
    "no frames, truth": lambda: run_record((), empty(), straight()),
    "one frame": lambda: run_record(tracked_frames(straight(1)), straight(1), straight(1)),
    "two frames": lambda: run_record(tracked_frames(straight(2)), straight(2), straight(2)),
    "truth of another time": lambda: run_record(
        tracked_frames(smooth_trajectory(50)), smooth_trajectory(50), straight()
    ),
    "standing still": lambda: run_record(tracked_frames(straight(speed=0.0)), straight(speed=0.0), straight(speed=0.0)),
    "no map": lambda: run_record(
        tracked_frames(straight()), straight(), points_xyz=np.zeros((0, 3)), points_rgb=np.zeros((0, 3), np.uint8)
    ),
    "interrupted": lambda: run_record(tracked_frames(straight()), straight(), straight(), interrupted=True),
    "nothing timed": lambda: run_record([Tracked(0.0, State.DROPPED)], empty(), wall_s=0.0),
    "odd names": lambda: dataclasses.replace(
        run_record(tracked_frames(straight()), straight(), mapping_ms={"<b>": [1.0], "none": []}),
        sequence="</script>&$x",
    ),
}


def reject_constant(name):
    raise AssertionError(f"{name} is not JSON")


@pytest.mark.parametrize("name", EDGES)
def test_results_of_odd_runs_are_written(tmp_path, name):
    record = EDGES[name]()
    figures = write_results(record, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(FILES)
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=reject_constant)
    page = (tmp_path / "report.html").read_text()
    assert "nan" not in page.lower().replace("nanosecond", "") and "http://" not in page.replace(
        "http://www.w3.org/", ""
    )
    assert figures["frames"] == len(record.frames)


def test_report_is_self_contained_and_shows_what_happened(tmp_path):
    final = smooth_trajectory(300)
    frames = list(tracked_frames(final, lost=range(100, 120)))
    frames[200] = dataclasses.replace(frames[200], state=State.WEAK, reason=Reason.FROM_DEPTH)
    write_results(run_record(frames, final, final, mapping_ms={"fuse": [2.0, 3.0]}, interrupted=True), tmp_path)
    page = (tmp_path / "report.html").read_text()
    for words in (
        "From above",
        "few matches: 20 frames",
        "from depth alone: 1 frame",
        "33 ms",
        "fuse",
        "was interrupted",
    ):
        assert words in page
    assert "https://" not in page and "src=" not in page and "@import" not in page
    assert len(page) < 1_500_000


def test_report_of_a_long_run_stays_small(tmp_path):
    final = smooth_trajectory(20000)
    points = np.random.default_rng(0).normal(size=(200000, 3)) * 2
    record = run_record(
        tracked_frames(final), final, final, points_xyz=points, points_rgb=np.zeros((200000, 3), np.uint8)
    )
    write_results(record, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 1_500_000
