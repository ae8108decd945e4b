"""Local bundle adjustment of a disturbed map whose truth is known."""

import numpy as np
import pytest

from tests.mapping.map_of_points import Made, make_map
from tests.mapping.test_map import check_books
from tests.world import CAMERA
from vslam.geometry import se3
from vslam.mapping.window import adjust_window, choose_window, fixed_around

NO_STOP = np.zeros(1, np.uint8)


def disturb(made: Made, size: float, seed: int = 0, hold: int = 1) -> None:
    """Push all poses but the first `hold` and all points by `size` metres and half of it in radians."""
    rng = np.random.default_rng(seed)
    keyframes, points = made.map.keyframes, made.map.points
    for k, slot in made.map.slot_of.items():
        if k >= hold:
            keyframes.T_cw[slot] = se3.exp(rng.normal(0, size, 6) * [1, 1, 1, 0.5, 0.5, 0.5]) @ keyframes.T_cw[slot]
    points.xyz[:] += rng.normal(0, size, points.xyz.shape)


def adjust(made: Made, keyframe: int, window=10, fixed=20, optimizer="numba", stop=NO_STOP) -> int:
    return adjust_window(made.map, made.slot(keyframe), CAMERA, window, fixed, optimizer, stop)


@pytest.mark.parametrize("optimizer", ["numba", "g2o"])
def test_disturbed_map_without_noise_comes_back_to_the_truth(optimizer):
    made = make_map(6)
    disturb(made, 0.01)
    before = made.pose_errors().max(), np.median(made.point_errors())
    assert adjust(made, 5, optimizer=optimizer) > 1000
    # stops when an iteration gains less than 1e-4 of the cost, which without noise falls by more until rounding
    assert made.pose_errors().max() < before[0] / 100
    assert np.median(made.point_errors()) < before[1] / 100
    check_books(made.map)


def test_noisy_map_is_as_good_as_the_noise_allows():
    made = make_map(6, noise_px=0.5)
    disturb(made, 0.01)
    adjust(made, 5)
    # 0.15 px of 7 px disparity are 6 cm at 3 m; over 250 points 4 mm a keyframe, at three sigma
    assert made.pose_errors().max() < 12e-3
    assert np.median(made.point_errors()) < 0.06
    check_books(made.map)


def test_fixed_keyframes_stay_to_the_last_bit():
    made = make_map(8)
    disturb(made, 0.003, hold=5)
    moving, _fixed = choose_window(made.map, made.slot(7), 3, 2)
    kept = made.map.keyframes.T_cw.copy()
    adjust(made, 7, window=3, fixed=2)
    others = [slot for slot in made.map.slot_of.values() if slot not in moving]
    assert np.array_equal(made.map.keyframes.T_cw[others], kept[others])
    assert all(not np.array_equal(made.map.keyframes.T_cw[slot], kept[slot]) for slot in moving)


def test_window_moves_the_newest_and_holds_by_others():
    made = make_map(8)
    moving, fixed = choose_window(made.map, made.slot(7), 3, 20)
    assert made.slot(7) in moving and len(moving) == 3
    assert not set(moving) & set(fixed) and set(moving) | set(fixed) == set(made.map.slot_of.values())
    assert (np.diff(made.map.keyframes.id[moving]) > 0).all()  # in the order of time: a narrow system
    everything, held = choose_window(made.map, made.slot(7), 20, 20)
    assert held.tolist() == [made.slot(0)] and made.slot(0) not in everything
    assert len(fixed_around(made.map, moving, 2)) == 2


def test_points_of_one_keyframe_alone_move_with_it():
    made = make_map(4)
    slot = made.slot(3)
    free = np.arange(5)
    for feature in free:  # what they showed they show no longer
        row = made.map.keyframes.point[slot, feature]
        made.map.keyframes.point[slot, feature] = -1
        made.map.points.observations[row] -= 1
    lone = made.map.add_points(slot, free, np.random.default_rng(0).uniform(1, 2, (5, 3)))
    disturb(made, 0.01)

    def in_camera():
        T_cw = made.map.keyframes.T_cw[slot]
        return made.map.points.xyz[lone] @ T_cw[:3, :3].T + T_cw[:3, 3]

    before, xyz = in_camera(), made.map.points.xyz[lone].copy()
    adjust(made, 3)
    np.testing.assert_allclose(in_camera(), before, atol=1e-9)
    assert np.abs(made.map.points.xyz[lone] - xyz).max() > 1e-3


def test_wrong_observations_are_dropped_and_the_rest_adjusted():
    made = make_map(6)
    slot = made.slot(4)
    wrong = np.arange(20)
    lost = made.map.keyframes.point[slot, wrong].copy()
    made.map.keyframes.xy[slot, wrong] += 25
    disturb(made, 0.003)
    adjust(made, 5)
    assert (made.map.keyframes.point[slot, wrong] == -1).all()
    still_there = made.map.points.alive[lost] > 0
    assert still_there.mean() > 0.5  # other keyframes see them
    # the first round bears the wrong ones under Huber's kernel, the second is without
    assert made.pose_errors().max() < 1e-4
    check_books(made.map)


def test_single_keyframe_has_nothing_to_adjust():
    made = make_map(1)
    kept = made.map.points.xyz.copy()
    assert adjust(made, 0) == 0
    assert np.array_equal(made.map.points.xyz, kept)


def test_keyframes_without_common_points_are_left_alone():
    made = make_map(3, twice=True)
    kept = made.map.keyframes.T_cw.copy()
    adjust(made, 2)
    np.testing.assert_allclose(made.map.keyframes.T_cw, kept, atol=1e-9)
    check_books(made.map)


def test_stopped_at_once_the_map_is_still_sound():
    made = make_map(6)
    disturb(made, 0.01)
    before = made.pose_errors().max()
    adjust(made, 5, stop=np.ones(1, np.uint8))
    assert made.pose_errors().max() <= 2 * before
    assert np.isfinite(made.map.points.xyz).all()
    check_books(made.map)


def test_rotations_stay_exact_over_many_adjustments():
    made = make_map(5, noise_px=0.5)
    for k in range(20):
        disturb(made, 0.002, seed=k)
        adjust(made, 4)
    R = made.map.keyframes.T_cw[list(made.map.slot_of.values()), :3, :3]
    np.testing.assert_allclose(R @ R.swapaxes(1, 2), np.tile(np.eye(3), (5, 1, 1)), atol=1e-13)
