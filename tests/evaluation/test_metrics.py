"""Laws of alignment and error, and figures that can be worked out by hand."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests.evaluation.synthetic import moved, noisy, poses_of, random_pose, smooth_trajectory
from vslam.datasets.trajectory import write_tum
from vslam.errors import VslamError
from vslam.evaluation import metrics
from vslam.evaluation.metrics import Delta
from vslam.geometry.alignment import umeyama
from vslam.types import Trajectory

seeds = st.integers(0, 2**31)
scales = st.floats(0.05, 20.0)


def line(times, speed=1.0):
    """A camera that moves along x at `speed` m/s and does not turn."""
    times = np.asarray(times, np.float64)
    return Trajectory(times, poses_of(np.outer(times, [speed, 0.0, 0.0])))


def ate_rmse(estimate, truth, align):
    return metrics.rmse(metrics.ate(metrics.align(metrics.associate(estimate, truth, 0.02), align)))


@given(seeds, scales)
@settings(max_examples=40, deadline=None)
def test_umeyama_finds_the_similarity_that_was_applied(seed, scale):
    source = np.random.default_rng(seed).normal(size=(20, 3))
    T = random_pose(seed)
    s, R, t = umeyama(source, scale * source @ T[:3, :3].T + T[:3, 3], with_scale=True)
    assert s == pytest.approx(scale, rel=1e-12)
    np.testing.assert_allclose(R, T[:3, :3], atol=1e-12)
    np.testing.assert_allclose(t, T[:3, 3], atol=1e-11)


def test_umeyama_of_a_mirrored_set_is_still_a_rotation():
    source = np.random.default_rng(0).normal(size=(20, 3))
    _, R, _ = umeyama(source, source * (1, 1, -1))
    assert np.linalg.det(R) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_umeyama_of_points_on_a_line_brings_them_together(count):
    source = np.outer(np.arange(count), [1.0, 2.0, 3.0])
    T = random_pose(1)
    target = source @ T[:3, :3].T + T[:3, 3]
    s, R, t = umeyama(source, target)
    np.testing.assert_allclose(s * source @ R.T + t, target, atol=1e-12)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_ate_se3_does_not_depend_on_the_world_of_the_estimate(seed):
    truth = smooth_trajectory(60)
    estimate = noisy(truth, seed=seed)
    expected = ate_rmse(estimate, truth, "se3")
    assert ate_rmse(moved(estimate, random_pose(seed)), truth, "se3") == pytest.approx(expected, abs=1e-12)


@given(seeds, scales)
@settings(max_examples=25, deadline=None)
def test_ate_sim3_does_not_depend_on_world_and_scale_of_the_estimate(seed, scale):
    truth = smooth_trajectory(60)
    estimate = noisy(truth, seed=seed)
    expected = ate_rmse(estimate, truth, "sim3")
    assert ate_rmse(moved(estimate, random_pose(seed), scale), truth, "sim3") == pytest.approx(expected, abs=1e-11)


@given(seeds, st.sampled_from(["1s", "5f", "0.3m"]))
@settings(max_examples=25, deadline=None)
def test_rpe_does_not_depend_on_either_world(seed, delta):
    truth = smooth_trajectory(60)
    estimate = noisy(truth, seed=seed)
    here = metrics.rpe(metrics.associate(estimate, truth, 0.02), Delta.parse(delta), 0.02)
    elsewhere = metrics.associate(moved(estimate, random_pose(seed)), moved(truth, random_pose(seed + 1)), 0.02)
    there = metrics.rpe(elsewhere, Delta.parse(delta), 0.02)
    np.testing.assert_array_equal(here.ids, there.ids)
    np.testing.assert_allclose(there.trans_m, here.trans_m, atol=1e-12)
    np.testing.assert_allclose(there.rot_deg, here.rot_deg, atol=1e-9)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_ate_falls_with_every_freedom_of_the_alignment(seed):
    truth = smooth_trajectory(40)
    estimate = moved(noisy(truth, seed=seed), random_pose(seed, reach=0.1), 1.1)
    errors = [ate_rmse(estimate, truth, align) for align in ("none", "se3", "sim3")]
    assert errors[0] >= errors[1] >= errors[2]


def test_ate_of_a_shift_by_hand():
    truth, shift = line(np.arange(10)), np.eye(4)
    shift[:3, 3] = 3.0, 4.0, 0.0
    estimate = moved(truth, shift)
    assert ate_rmse(estimate, truth, "none") == pytest.approx(5.0)
    assert ate_rmse(estimate, truth, "se3") == pytest.approx(0.0, abs=1e-12)


def test_rpe_of_a_wrong_speed_by_hand():
    """10 % too fast at 2 m/s: 0.2 m in each second."""
    times = np.arange(0, 4, 0.1)
    pairs = metrics.associate(line(times, 2.2), line(times, 2.0), 0.02)
    drift = metrics.rpe(pairs, Delta(1.0, "s"), 0.02)
    assert len(drift.trans_m) == 30
    np.testing.assert_allclose(drift.trans_m, 0.2, atol=1e-12)
    np.testing.assert_allclose(drift.rot_deg, 0.0, atol=1e-12)


def test_rpe_of_a_turning_error_by_hand():
    """The estimate turns by 2 degrees a frame where the truth stands still."""
    turns = Rotation.from_rotvec(np.outer(np.arange(10), [0.0, 2.0, 0.0]), degrees=True).as_matrix()
    times = np.arange(10) / 10
    estimate = Trajectory(times, poses_of(np.zeros((10, 3)), turns))
    pairs = metrics.associate(estimate, Trajectory(times, poses_of(np.zeros((10, 3)))), 0.02)
    np.testing.assert_allclose(metrics.rpe(pairs, Delta(3, "f"), 0.02).rot_deg, [6.0, 6.0, 6.0], atol=1e-12)


def test_rpe_by_metres_steps_along_the_path_of_the_estimate():
    pairs = metrics.associate(line(np.arange(8)), line(np.arange(8), 2.0), 0.02)
    np.testing.assert_array_equal(metrics.pair_ids(pairs, Delta(2.5, "m"), 0.02), [[0, 3], [3, 6]])


def test_rpe_by_seconds_leaves_out_pairs_across_gaps():
    times = np.array([0.0, 0.5, 1.01, 1.55, 2.5])
    pairs = metrics.associate(line(times), line(times), 0.02)
    np.testing.assert_array_equal(metrics.pair_ids(pairs, Delta(1.0, "s"), 0.02), [[0, 2]])


@pytest.mark.parametrize("delta", ["1s", "100f", "100m"])
def test_rpe_of_a_path_shorter_than_delta_is_empty(delta):
    pairs = metrics.associate(line([0.0, 0.1]), line([0.0, 0.1]), 0.02)
    assert len(metrics.rpe(pairs, Delta.parse(delta), 0.02).trans_m) == 0


def test_association_is_nearest_within_the_gap_and_one_to_one():
    estimate, truth = line([0.0, 0.1, 0.109, 0.2, 0.5, 9.0]), line([0.011, 0.108, 0.19, 0.515, 0.6, 0.7])
    pairs = metrics.associate(estimate, truth, 0.02)
    np.testing.assert_array_equal(pairs.estimate_ids, [0, 2, 3, 4])
    np.testing.assert_array_equal(pairs.truth_ids, [0, 1, 2, 3])


@given(st.lists(st.integers(0, 300), min_size=1, unique=True), st.lists(st.integers(0, 300), min_size=1, unique=True))
@settings(max_examples=100, deadline=None)
def test_association_equals_its_slow_twin(a, b):
    a, b = (np.sort(ids) * step + 1e-4 * np.sin(np.sort(ids)) for ids, step in ((a, 0.007), (b, 0.011)))  # no ties
    pairs = metrics.associate(line(a), line(b), 0.02)
    expected = []
    for i, time in enumerate(a):
        j = int(np.argmin(np.abs(b - time)))
        if abs(b[j] - time) <= 0.02 and int(np.argmin(np.abs(a - b[j]))) == i:
            expected.append((i, j))
    assert list(zip(pairs.estimate_ids.tolist(), pairs.truth_ids.tolist(), strict=True)) == expected


def test_association_with_an_empty_trajectory_is_empty():
    empty = Trajectory(np.zeros(0), np.zeros((0, 4, 4)))
    assert len(metrics.associate(empty, line([0.0]), 0.02)) == 0
    assert len(metrics.associate(line([0.0]), empty, 0.02)) == 0


def test_sim3_of_an_estimate_that_stands_still_is_refused():
    still = line(np.arange(5), 0.0)
    with pytest.raises(VslamError, match="has no scale"):
        metrics.align(metrics.associate(still, line(np.arange(5)), 0.02), "sim3")


def test_scale_error_is_what_brings_the_estimate_to_the_truth():
    truth = smooth_trajectory(100)
    pairs = metrics.associate(moved(truth, random_pose(0), 0.8), truth, 0.02)
    assert metrics.scale_error(pairs) == pytest.approx(0.25)
    small = metrics.associate(line([0.0, 0.1, 0.2]), line([0.0, 0.1, 0.2]), 0.02)
    assert metrics.scale_error(small) is None


@pytest.mark.parametrize(
    ("text", "value", "unit"), [("1s", 1.0, "s"), (" 10f", 10.0, "f"), ("0.5 m", 0.5, "m"), (".5m", 0.5, "m")]
)
def test_delta_is_read(text, value, unit):
    assert Delta.parse(text) == Delta(value, unit)


@pytest.mark.parametrize("text", ["", "1", "s", "0s", "-1s", "1.5f", "1km", "nanm", "1e3s"])
def test_delta_that_means_nothing_is_refused(text):
    with pytest.raises(VslamError, match="expected seconds, frames or metres"):
        Delta.parse(text)


def test_example_scores_two_files(tmp_path, monkeypatch, capsys):
    truth = smooth_trajectory(100)
    for name in ("estimate.txt", "truth.txt"):
        write_tum(tmp_path / name, truth)
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "estimate.txt"), str(tmp_path / "truth.txt")])
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "score_trajectory.py"))
    assert capsys.readouterr().out.startswith("ATE 0.0 mm over 100 poses\n")
