"""Guided search against a loop over all pairs, and the laws it must keep."""

import numpy as np
import pytest

from tests import naive
from tests.world import CAMERA, make_features, make_frame
from vslam.geometry import se3
from vslam.matching.window import CELL, NEAR_M, search_projected

GATES = {
    "radius_px": 8.0, "radius_sigmas": 3.0, "scale_factor": 1.5, "max_turn": 0.8, "max_distance": 60.0, "ratio": 0.87,
}  # fmt: skip


def case(seed: int, points: int = 300, keypoints: int = 400) -> tuple:
    """Points all about a camera that stands anywhere, and keypoints near some of the projections that look alike."""
    rng = np.random.default_rng(seed)
    T_cw = se3.exp(rng.normal(0, 1, 6))
    xy = rng.uniform((-60, -60), (CAMERA.width + 60, CAMERA.height + 60), (points, 2))
    local = CAMERA.unproject(xy, rng.uniform(-0.5, 4.0, points))
    descriptors = rng.integers(0, 256, (points, 32), np.uint8)
    normal = (-local / np.linalg.norm(local, axis=1, keepdims=True) + rng.normal(0, 0.7, (points, 3))) @ T_cw[:3, :3]
    normal[rng.random(points) < 0.2] = 0
    from_camera = {
        "xyz": (local - T_cw[:3, 3]) @ T_cw[:3, :3],
        "normal": normal.astype(np.float32),
        "size": (np.linalg.norm(local, axis=1) * rng.choice([0.6, 1.0, 1.7, 3.0], points)).astype(np.float32),
        "angle": rng.uniform(-np.pi, np.pi, points).astype(np.float32),
        "descriptors": descriptors,
    }
    shown = rng.integers(0, max(points, 1), keypoints) if points else np.zeros(keypoints, int)
    look = descriptors[shown] if points else rng.integers(0, 256, (keypoints, 32), np.uint8)
    flips = np.packbits(rng.random((keypoints, 256)) < rng.uniform(0, 0.25, (keypoints, 1)), axis=1)
    in_frame = {
        "xy": (xy[shown] if points else np.zeros((keypoints, 2))) + rng.normal(0, 4, (keypoints, 2)),
        "sigma": rng.choice([0.6, 0.9, 1.4, 2.0, 3.1], keypoints).astype(np.float32),
        "angle": rng.uniform(-np.pi, np.pi, keypoints).astype(np.float32),
        "descriptors": look ^ flips,
        "free": (rng.random(keypoints) < 0.9).astype(np.uint8),
    }
    if points:
        in_frame["angle"][::2] = from_camera["angle"][shown[::2]] + rng.normal(0, 0.3, len(shown[::2]))
        in_frame["angle"] = ((in_frame["angle"] + np.pi) % (2 * np.pi) - np.pi).astype(np.float32)
    in_frame["xy"] = np.float32(in_frame["xy"])
    return T_cw, from_camera, in_frame


