"""The tracker with a hand-made map: from which step a pose comes, what it asks for, what it says when lost."""

from dataclasses import replace

import numpy as np
import pytest

from tests.world import CAMERA, ByNumber, Points, make_features, make_local_map, scatter, see
from vslam.config import Config, TrackingConfig
from vslam.geometry import se3
from vslam.tracking.tracker import Tracker
from vslam.types import KeyframeRequest, LocalMap, RawFrame, Reason, State, Tracked

POINTS = scatter(600)
STEP = np.array([0.01, -0.005, 0.008, 0.004, -0.006, 0.003])  # a frame's motion: 14 mm, 0.45 degrees
BLACK = np.zeros((CAMERA.height, CAMERA.width), np.uint8)
CONFIG = Config(tracking=TrackingConfig(keyframe_max_gap=4, keyframe_min_gap=1))


class Film(ByNumber):
    """An extractor that gives what has been put in, whatever the image."""

    def __init__(self):
        self.features = None

    def extract(self, image):
        return self.features


class Stage:
    """A tracker, its map, and what it asked for."""

    def __init__(self, local_map: LocalMap | None = None, config: Config = CONFIG):
        self.local_map, self.requests, self.film = local_map, [], Film()
        self.tracker = Tracker(CAMERA, self.film, config, lambda: self.local_map, self.requests.append)

    def show(self, k: float, points: Points = POINTS, noise_px=0.5, depth: float = 0.0) -> Tracked:
        """Frame `k` of a steady motion past the points; `depth` metres everywhere, 0 for none."""
        frame, self.shown = see(points, pose_at(k), noise_px=noise_px, seed=int(10 * k), depth=False)
        return self.feed(frame.features, k, depth)

    def feed(self, features, k: float, depth: float = 0.0) -> Tracked:
        self.film.features = features
        image = np.full(BLACK.shape, depth, np.float32) if depth else None
        return self.tracker.track(RawFrame(k / 30, BLACK, image), BLACK)

    def show_nothing(self, k: float) -> Tracked:
        return self.feed(make_features(np.empty((0, 2)), np.empty((0, 32), np.uint8)), k)


def pose_at(k: float) -> np.ndarray:
    return se3.exp(STEP * k)


def check_pose(tracked: Tracked, k: float) -> None:
    """400 points of half a pixel at 1.5 to 4 m: 0.5 / 262 * 3 m / sqrt(400) is 0.3 mm, times ten for the geometry."""
    error = se3.log(tracked.T_world_camera @ pose_at(k))
    assert np.linalg.norm(error[:3]) < 3e-3 and np.linalg.norm(error[3:]) < 1.5e-3


def test_first_frame_with_depth_is_the_origin_and_a_keyframe():
    stage = Stage()
    tracked = stage.show(0, depth=2.0)
    assert (tracked.state, tracked.reason, tracked.keyframe) == (State.OK, Reason.FIRST_FRAME, True)
    assert np.array_equal(tracked.T_world_camera, np.eye(4))
    (request,) = stage.requests
    assert isinstance(request, KeyframeRequest) and request.reference == -1
    assert np.array_equal(request.T_frame_reference, np.eye(4)) and (request.row == -1).all()


def test_no_depth_at_the_start_is_said():
    stage = Stage()
    tracked = stage.show(0)
    assert (tracked.state, tracked.reason) == (State.LOST, Reason.NO_DEPTH)
    assert tracked.T_world_camera is None and not stage.requests and not stage.tracker.anchors
    assert stage.show(1, depth=2.0).reason == Reason.FIRST_FRAME


def test_pose_comes_from_the_map_then_from_the_previous_frame():
    stage = Stage(make_local_map(POINTS))
    reasons = []
    for k in range(6):
        tracked = stage.show(k)
        assert tracked.state == State.OK
        check_pose(tracked, k)
        assert tracked.inliers > 0.85 * len(stage.shown) and tracked.matches >= tracked.inliers
        reasons.append(tracked.reason)
    assert reasons == [Reason.FROM_REFERENCE, *[Reason.NONE] * 5]


