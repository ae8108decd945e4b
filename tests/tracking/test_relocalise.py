"""A pose without a guess."""

import numpy as np
import pytest

from tests.world import CAMERA, ByNumber, Points, make_features, make_frame, scatter, see
from vslam.geometry import se3
from vslam.matching.distance import searchable
from vslam.tracking.relocalise import locate

POINTS = scatter(300)
T_CW = se3.exp([0.2, -0.1, 0.15, 0.1, -0.1, 0.2])


def find(frame, points=POINTS, min_inliers=15):
    words = searchable(points.descriptors)
    return locate(frame, points.xyz, words, CAMERA, ByNumber.max_distance, min_inliers)


def check_near(T_cw: np.ndarray) -> None:
    """Within what 150 points of 1 px noise at 1.5 to 4 m allow EPnP without refinement: 2 cm, a third of a degree."""
    error = se3.log(T_cw @ se3.inverse(T_CW))
    assert np.linalg.norm(error[:3]) < 0.02 and np.linalg.norm(error[3:]) < 0.006


@pytest.mark.parametrize(("noise_px", "expected"), [(0.0, 1e-4), (1.0, 0.02)])
def test_pose_is_found_from_appearance_alone(noise_px, expected):
    frame, shown = see(POINTS, T_CW, noise_px=noise_px)
    T_cw, matches = find(frame)
    assert matches == len(shown) > 100
    assert np.abs(se3.log(T_cw @ se3.inverse(T_CW))).max() < expected


def test_pose_is_found_although_every_third_point_is_somewhere_else():
    moved = POINTS.xyz.copy()
    moved[::3] += np.random.default_rng(0).uniform(0.3, 1, moved[::3].shape)
    frame, _ = see(POINTS, T_CW, noise_px=0.5)
    T_cw, _ = find(frame, Points(moved, POINTS.descriptors))
    check_near(T_cw)


def test_some_points_of_what_the_frame_shows_are_enough():
    frame, shown = see(POINTS, T_CW)
    some, none = (Points(POINTS.xyz[rows], POINTS.descriptors[rows]) for rows in (shown[:40], shown[:0]))
    T_cw, matches = find(frame, some)
    assert matches == 40
    assert np.abs(se3.log(T_cw @ se3.inverse(T_CW))).max() < 1e-4
    assert find(frame, none) == (None, 0)


def test_a_strange_place_is_not_found():
    other = Points(POINTS.xyz, scatter(300, seed=5).descriptors)
    T_cw, matches = find(see(other, T_CW)[0])
    assert T_cw is None and matches < 15


def test_matches_that_agree_on_no_pose_give_none():
    _frame, shown = see(POINTS, T_CW)
    xy = np.random.default_rng(0).uniform(0, 240, (len(shown), 2))
    T_cw, matches = find(make_frame(make_features(xy, POINTS.descriptors[shown])), min_inliers=40)
    assert T_cw is None and matches == len(shown)


def test_frame_without_features_gives_none():
    empty = make_frame(make_features(np.empty((0, 2)), np.empty((0, 32), np.uint8)))
    assert find(empty) == (None, 0)


def test_same_input_gives_the_same_pose_to_the_last_bit():
    frame, _ = see(POINTS, T_CW, noise_px=1.0)
    assert find(frame)[0].tobytes() == find(frame)[0].tobytes()
