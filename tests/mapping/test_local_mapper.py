"""Local mapping as a whole: keyframes in, a map as it should be and a published copy out."""

from dataclasses import replace

import numpy as np
import pytest

from tests.mapping.test_map import check_books
from tests.world import CAMERA, ByNumber, Points, request, scatter, see
from vslam.config import MappingConfig
from vslam.geometry import se3
from vslam.mapping.local_mapper import LocalMapper

POINTS = scatter(500)
STEP = np.array([0.06, -0.02, 0.03, 0.01, -0.03, 0.01])


class Course:
    """Keyframes on a path; each tells the mapper of a share `told` of the map points it sees, as tracking does."""

    def __init__(self, told: float = 1.0, noise_px=0.5, drift=0.002, config: MappingConfig | None = None):
        self.mapper = LocalMapper(CAMERA, ByNumber(), config or MappingConfig(), 600)
        self.told, self.noise_px, self.drift = told, noise_px, drift
        self.shown, self.seen = [], set()
        self.rng = np.random.default_rng(0)

    def go(self, k: int) -> None:
        T_cw = se3.exp(STEP * k)
        frame, shown = see(POINTS, T_cw, k / 10, self.noise_px, seed=k)
        row, generation = np.full(len(shown), -1), np.zeros(len(shown), int)
        local_map = self.mapper.local_map
        T_frame_reference = T_cw
        if local_map is not None:
            at = {words.tobytes(): i for i, words in enumerate(local_map.words)}
            index = np.array([at.get(words.tobytes(), -1) for words in frame.words])
            index[self.rng.random(len(index)) >= self.told] = -1
            row = np.where(index >= 0, local_map.row[index], -1)
            generation = np.where(index >= 0, local_map.generation[index], 0)
            off = se3.exp(self.rng.normal(0, self.drift, 6))
            T_frame_reference = off @ T_cw @ se3.inverse(local_map.T_cw[local_map.reference])
        reference = -1 if local_map is None else local_map.reference
        self.mapper.process(request(frame, reference, T_frame_reference, row, generation))
        self.seen |= set(shown)

    def pose_errors(self) -> np.ndarray:
        map_ = self.mapper.map
        off = [map_.pose(k) @ se3.inverse(se3.exp(STEP * k)) for k in range(len(map_.timestamp_of))]
        return np.linalg.norm(se3.log(np.array(off)), axis=1)


@pytest.mark.parametrize("optimizer", ["numba", "g2o"])
@pytest.mark.parametrize("told", [1.0, 0.3])
def test_map_of_a_path_is_right(told, optimizer):
    course = Course(told, config=MappingConfig(optimizer=optimizer))
    for k in range(9):
        course.go(k)
        check_books(course.mapper.map)
    # 0.15 px of 7 px disparity are 6 cm at 3 m; over 250 points 4 mm a keyframe, at three sigma
    assert course.pose_errors().max() < 12e-3
    count = course.mapper.map.point_count
    assert 0.7 * len(course.seen) < count < 1.1 * len(course.seen)  # what is not told is found and merged


def test_first_keyframe_makes_a_point_of_every_feature_with_depth():
    course = Course(noise_px=0.0)
    course.go(0)
    local_map = course.mapper.local_map
    assert len(local_map) == len(course.seen) and local_map.reference == 0 and local_map.in_reference.all()
    truth = {words.tobytes(): xyz for words, xyz in zip(POINTS.descriptors, POINTS.xyz, strict=True)}
    expected = np.array([truth[words.tobytes()] for words in local_map.words])
    np.testing.assert_allclose(local_map.xyz, expected, rtol=1e-5, atol=1e-5)  # pixels and disparities are float32


def test_published_map_is_replaced_never_changed():
    course = Course()
    course.go(0)
    first = course.mapper.local_map
    kept = first.xyz.copy(), first.row.copy(), first.T_cw[0].copy(), first.words.copy()
    for k in range(1, 6):
        course.go(k)
    assert course.mapper.local_map is not first
    now = first.xyz, first.row, first.T_cw[0], first.words
    assert all(np.array_equal(a, b) for a, b in zip(kept, now, strict=True))
    assert course.mapper.local_map.reference == 5


def test_first_keyframe_stays_at_the_origin():
    course = Course()
    for k in range(6):
        course.go(k)
    assert np.array_equal(course.mapper.map.pose(0), np.eye(4))


def test_standing_still_does_not_grow_the_map():
    course = Course(drift=0.0)
    for _ in range(12):
        course.go(0)
    assert len(course.mapper.map) < 10  # redundant ones are culled
    assert course.mapper.map.point_count <= 1.05 * len(course.seen)
    check_books(course.mapper.map)


def test_what_tracking_saw_and_missed_is_counted():
    course = Course(noise_px=0.0, drift=0.0)
    course.go(0)
    rows = course.mapper.local_map.row
    points = course.mapper.map.points
    before = points.visible[rows].copy(), points.found[rows].copy()
    again, _ = see(POINTS, np.eye(4))
    told = replace(request(again, 0, np.eye(4)), visible_row=rows[:20], found_row=rows[:15])
    course.mapper.process(told)
    assert points.alive[rows].all()
    assert np.array_equal(points.visible[rows[:20]], before[0][:20] + 1)
    assert np.array_equal(points.found[rows[:15]], before[1][:15] + 1)
    assert np.array_equal(points.found[rows[15:20]], before[1][15:20])


def test_points_that_tracking_never_finds_are_forgotten():
    course = Course(noise_px=0.0, drift=0.0)
    course.go(0)
    rows, generation = course.mapper.local_map.row[:10], course.mapper.local_map.generation[:10]
    nothing = see(Points(POINTS.xyz[:0], POINTS.descriptors[:0]), np.eye(4))[0]
    course.mapper.process(replace(request(nothing, 0, np.eye(4)), visible_row=np.repeat(rows, 10)))
    points = course.mapper.map.points
    assert ((points.alive[rows] == 0) | (points.generation[rows] > generation)).all()
    check_books(course.mapper.map)


def test_times_of_stages_are_kept_per_keyframe():
    course = Course()
    for k in range(3):
        course.go(k)
    assert course.mapper.stage_ms and all(len(times) == 3 for times in course.mapper.stage_ms.values())


def test_same_keyframes_give_the_same_map_to_the_last_bit():
    maps = []
    for _ in range(2):
        course = Course()
        for k in range(6):
            course.go(k)
        maps.append(course.mapper.local_map)
    assert maps[0].xyz.tobytes() == maps[1].xyz.tobytes()
    assert all(maps[0].T_cw[k].tobytes() == maps[1].T_cw[k].tobytes() for k in range(6))
