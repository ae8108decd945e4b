"""The map's book-keeping: whatever happens in whatever order, the counts are those of what keyframes see."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive
from tests.world import Points, make_features, make_frame, request, scatter, see
from vslam.geometry import se3
from vslam.mapping.fuse import merge_points
from vslam.mapping.map import Map, covisible
from vslam.mapping.window import drop_observations

FEATURES = 30
no_deadline = settings(deadline=None, max_examples=40)


def check_books(map_: Map) -> None:
    """Every law of the map's arrays."""
    points, keyframes = map_.points, map_.keyframes
    seen = naive.observations(map_)
    alive = set(np.flatnonzero(points.alive))
    assert set(seen) <= alive, "a keyframe holds a dead point"
    for row in alive:
        assert points.observations[row] == len(seen.get(row, ())), f"point {row}"
        slots = [slot for slot, _ in seen.get(row, ())]
        assert len(set(slots)) == len(slots), f"point {row} twice in a keyframe"
    live = set(map_.slot_of.values())
    assert live == set(np.flatnonzero(keyframes.id >= 0)) == set(map_.frames)
    assert all(keyframes.id[slot] == keyframe for keyframe, slot in map_.slot_of.items())
    assert len(map_) == len(live) and map_.point_count == len(alive)
    for rows, used in ((points, alive), (keyframes, live)):
        free = rows.take(5)
        assert len(set(free)) == 5 and not set(free) & used, "a used row was free"
        rows.give_back(free)


