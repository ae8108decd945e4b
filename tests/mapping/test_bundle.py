import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.entry import entry
from tests.mapping.naive_bundle import PINHOLE, cost, numeric_jacobians, world
from vslam.geometry import se3
from vslam.mapping.bundle import adjust, envelope, solver
from vslam.mapping.bundle.envelope import allocate
from vslam.mapping.bundle.normal import _jacobians
from vslam.mapping.bundle.problem import evaluate
from vslam.mapping.bundle.schur import _levenberg, solve_schur

factorise, substitute = entry(envelope.factorise), entry(envelope.substitute)
SOLVERS = ["numba", "g2o"]
SIZES = {
    "small": {"free": 4, "fixed": 2, "points": 60, "edges": 200, "mono": 0.3},
    "stereo": {"free": 5, "fixed": 3, "points": 300, "edges": 1300, "mono": 0.0},
    "mono": {"free": 5, "fixed": 3, "points": 300, "edges": 1300, "mono": 1.0},
    "many poses": {"free": 30, "fixed": 2, "points": 500, "edges": 2600, "mono": 0.3},
    "only points": {"free": 0, "fixed": 4, "points": 50, "edges": 160, "mono": 0.5},
    "one pose": {"free": 1, "fixed": 2, "points": 50, "edges": 150, "mono": 0.5},
}


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_jacobians_equal_numeric_differentiation(seed):
    rng = np.random.default_rng(seed)
    T, X = se3.exp(rng.normal(0, 0.5, 6)), rng.uniform(-1, 1, 3)
    X = se3.inverse(T)[:3, :3] @ (X + np.array([0, 0, 3]) - T[:3, 3])  # 2 to 4 m before the camera
    x, y, z = T[:3, :3] @ X + T[:3, 3]
    by_pose, by_point = np.empty((3, 6)), np.empty((3, 3))
    _jacobians.py_func(T, x, y, z, tuple(PINHOLE), by_pose, by_point)
    numeric_pose, numeric_point = numeric_jacobians(T, X, PINHOLE)
    # central differences: rounding of 1e3 pixels, EPS * 1e3 / 1e-6 = 2e-7; truncation 1e3 * 1e-12
    np.testing.assert_allclose(by_pose, numeric_pose, atol=1e-5)
    np.testing.assert_allclose(by_point, numeric_point, atol=1e-5)


@pytest.mark.parametrize("optimizer", SOLVERS)
@pytest.mark.parametrize("robust", [True, False])
def test_cost_equals_naive_twin(optimizer, robust):
    problem = world(outliers=0.05).problem
    solution = solver(optimizer)(problem, 3, robust=robust)
    assert solution.cost == pytest.approx(cost(problem, solution.poses, solution.points, robust), rel=1e-10)
    assert solution.cost < cost(problem, problem.poses, problem.points, robust)
    chi2, depth = evaluate(problem, solution.poses, solution.points)
    np.testing.assert_allclose(solution.chi2, chi2, rtol=1e-9, atol=1e-12)
    assert np.array_equal(solution.depth_positive, depth > 0)


@pytest.mark.parametrize("optimizer", SOLVERS)
@pytest.mark.parametrize("mono", [0.0, 0.5, 1.0])
def test_exact_data_gives_the_truth(optimizer, mono):
    truth = world(noise=0.0, mono=mono, edges=300)
    solution = solver(optimizer)(truth.problem, 30)
    # the cost is quadratic at its minimum: an error of 1e-8 changes it by rounding only
    np.testing.assert_allclose(solution.poses, truth.poses, atol=1e-7)
    np.testing.assert_allclose(solution.points, truth.points, atol=1e-6)
    assert solution.inlier.all()