def test_a_frame_left_out_does_not_break_the_prediction():
    stage = Stage(make_local_map(POINTS))
    for k in (0, 1, 2, 5, 6, 9.5):
        tracked = stage.show(k)
    assert tracked.reason == Reason.NONE
    check_pose(tracked, 9.5)


def test_points_of_older_keyframes_help_when_the_reference_shows_none():
    local_map = make_local_map(POINTS)
    local_map.in_reference[:] = False
    tracked = Stage(local_map).show(0)
    assert (tracked.state, tracked.reason) == (State.OK, Reason.FROM_KEYFRAMES)
    check_pose(tracked, 0)


def test_frame_without_keypoints_is_lost_and_the_next_one_found_again():
    stage = Stage(make_local_map(POINTS))
    stage.show(0), stage.show(1)
    dark = stage.show_nothing(2)
    assert (dark.state, dark.reason, dark.T_world_camera) == (State.LOST, Reason.FEW_KEYPOINTS, None)
    again = stage.show(3)
    assert again.state == State.OK
    check_pose(again, 3)
    assert stage.show(4).reason == Reason.NONE


def test_a_strange_place_is_lost_for_want_of_matches():
    stage = Stage(make_local_map(POINTS))
    stage.show(0)
    strange = Points(POINTS.xyz, scatter(600, seed=9).descriptors)
    tracked = stage.show(1, strange)
    assert (tracked.state, tracked.reason) == (State.LOST, Reason.FEW_MATCHES)
    assert tracked.T_world_camera is None


def test_few_points_of_the_map_are_not_enough():
    few = Points(POINTS.xyz[::40], POINTS.descriptors[::40])  # 15, of which not all are in view
    mixed = Points(POINTS.xyz, np.where(np.arange(600)[:, None] % 40, scatter(600, 9).descriptors, POINTS.descriptors))
    tracked = Stage(make_local_map(few)).show(0, mixed)
    assert tracked.state == State.LOST and tracked.reason in (Reason.FEW_MATCHES, Reason.FEW_INLIERS)


def test_wrong_third_of_the_map_does_not_pull_the_pose():
    moved = POINTS.xyz.copy()
    moved[::3] += np.random.default_rng(0).uniform(0.2, 0.5, moved[::3].shape)
    stage = Stage(make_local_map(Points(moved, POINTS.descriptors)))
    for k in range(4):
        tracked = stage.show(k)
        assert tracked.state == State.OK
    check_pose(tracked, 3)


def test_keyframe_request_names_the_points_that_were_seen():
    local_map = make_local_map(POINTS)
    local_map.row[:] += 1000  # rows of the map are not indices of the local map
    local_map.generation[:] = 7
    stage = Stage(local_map)
    asked_at = [k for k in range(6) if stage.show(k).keyframe]
    assert asked_at and len(stage.requests) == 1  # the map has not answered yet: no second request
    stage = Stage(local_map)
    for k in range(asked_at[0] + 1):
        tracked = stage.show(k)
    (request,) = stage.requests
    seen = request.row >= 0
    assert seen.sum() == tracked.inliers and (request.generation[seen] == 7).all()
    assert np.array_equal(request.row[seen], stage.shown[seen] + 1000)
    assert request.reference == 0
    np.testing.assert_allclose(request.T_frame_reference, se3.inverse(tracked.T_world_camera), atol=1e-9)
    assert set(request.found_row) <= set(request.visible_row) and len(request.found_row)


def test_poses_are_kept_relative_to_the_reference_keyframe():
    stage = Stage(make_local_map(POINTS))
    tracked = [stage.show(k) for k in range(4)]
    anchors = stage.tracker.anchors
    assert [a.timestamp for a in anchors] == [t.timestamp for t in tracked]
    for anchor, frame in zip(anchors, tracked, strict=True):
        T_cw = anchor.T_frame_reference @ stage.local_map.T_cw[anchor.reference]
        np.testing.assert_allclose(T_cw @ frame.T_world_camera, np.eye(4), atol=1e-9)