class Play:
    """Random changes of a map."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.map = Map()
        self.generation = np.zeros(0, np.int32)
        self.insert()

    def keyframe(self) -> int:
        return int(self.rng.choice(list(self.map.slot_of)))

    def slot(self) -> int:
        return self.map.slot_of[self.keyframe()]

    def some_points(self, most: int) -> np.ndarray:
        alive = np.flatnonzero(self.map.points.alive)
        return self.rng.permutation(alive)[: self.rng.integers(0, most + 1)]

    def free_features(self, slot: int, most: int) -> np.ndarray:
        free = np.flatnonzero(self.map.keyframes.point[slot, :FEATURES] < 0)
        return self.rng.permutation(free)[: self.rng.integers(0, most + 1)]

    def insert(self) -> None:
        xy = self.rng.uniform(0, 240, (FEATURES, 2))
        frame = make_frame(make_features(xy, self.rng.integers(0, 256, (FEATURES, 32), np.uint8)))
        row, generation = np.full(FEATURES, -1), np.zeros(FEATURES, int)
        reference = -1
        if self.map.points is not None:
            reference = self.keyframe()
            rows = self.rng.permutation(60)[:15]  # dead ones and stale ones among them
            row[:15], generation[:15] = rows, self.map.points.generation[rows] - (self.rng.random(15) < 0.2)
        self.map.insert(request(frame, reference, se3.exp(self.rng.normal(0, 0.1, 6)), row, generation), FEATURES)

    def add(self) -> None:
        slot = self.slot()
        features = self.free_features(slot, 10)
        self.map.add_points(slot, features, self.rng.uniform(1, 3, (len(features), 3)))

    def observe(self) -> None:
        slot = self.slot()
        rows = self.some_points(8)
        rows = rows[~np.isin(rows, self.map.keyframes.point[slot])]
        features = self.free_features(slot, len(rows))
        self.map.observe(slot, features, rows[: len(features)])

    def merge(self) -> None:
        rows = self.some_points(12)
        half = len(rows) // 2
        merge_points(self.map, rows[:half], rows[half : 2 * half])

    def forget(self) -> None:
        self.map.remove_points(self.some_points(5))

    def drop(self) -> None:
        seen = [(s, f) for at in naive.observations(self.map).values() for s, f in at if self.rng.random() < 0.2]
        if seen:
            drop_observations(self.map, *np.array(seen).T)

    def remove(self) -> None:
        if len(self.map) > 1:
            gone, parent = self.rng.choice(list(self.map.slot_of), 2, replace=False)
            self.map.remove_keyframe(int(gone), int(parent))


MOVES = ["insert", "add", "observe", "merge", "forget", "drop", "remove"]


@no_deadline
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(MOVES), max_size=30))
def test_books_are_right_after_any_sequence_of_changes(seed, moves):
    play = Play(seed)
    play.add()
    for move in moves:
        alive, generation = play.map.points.alive.copy() > 0, play.map.points.generation.copy()
        getattr(play, move)()
        check_books(play.map)
        now = play.map.points
        assert (now.generation[: len(generation)] >= generation).all()
        died = alive & (now.alive[: len(alive)] == 0)
        assert (now.generation[: len(alive)][died] > generation[died]).all()
        shared = naive.shared_points(play.map, slot := play.slot())
        slots, counts = covisible(play.map, slot)
        assert dict(zip(slots, counts, strict=True)) == shared and (np.diff(counts) <= 0).all()


def two_keyframes() -> tuple[Map, np.ndarray]:
    """Keyframe 0 at the origin with a point for each feature, and keyframe 1 that sees them all; rows by feature."""
    points = scatter(100)
    map_ = Map()
    frame, _ = see(points, np.eye(4))
    slot = map_.insert(request(frame, -1, np.eye(4)), 200)
    rows = map_.add_points(slot, np.arange(len(frame)), np.ones((len(frame), 3)))
    map_.insert(request(frame, 0, se3.exp([0.1, 0, 0, 0, 0.1, 0]), rows), 200)
    return map_, rows


def test_removed_point_is_not_observed_by_who_still_holds_its_row():
    map_, rows = two_keyframes()
    stale = map_.points.generation[rows].copy()
    map_.remove_points(rows[:10])
    slot = map_.slot_of[0]
    again = map_.add_points(slot, np.flatnonzero(map_.keyframes.point[slot, : len(rows)] < 0), np.ones((10, 3)))
    assert set(again) == set(rows[:10])  # the rows live again, but are other points
    late = map_.insert(request(map_.frames[slot], 0, np.eye(4), rows, stale), 200)
    assert (map_.keyframes.point[late, :10] == -1).all()
    assert np.array_equal(map_.keyframes.point[late, 10 : len(rows)], rows[10:])
    check_books(map_)


def test_observing_gives_the_point_direction_size_and_look():
    points = scatter(100)
    map_ = Map()
    first, second = np.eye(4), se3.exp([0.5, 0.2, 0.1, 0.1, 0.3, -0.2])
    frame, shown = see(points, first)
    slot = map_.insert(request(frame, -1, first), 200)
    rows = map_.add_points(slot, np.arange(len(frame)), points.xyz[shown])
    distance = np.linalg.norm(points.xyz[shown], axis=1)
    np.testing.assert_allclose(map_.points.normal[rows], -points.xyz[shown] / distance[:, None], atol=1e-6)
    np.testing.assert_allclose(map_.points.size[rows], frame.features.sigma * distance, rtol=1e-6)
    assert np.array_equal(map_.points.words[rows].view(np.uint8), points.descriptors[shown])
    by_point = np.full(100, -1)
    by_point[shown] = rows
    frame, shown = see(points, second, seed=1)
    map_.insert(request(frame, 0, second, by_point[shown]), 200)
    both = by_point[shown] >= 0
    rows, xyz = by_point[shown][both], points.xyz[shown][both]
    centre = se3.inverse(second)[:3, 3]
    # the direction lies between the two rays, and the size is that of the last view
    ray = [-xyz / np.linalg.norm(xyz, axis=1)[:, None], (centre - xyz) / np.linalg.norm(centre - xyz, axis=1)[:, None]]
    apart = np.einsum("ij,ij->i", *ray)
    for one in ray:
        assert (np.einsum("ij,ij->i", one, map_.points.normal[rows]) > apart - 1e-6).all()
    np.testing.assert_allclose(np.linalg.norm(map_.points.normal[rows], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(map_.points.size[rows], np.linalg.norm(centre - xyz, axis=1), rtol=1e-6)


def test_removed_keyframe_follows_its_parent():
    map_, rows = two_keyframes()
    frame = map_.frames[map_.slot_of[0]]
    map_.insert(request(frame, 1, se3.exp([0, 0.2, 0, 0.1, 0, 0]), rows), 200)
    before = {k: map_.pose(k).copy() for k in range(3)}
    map_.remove_keyframe(1, 2)
    np.testing.assert_allclose(map_.pose(1), before[1], atol=1e-12)
    moved = se3.exp([0.3, 0, 0.1, 0, 0.2, 0]) @ before[2]
    map_.keyframes.T_cw[map_.slot_of[2]] = moved
    np.testing.assert_allclose(map_.pose(1), before[1] @ se3.inverse(before[2]) @ moved, atol=1e-12)
    map_.remove_keyframe(2, 0)  # the parent goes as well: both hang on 0 now
    np.testing.assert_allclose(map_.pose(1), before[1] @ se3.inverse(before[2]) @ moved, atol=1e-12)
    map_.keyframes.T_cw[map_.slot_of[0]] = se3.exp([1, 0, 0, 0, 0, 0]) @ before[0]
    np.testing.assert_allclose(map_.pose(2), moved @ se3.inverse(before[0]) @ map_.pose(0), atol=1e-12)
    check_books(map_)


def test_points_that_only_a_removed_keyframe_saw_go_with_it():
    map_, rows = two_keyframes()
    slot = map_.slot_of[1]
    map_.keyframes.point[slot, 0] = -1
    map_.points.observations[rows[0]] -= 1
    own = map_.add_points(slot, np.array([0]), np.ones((1, 3)))
    map_.remove_keyframe(1, 0)
    assert not map_.points.alive[own] and map_.points.alive[rows].all()
    check_books(map_)


def test_map_grows_beyond_its_first_arrays():
    map_ = Map()
    rng = np.random.default_rng(0)
    bare = Points(scatter(200).xyz, rng.integers(0, 256, (200, 32), np.uint8))
    frame, _ = see(bare, np.eye(4))
    first = map_.insert(request(frame, -1, np.eye(4)), 200)
    all_rows = [map_.add_points(first, np.arange(len(frame)), rng.normal(size=(len(frame), 3)))]
    xyz = map_.points.xyz[all_rows[0]].copy()
    for k in range(1, 70):
        slot = map_.insert(request(frame, k - 1, se3.exp([0.01, 0, 0, 0, 0, 0])), 200)
        all_rows.append(map_.add_points(slot, np.arange(len(frame)), np.ones((len(frame), 3))))
    rows = np.concatenate(all_rows)
    assert len(map_) == 70 and len(set(rows)) == len(rows) == map_.point_count > 5000
    assert np.array_equal(map_.points.xyz[all_rows[0]], xyz)
    np.testing.assert_allclose(map_.pose(69)[:3, 3], [0.69, 0, 0], atol=1e-9)
    check_books(map_)


@pytest.mark.parametrize("count", [250, 100])
def test_more_features_than_places_are_left_out(count):
    xy = np.random.default_rng(0).uniform(0, 240, (count, 2))
    frame = make_frame(make_features(xy, np.zeros((count, 32), np.uint8)))
    map_ = Map()
    map_.insert(request(make_frame(make_features(xy[:100], np.zeros((100, 32), np.uint8))), -1, np.eye(4)), 200)
    slot = map_.insert(request(frame, 0, np.eye(4)), 200)
    assert map_.keyframes.count[slot] == min(count, 200)


def test_empty_map_answers():
    map_ = Map()
    assert len(map_) == map_.point_count == map_.nbytes == 0
