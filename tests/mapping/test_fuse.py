"""Points that are one become one; points that keyframes missed are found again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive
from tests.mapping.map_of_points import make_map
from tests.mapping.test_map import Play, check_books
from tests.world import CAMERA, ByNumber
from vslam.mapping.fuse import find_points, fuse_around, merge_points


def test_duplicates_of_the_same_points_are_merged():
    made = make_map(4, twice=True)
    shown = [set(s) for s in made.shown]
    distinct = len(set.union(*shown))
    assert made.map.point_count == sum(map(len, shown)) > 2 * distinct
    for k in (1, 2, 3):
        fuse_around(made.map, made.slot(k), np.array([made.slot(j) for j in range(k)]), CAMERA, ByNumber())
        check_books(made.map)
    # a feature of a scattered pair may hide another: descriptors differ, but the search radius of 4 sigma is shared
    assert distinct <= made.map.point_count < 1.02 * distinct
    by_row = {row: {made.shown[made.map.keyframes.id[s]][f] for s, f in at}
              for row, at in naive.observations(made.map).items()}  # fmt: skip
    assert all(len(numbers) == 1 for numbers in by_row.values())  # nothing merged that is not one


def test_points_that_were_missed_are_observed():
    made = make_map(2)
    slot = made.slot(1)
    rows = made.map.keyframes.point[slot][made.map.keyframes.point[slot] >= 0]
    missed = rows[made.map.points.observations[rows] == 2][:30]
    for row in missed:
        feature = np.flatnonzero(made.map.keyframes.point[slot] == row)
        made.map.keyframes.point[slot, feature] = -1
        made.map.points.observations[row] -= 1
    check_books(made.map)
    assert find_points(made.map, slot, missed, CAMERA, ByNumber()) == len(missed)
    assert (made.map.points.observations[missed] == 2).all()
    check_books(made.map)


@pytest.mark.parametrize(("error_px", "error_disparity"), [(6.0, 0.0), (0.0, 3.0)])
def test_points_out_of_place_are_not_taken(error_px, error_disparity):
    made = make_map(2, twice=True)
    count, slot = made.map.point_count, made.slot(1)
    made.map.keyframes.xy[slot] += error_px
    made.map.frames[slot].xy[:] += error_px
    made.map.keyframes.disparity[slot] += error_disparity
    own = made.map.keyframes.point[made.slot(0)]
    find_points(made.map, slot, own[own >= 0], CAMERA, ByNumber())
    assert made.map.point_count > 0.99 * count


def test_of_merged_points_the_one_seen_more_often_stays():
    made = make_map(4)
    rows = np.flatnonzero(made.map.points.alive)
    observations = made.map.points.observations[rows]
    often, seldom = rows[observations == 4][:5], rows[observations == 1][:5]
    assert len(often) == len(seldom) == 5
    sights = naive.observations(made.map)
    found = made.map.points.found[often] + made.map.points.found[seldom]
    merge_points(made.map, seldom, often)
    assert made.map.points.alive[often].all() and not made.map.points.alive[seldom].any()
    assert np.array_equal(made.map.points.found[often], found)
    now = naive.observations(made.map)
    for one, two in zip(often, seldom, strict=True):
        slots = {s for s, _ in sights[one]} | {s for s, _ in sights[two]}
        assert {s for s, _ in now[one]} == slots and len(now[one]) == len(slots)
    check_books(made.map)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_merging_keeps_every_keyframes_sight_of_the_pair(seed):
    play = Play(seed)
    for move in ("add", "insert", "add", "insert", "add", "observe", "observe"):
        getattr(play, move)()
    rows = play.some_points(16)
    half = len(rows) // 2
    pairs = rows[:half], rows[half : 2 * half]
    before = naive.observations(play.map)
    merge_points(play.map, *pairs)
    after = naive.observations(play.map)
    for one, two in zip(*map(list, pairs), strict=True):
        kept = [row for row in (one, two) if play.map.points.alive[row]]
        slots = {s for row in (one, two) for s, _ in before.get(row, ())}
        assert len(kept) == 1 and {s for s, _ in after.get(kept[0], ())} == slots
    check_books(play.map)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_merging_pairs_that_share_a_point_loses_no_sight(seed):
    play = Play(seed)
    for move in ("add", "insert", "add", "insert", "add", "observe", "observe"):
        getattr(play, move)()
    rows = play.some_points(8)
    if len(rows) < 3:
        return
    before = naive.observations(play.map)
    found = play.map.points.found[rows].sum()
    merge_points(play.map, rows[:-1], rows[1:])  # a chain
    after = naive.observations(play.map)
    kept = [row for row in rows if play.map.points.alive[row]]
    assert len(kept) == 1 and play.map.points.found[kept[0]] == found
    assert {s for s, _ in after.get(kept[0], ())} == {s for row in rows for s, _ in before.get(row, ())}
    check_books(play.map)


def test_nothing_to_do_changes_nothing():
    made = make_map(2)
    count = made.map.point_count
    assert find_points(made.map, made.slot(0), np.array([], int), CAMERA, ByNumber()) == 0
    assert fuse_around(made.map, made.slot(1), np.array([], int), CAMERA, ByNumber()) == 0
    assert made.map.point_count == count