def test_a_moved_map_moves_the_pose_along():
    """A correction turns and shifts the whole map between two frames: the pose follows, from its predecessor."""
    stage = Stage(make_local_map(POINTS))
    for k in range(3):
        stage.show(k)
    T_new_old = se3.exp([0.5, -0.3, 0.2, 0.2, 0.1, -0.3])
    moved = Points(POINTS.xyz @ T_new_old[:3, :3].T + T_new_old[:3, 3], POINTS.descriptors)
    stage.local_map = make_local_map(moved, se3.inverse(T_new_old))
    tracked = stage.show(3)
    assert (tracked.state, tracked.reason) == (State.OK, Reason.NONE)
    error = se3.log(se3.inverse(T_new_old) @ tracked.T_world_camera @ pose_at(3))
    assert np.abs(error).max() < 3e-3


@pytest.mark.parametrize("count", [0, 3, 29])
def test_few_keypoints_are_said(count):
    stage = Stage(make_local_map(POINTS))
    frame, _ = see(Points(POINTS.xyz[:count], POINTS.descriptors[:count]), np.eye(4), depth=False)
    assert stage.feed(frame.features, 0).reason == Reason.FEW_KEYPOINTS


def test_times_of_stages_are_told():
    stage = Stage(make_local_map(POINTS))
    for tracked in (stage.show(0), stage.show(1), stage.show_nothing(2)):
        assert tracked.stage_ms and all(ms >= 0 for ms in tracked.stage_ms.values())
        assert tracked.tracking_ms >= sum(tracked.stage_ms.values()) - 1e-6
        assert tracked.tracking_cpu_ms > 0


def test_map_is_not_written():
    local_map, untouched = make_local_map(POINTS), make_local_map(POINTS)
    stage = Stage(local_map)
    assert all(stage.show(k).state == State.OK for k in range(3))
    for name in ("row", "generation", "xyz", "normal", "size", "words", "in_reference"):
        assert np.array_equal(getattr(local_map, name), getattr(untouched, name))
    assert np.array_equal(local_map.T_cw[0], np.eye(4))


def test_a_rolling_shutter_does_not_pull_the_pose_away():
    """A camera that turns by 60 degrees a second, its rows seen one after the other, 26 ms from first to last."""
    rate = np.array([0.1, 0.0, 0.0, 0.2, 1.0, 0.1])

    def last_error(readout: float) -> float:
        """Metres; the camera that filmed has 26 ms, the tracker believes `readout`."""
        film, local_map = Film(), make_local_map(POINTS)
        tracker = Tracker(replace(CAMERA, readout=readout), film, CONFIG, lambda: local_map, lambda _: None)
        for k in range(8):
            late = np.zeros(len(POINTS))
            for _ in range(10):  # the row decides the moment, the moment decides the row
                T = se3.exp((k / 30 + late)[:, None] * rate)
                p = np.einsum("nij,nj->ni", T[:, :3, :3], POINTS.xyz) + T[:, :3, 3]
                uv = CAMERA.project(p)
                late = ((uv[:, 1] + 0.5) / CAMERA.height - 0.5) * 0.026
            inside = (uv >= 0).all(axis=1) & (uv <= (CAMERA.width - 1, CAMERA.height - 1)).all(axis=1)
            film.features = make_features(uv[inside], POINTS.descriptors[inside])
            tracked = tracker.track(RawFrame(k / 30, BLACK), BLACK)
        assert tracked.state is State.OK
        return float(np.linalg.norm(se3.log(tracked.T_world_camera @ se3.exp(rate * k / 30))[:3]))

    bent = last_error(0.0)
    assert bent > 5e-3  # 60 degrees/s * 26 ms * 262 px are 7 px from the first row to the last, at 3 m 8 cm
    assert last_error(0.026) < 0.2 * bent