@pytest.mark.parametrize("robust", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_solvers_agree(size, robust):
    for seed in range(2):
        problem = world(**SIZES[size], outliers=0.05, seed=seed).problem
        ours, theirs = (solver(name)(problem, 10, robust=robust) for name in SOLVERS)
        assert ours.cost == pytest.approx(theirs.cost, rel=1e-6)
        np.testing.assert_allclose(ours.poses, theirs.poses, atol=1e-6)


def test_rounds_of_solvers_agree_and_find_the_outliers():
    truth = world(free=6, fixed=2, points=300, edges=1500, outliers=0.05)
    ours, theirs = (adjust(truth.problem, name, min_gain=0.0) for name in SOLVERS)
    assert ours.cost == pytest.approx(theirs.cost, rel=1e-6)
    assert np.array_equal(ours.inlier, theirs.inlier)
    assert not (ours.inlier & truth.is_outlier).any()
    # 5 % of the good ones lie outside their 95 % gates; binomial spread of 1425 is 0.6 %
    assert ours.inlier[~truth.is_outlier].mean() > 0.93
    start = np.abs(truth.problem.poses - truth.poses).max()
    assert np.abs(ours.poses - truth.poses).max() < start / 4


@pytest.mark.parametrize("optimizer", SOLVERS)
def test_fixed_poses_and_inputs_stay_bit_for_bit(optimizer):
    problem = world(outliers=0.05).problem
    before = problem.poses.copy(), problem.points.copy()
    solution = adjust(problem, optimizer)
    assert np.array_equal(solution.poses[problem.fixed], problem.poses[problem.fixed])
    assert np.array_equal(before[0], problem.poses) and np.array_equal(before[1], problem.points)
    rotations = solution.poses[:, :3, :3]
    np.testing.assert_allclose(rotations @ rotations.swapaxes(1, 2), np.tile(np.eye(3), (6, 1, 1)), atol=1e-14)
    assert np.array_equal(solution.poses[:, 3], np.tile([0, 0, 0, 1], (6, 1)))


def test_layout_and_types_of_the_arrays_do_not_matter():
    problem = world(outliers=0.05).problem
    other = replace(
        problem,
        poses=np.asfortranarray(problem.poses),
        uv=np.asfortranarray(problem.uv),
        pose_index=problem.pose_index.astype(np.int64),
        point_index=np.repeat(problem.point_index, 2)[::2],
    )
    everything = np.ones(len(problem.uv), np.uint8)
    assert np.array_equal(solve_schur(problem).poses, solve_schur(other, active=everything).poses)
    assert len(_levenberg.signatures) == 1  # or it would compile again


def test_schur_is_deterministic():
    problem = world(outliers=0.05).problem
    first, second = adjust(problem), adjust(problem)
    assert first.poses.tobytes() == second.poses.tobytes() and first.points.tobytes() == second.points.tobytes()


@pytest.mark.parametrize("optimizer", SOLVERS)
def test_inactive_observations_have_no_influence(optimizer):
    truth = world(outliers=0.1)
    active = ~truth.is_outlier
    wild = replace(truth.problem, uv=np.where(active[:, None], truth.problem.uv, 1e6))
    solve = solver(optimizer)
    assert np.array_equal(solve(truth.problem, 5, active=active).poses, solve(wild, 5, active=active).poses)


@pytest.mark.parametrize("optimizer", SOLVERS)
def test_raised_stop_flag_changes_nothing(optimizer):
    problem = world().problem
    solution = adjust(problem, optimizer, stop_flag=np.ones(1, np.uint8))
    assert np.array_equal(solution.poses, problem.poses) and np.array_equal(solution.points, problem.points)
    assert solution.iterations == 0
    assert solution.cost == pytest.approx(cost(problem, problem.poses, problem.points), rel=1e-10)


def test_stop_flag_from_another_thread_ends_the_work():
    problem = world(points=2000, edges=8000, free=6, outliers=0.1).problem
    started = time.perf_counter()
    complete = solve_schur(problem, 200).iterations  # compiles, too, so that the first delay may be too long
    delay = time.perf_counter() - started
    for _ in range(20):
        flag = np.zeros(1, np.uint8)
        timer = threading.Timer(delay, flag.fill, [1])
        timer.start()
        solution = solve_schur(problem, 200, stop_flag=flag)
        timer.join()
        delay /= 2
        if 0 < solution.iterations < complete:
            break
    assert 0 < solution.iterations < complete
    assert np.isfinite(solution.cost)
    assert solution.cost == pytest.approx(cost(problem, solution.poses, solution.points), rel=1e-10)


def test_min_gain_ends_early_at_nearly_the_same_cost():
    problem = world(points=300, edges=1200, outliers=0.05).problem
    full, early = solve_schur(problem, 50), solve_schur(problem, 50, min_gain=1e-4)
    assert early.iterations < 15
    assert early.cost == pytest.approx(full.cost, rel=1e-2)
    assert early.cost >= full.cost


@pytest.mark.parametrize("optimizer", SOLVERS)
@pytest.mark.parametrize("case", ["no points", "no observations", "no poses", "all fixed", "none fixed"])
def test_degenerate_sizes(optimizer, case):
    problem = world().problem
    nothing = {
        "pose_index": np.zeros(0, np.int32), "point_index": np.zeros(0, np.int32), "uv": np.zeros((0, 2)),
        "disparity": np.zeros(0), "weight": np.zeros((0, 2)),
    }  # fmt: skip
    changes = {
        "no points": nothing | {"points": np.zeros((0, 3))},
        "no observations": nothing,
        "no poses": nothing | {"poses": np.zeros((0, 4, 4)), "fixed": np.zeros(0, bool)},
        "all fixed": {"fixed": np.ones(6, bool)},
        "none fixed": {"fixed": np.zeros(6, bool)},
    }[case]
    problem = replace(problem, **changes)
    solution = adjust(problem, optimizer)
    assert np.isfinite(solution.poses).all() and np.isfinite(solution.points).all() and np.isfinite(solution.cost)
    assert solution.cost <= cost(problem, problem.poses, problem.points, robust=False)


@pytest.mark.parametrize("optimizer", SOLVERS)
def test_points_seen_once_without_depth_do_not_spoil_the_rest(optimizer):
    truth = world(mono=0.0, noise=0.0)
    problem = truth.problem
    once = np.flatnonzero(np.diff(problem.point_index, prepend=-1) > 0)[:20]
    keep = ~np.isin(problem.point_index, problem.point_index[once]) | np.isin(np.arange(len(problem.uv)), once)
    disparity = problem.disparity.copy()
    disparity[once] = np.nan
    fields = {
        "pose_index": problem.pose_index,
        "point_index": problem.point_index,
        "uv": problem.uv,
        "disparity": disparity,
    }
    problem = replace(problem, weight=problem.weight[keep], **{name: field[keep] for name, field in fields.items()})
    solution = adjust(problem, optimizer, min_gain=0.0)
    np.testing.assert_allclose(solution.poses, truth.poses, atol=1e-5)
    assert np.isfinite(solution.points).all()


@pytest.mark.parametrize("optimizer", SOLVERS)
def test_broken_numbers_are_left_out(optimizer):
    truth = world(mono=0.0, noise=0.0)
    problem = truth.problem
    broken = {name: getattr(problem, name).copy() for name in ("points", "uv", "disparity", "weight")}
    broken["points"][3] = np.nan
    broken["uv"][20, 1] = np.nan
    broken["disparity"][30] = np.inf
    broken["weight"][40, 0] = 0.0
    broken["weight"][50] = np.nan
    solution = adjust(replace(problem, **broken), optimizer, min_gain=0.0)
    np.testing.assert_allclose(solution.poses, truth.poses, atol=1e-5)
    assert np.isfinite(np.delete(solution.points, 3, axis=0)).all()
    bad = np.isin(np.arange(len(problem.uv)), [20, 30, 40, 50]) | (problem.point_index == 3)
    assert np.isinf(solution.chi2[bad]).all()
    assert np.array_equal(solution.inlier, ~bad)


@pytest.mark.parametrize("depth", [0.0, 1e-9, -1e-5, -2.0])
def test_points_at_or_behind_the_camera_do_not_poison(depth):
    truth = world(mono=0.5, noise=0.0, points=100, edges=400)
    problem = truth.problem
    points = problem.points.copy()
    T = problem.poses[problem.pose_index[0]]  # the first point's first camera
    points[0] = (se3.inverse(T) @ [0.1 * depth, 0.2 * depth, depth, 1])[:3]
    solution = adjust(replace(problem, points=points), min_gain=0.0)
    assert np.isfinite(solution.poses).all() and np.isfinite(solution.points).all() and np.isfinite(solution.cost)
    others = problem.point_index != 0
    assert np.abs(solution.poses - truth.poses).max() <= np.abs(problem.poses - truth.poses).max()
    assert solution.inlier[others].mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uv": np.zeros((3, 2))}, "shape"),
        ({"fixed": np.zeros(5, bool)}, "fixed"),
        ({"fixed": np.zeros(6, np.uint8)}, "expected bool"),
        ({"pose_index": np.full(200, 6, np.int32)}, "pose_index spans 6..6, expected 0..5"),
        ({"point_index": np.arange(200, dtype=np.int32)[::-1] // 4}, "not sorted"),
    ],
)
def test_malformed_problems_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        adjust(replace(world().problem, **changes))


def test_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="known: numba, g2o"):
        adjust(world().problem, "ceres")


@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_envelope_cholesky_solves(blocks, seed):
    rng = np.random.default_rng(seed)
    first = np.array([rng.integers(0, p + 1) for p in range(blocks)])
    row_start = np.repeat(6 * first, 6)
    L = np.tril(rng.normal(size=(6 * blocks, 6 * blocks))) + 8 * np.eye(6 * blocks)
    L[np.arange(6 * blocks) < row_start[:, None]] = 0.0
    A = L @ L.T
    values, origin = allocate(first)
    for i in range(6 * blocks):
        for j in range(row_start[i], i + 1):
            values[origin[i] + j] = A[i, j]
    x = rng.normal(size=6 * blocks)
    b = A @ x
    assert factorise(values, origin, first)
    substitute(values, origin, first, b)
    np.testing.assert_allclose(b, x, atol=1e-9)


def test_envelope_cholesky_refuses_an_indefinite_matrix():
    first = np.zeros(1, np.int64)
    values, origin = allocate(first)
    for i in range(6):
        values[origin[i] + i] = 1.0 if i != 3 else -1.0
    assert not factorise(values, origin, first)
