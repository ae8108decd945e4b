"""What the map forgets, and what it must not."""

import numpy as np
import pytest

from tests.mapping.map_of_points import make_map
from tests.mapping.test_map import check_books
from vslam.mapping.cull import cull_keyframes, cull_points
from vslam.mapping.map import covisible


def test_keyframe_that_adds_nothing_goes_and_its_pose_is_kept():
    made = make_map(at=[0, 1, 1.02, 1.04, 1.06, 2, 3])
    removed = cull_keyframes(made.map, made.slot(6), 0.9, 20)
    assert removed == 7 - len(made.map) > 0
    assert {0, 5, 6} <= set(made.map.slot_of)  # the first, and the newest two
    assert set(made.map.slot_of) < set(range(7))
    np.testing.assert_allclose(made.pose_errors(), 0, atol=1e-9)
    check_books(made.map)


def test_keyframes_that_see_their_own_stay():
    made = make_map(at=[0, 12, 24, 36, 48, 60], twice=True)
    assert cull_keyframes(made.map, made.slot(5), 0.9, 20) == 0
    few_witnesses = make_map(3)  # no point can have three others
    assert cull_keyframes(few_witnesses.map, few_witnesses.slot(2), 0.1, 20) == 0


def test_every_point_of_a_culled_keyframe_is_still_seen_by_three():
    made = make_map(at=np.linspace(0, 2, 9))
    before = made.map.point_count
    gone = cull_keyframes(made.map, made.slot(8), 0.9, 20)
    assert gone
    observations = made.map.points.observations[made.map.points.alive > 0]
    assert np.mean(observations >= 3) > 0.8 and made.map.point_count > 0.97 * before


def test_closer_look_is_not_redundant():
    """One keyframe sees at a sigma that the others do not reach: its view is worth keeping."""
    made = make_map(at=[0, 0.5, 1, 1.5, 2, 2.5])
    made.map.keyframes.sigma[made.slot(2)] /= 3
    cull_keyframes(made.map, made.slot(5), 0.9, 20)
    assert 2 in made.map.slot_of


def test_at_most_the_candidates_are_judged():
    made = make_map(at=np.linspace(0, 1, 12))
    assert cull_keyframes(made.map, made.slot(11), 0.9, 0) == 0
    assert cull_keyframes(made.map, made.slot(11), 0.9, 2) <= 2


def test_points_rarely_found_go():
    made = make_map(3)
    rows = np.flatnonzero(made.map.points.alive)
    made.map.points.visible[rows], made.map.points.found[rows] = 100, 50
    made.map.points.found[rows[:10]] = 2
    assert cull_points(made.map, 2) == 10
    assert not made.map.points.alive[rows[:10]].any() and made.map.points.alive[rows[10:]].all()
    check_books(made.map)


@pytest.mark.parametrize(("newest", "goes"), [(0, False), (50, True)])
def test_points_that_stay_alone_go_after_their_trial(newest, goes):
    made = make_map(2)
    rows = np.flatnonzero(made.map.points.alive)
    alone = made.map.points.observations[rows] == 1
    assert 0 < alone.sum() < len(rows)
    assert cull_points(made.map, newest) == (alone.sum() if goes else 0)
    assert made.map.points.alive[rows[~alone]].all()
    check_books(made.map)


def test_neighbours_are_told_from_strangers():
    made = make_map(3, twice=True)
    assert len(covisible(made.map, made.slot(0))[0]) == 0
    assert cull_keyframes(made.map, made.slot(2), 0.9, 20) == 0
