"""A pose without a guess."""

import numpy as np
import pytest

from tests.world import CAMERA, ByNumber, Points, make_features, make_frame, make_local_map, scatter, see
from vslam.geometry import se3
from vslam.tracking.relocalise import locate

POINTS = scatter(300)
EVERYTHING = np.ones(300, bool)
T_CW = se3.exp([0.2, -0.1, 0.15, 0.1, -0.1, 0.2])


def find(frame, local_map=None, among=EVERYTHING, min_inliers=15):
    local_map = make_local_map(POINTS) if local_map is None else local_map
    return locate(frame, local_map, among, CAMERA, ByNumber.max_distance, min_inliers)


def check_near(T_cw: np.ndarray) -> None:
    """Within what 150 points of 1 px noise at 1.5 to 4 m allow EPnP without refinement: 2 cm, a third of a degree."""
    error = se3.log(T_cw @ se3.inverse(T_CW))
    assert np.linalg.norm(error[:3]) < 0.02 and np.linalg.norm(error[3:]) < 0.006


@pytest.mark.parametrize("noise_px,expected", [(0.0, 1e-4), (1.0, 0.02)])
def test_pose_is_found_from_appearance_alone(noise_px, expected):
    frame, shown = see(POINTS, T_CW, noise_px=noise_px)
    T_cw, matches = find(frame)
    assert matches == len(shown) > 100
    assert np.abs(se3.log(T_cw @ se3.inverse(T_CW))).max() < expected


def test_pose_is_found_although_every_third_point_is_somewhere_else():
    moved = POINTS.xyz.copy()
    moved[::3] += np.random.default_rng(0).uniform(0.3, 1, moved[::3].shape)
    frame, _ = see(POINTS, T_CW, noise_px=0.5)
    T_cw, _ = find(frame, make_local_map(Points(moved, POINTS.descriptors)))
    check_near(T_cw)


def test_only_points_among_the_named_ones_are_used():
    frame, shown = see(POINTS, T_CW)
    among = np.zeros(300, bool)
    among[shown[:40]] = True
    T_cw, matches = find(frame, among=among)
    assert matches == 40 and T_cw is not None
    assert find(frame, among=np.zeros(300, bool)) == (None, 0)


def test_a_strange_place_is_not_found():
    other = Points(POINTS.xyz, scatter(300, seed=5).descriptors)
    T_cw, matches = find(see(other, T_CW)[0])
    assert T_cw is None and matches < 15


def test_matches_that_agree_on_no_pose_give_none():
    frame, shown = see(POINTS, T_CW)
    xy = np.random.default_rng(0).uniform(0, 240, (len(shown), 2))
    T_cw, matches = find(make_frame(make_features(xy, POINTS.descriptors[shown])), min_inliers=40)
    assert T_cw is None and matches == len(shown)


def test_frame_without_features_gives_none():
    empty = make_frame(make_features(np.empty((0, 2)), np.empty((0, 32), np.uint8)))
    assert find(empty) == (None, 0)


def test_same_input_gives_the_same_pose_to_the_last_bit():
    frame, _ = see(POINTS, T_CW, noise_px=1.0)
    assert find(frame)[0].tobytes() == find(frame)[0].tobytes()