def search(T_cw, points, frame, **changed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match (M,), distance (M,) and visible (M,) by the kernel."""
    gates = GATES | changed
    grid = make_frame(make_features(frame["xy"], frame["descriptors"], frame["sigma"])).grid
    n = len(points["xyz"])
    match, distance, visible = np.empty(n, np.int32), np.empty(n, np.float32), np.empty(n, np.uint8)
    count = search_projected(
        T_cw, CAMERA.pinhole, CAMERA.width, CAMERA.height, points["xyz"], points["normal"], points["size"],
        points["angle"], points["descriptors"].view(np.uint64), frame["xy"], frame["sigma"], frame["angle"],
        frame["descriptors"].view(np.uint64), frame["free"], grid.start, grid.items, grid.columns, grid.rows, CELL,
        gates["radius_px"], gates["radius_sigmas"], gates["scale_factor"], gates["max_turn"],
        np.float32(gates["max_distance"]), np.float32(gates["ratio"]), match, distance, visible,
    )  # fmt: skip
    assert count == np.count_nonzero(match >= 0)
    return match, distance, visible


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "changed", [{}, {"scale_factor": 0.0}, {"max_turn": 0.0, "radius_px": 30.0}, {"ratio": 10.0, "radius_sigmas": 0.0}]
)
def test_search_equals_naive_twin(seed, changed):
    T_cw, points, frame = case(seed, 150, 300)
    match, _, visible = search(T_cw, points, frame, **changed)
    expected, in_view = naive.search_projected(T_cw, CAMERA, NEAR_M, points, frame, GATES | changed)
    assert np.array_equal(visible, in_view)
    assert np.array_equal(match, expected)
    assert (match >= 0).sum() > 5  # or the case says nothing


@pytest.mark.parametrize("seed", range(8))
def test_matches_keep_every_gate(seed):
    T_cw, points, frame = case(seed)
    match, distance, visible = search(T_cw, points, frame)
    rows = np.flatnonzero(match >= 0)
    found = match[rows]
    assert len(rows) > 10 and len(set(found)) == len(found)
    assert visible[rows].all() and frame["free"][found].all()
    assert (distance[rows] < GATES["max_distance"]).all()
    bits = np.bitwise_count(points["descriptors"][rows] ^ frame["descriptors"][found]).sum(axis=1)
    assert np.array_equal(distance[rows], bits)
    local = points["xyz"][rows] @ T_cw[:3, :3].T + T_cw[:3, 3]
    sigma = np.clip(points["size"][rows] / np.linalg.norm(local, axis=1), frame["sigma"].min(), frame["sigma"].max())
    radius = GATES["radius_px"] + GATES["radius_sigmas"] * sigma
    assert (np.linalg.norm(CAMERA.project(local) - frame["xy"][found], axis=1) < radius + 1e-3).all()
    ratio = frame["sigma"][found] / sigma
    assert (np.maximum(ratio, 1 / ratio) < GATES["scale_factor"] + 1e-5).all()
    assert (naive.turn_between(frame["angle"][found], points["angle"][rows]) < GATES["max_turn"] + 1e-5).all()


def test_points_behind_beside_or_seen_from_behind_are_not_visible():
    points = {
        "xyz": np.array([(0, 0, 2.0), (0, 0, -2.0), (5, 0, 2.0), (0, 0, 2.0), (0, 0, 2.0)]),
        "normal": np.array([(0, 0, -1), (0, 0, -1), (0, 0, -1), (0, 0, 1), (0, 0, 0)], np.float32),
        "size": np.full(5, 2, np.float32), "angle": np.zeros(5, np.float32),
        "descriptors": np.zeros((5, 32), np.uint8),
    }  # fmt: skip
    frame = case(0, 5, 0)[2]
    match, _, visible = search(np.eye(4), points, frame)
    assert visible.tolist() == [1, 0, 0, 0, 1] and (match == -1).all()


def test_of_two_points_the_better_gets_the_keypoint_in_either_order():
    descriptors = np.zeros((2, 32), np.uint8)
    descriptors[1, 0] = 0b111
    points = {
        "xyz": np.tile([0, 0, 2.0], (2, 1)), "normal": np.zeros((2, 3), np.float32),
        "size": np.full(2, 2, np.float32), "angle": np.zeros(2, np.float32), "descriptors": descriptors,
    }  # fmt: skip
    frame = {
        "xy": np.array([(CAMERA.cx, CAMERA.cy)], np.float32), "sigma": np.ones(1, np.float32),
        "angle": np.zeros(1, np.float32), "descriptors": np.zeros((1, 32), np.uint8), "free": np.ones(1, np.uint8),
    }  # fmt: skip
    assert search(np.eye(4), points, frame)[0].tolist() == [0, -1]
    swapped = points | {"descriptors": descriptors[::-1].copy()}
    assert search(np.eye(4), swapped, frame)[0].tolist() == [-1, 0]


@pytest.mark.parametrize(("points", "keypoints"), [(0, 0), (0, 20), (20, 0)])
def test_nothing_to_search_gives_nothing(points, keypoints):
    match, _, _ = search(*case(0, points, keypoints))
    assert len(match) == points and (match == -1).all()


def test_float_descriptors_are_searched_too():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 64)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    T_cw, points, _ = case(1, 50, 0)
    local = points["xyz"] @ T_cw[:3, :3].T + T_cw[:3, 3]
    xy = CAMERA.project(np.where(local[:, 2:] > NEAR_M, local, 1.0)).astype(np.float32)
    features = make_features(xy, values)
    grid = make_frame(features).grid
    match, distance, visible = np.empty(50, np.int32), np.empty(50, np.float32), np.empty(50, np.uint8)
    search_projected(
        T_cw, CAMERA.pinhole, CAMERA.width, CAMERA.height, points["xyz"], np.zeros((50, 3), np.float32), points["size"],
        points["angle"], values, xy, features.sigma, features.angle, values, np.ones(50, np.uint8), grid.start,
        grid.items, grid.columns, grid.rows, CELL, 3.0, 0.0, 0.0, 0.0, np.float32(0.5), np.float32(1.0),
        match, distance, visible,
    )  # fmt: skip
    seen = np.flatnonzero(visible)
    assert len(seen) > 15 and np.array_equal(match[seen], seen)
    assert (match[visible == 0] == -1).all()
    np.testing.assert_allclose(distance[seen], 0, atol=1e-5)
