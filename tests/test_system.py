"""The whole system on a painted room with known truth: poses, threads, faults, bad input."""

import gc
import threading
import time
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from tests.world import CAMERA, FPS, ROOM_M, filmed, walk
from vslam.config import load_config
from vslam.errors import VslamError
from vslam.geometry import se3
from vslam.mapping.local_mapper import LocalMapper
from vslam.system import System
from vslam.types import RawFrame, Reason, State

FRAMES = 40
NEAR_M, NEAR_RAD = 2 * 2.6 / 262.5, 2 / 262.5
"""Two pixels at the farthest wall, 2 cm and 0.44 degrees: corners are found to a pixel, in the keyframe and later."""
CONFIG = load_config(None, ["extractor.max_keypoints=600"])


def run(frames, mode="deterministic", config=CONFIG):
    """All answers, and the trajectory."""
    with System(CAMERA, config, mode) as system:
        answers = [system.track(frame) for frame in frames]
        return answers, system.trajectory()


@cache
def plain():
    return run(filmed(FRAMES))


def check_near(poses, truth, times=1.0) -> None:
    """Errors below `times` (N,) what two pixels allow."""
    error = se3.log(np.linalg.inv(truth) @ poses)
    assert (np.linalg.norm(error[:, :3], axis=1) / times).max() < NEAR_M
    assert (np.linalg.norm(error[:, 3:], axis=1) / times).max() < NEAR_RAD


def test_room_is_tracked_to_two_pixels():
    answers, trajectory = plain()
    assert all(answer.state == State.OK for answer in answers)
    assert answers[0].reason == Reason.FIRST_FRAME and {a.reason for a in answers[1:]} == {Reason.NONE}
    np.testing.assert_allclose(trajectory.timestamps, np.arange(FRAMES) / FPS)
    check_near(trajectory.poses, walk(FRAMES))
    check_near(np.array([answer.T_world_camera for answer in answers]), walk(FRAMES))
    assert 2 < sum(answer.keyframe for answer in answers) < FRAMES / 2 + 1


def test_deterministic_run_gives_the_same_bits_again():
    answers, trajectory = run(filmed(FRAMES))
    assert trajectory.poses.tobytes() == plain()[1].poses.tobytes()
    assert [a.T_world_camera.tobytes() for a in answers] == [a.T_world_camera.tobytes() for a in plain()[0]]


def test_threads_give_the_same_poses_from_run_to_run(monkeypatch):
    _, once = run(filmed(FRAMES), "threaded")
    process = LocalMapper.process

    def late(self, request, when_new):
        time.sleep(0.02)
        return process(self, request, when_new)

    monkeypatch.setattr(LocalMapper, "process", late)
    _, again = run(filmed(FRAMES), "threaded")
    assert np.array_equal(once.poses, again.poses)


def test_threaded_run_is_as_good():
    answers, trajectory = run(filmed(FRAMES), "threaded")
    assert len(trajectory) == FRAMES and all(answer.state == State.OK for answer in answers)
    check_near(trajectory.poses, walk(FRAMES))
    check_near(trajectory.poses, plain()[1].poses)


@pytest.mark.parametrize("mode", ["deterministic", "threaded", "realtime"])
def test_black_frames_are_lost_with_a_reason_and_the_run_goes_on(mode):
    frames = list(filmed(FRAMES))
    for k in (20, 21, 22):
        frames[k] = replace(frames[k], image=np.zeros_like(frames[k].image), depth=None)
    answers, trajectory = run(frames, mode)
    assert [(a.state, a.reason, a.T_world_camera) for a in answers[20:23]] == [
        (State.LOST, Reason.FEW_KEYPOINTS, None)
    ] * 3
    assert answers[23].state == State.OK
    kept = [k for k in range(FRAMES) if k not in (20, 21, 22)]
    np.testing.assert_allclose(trajectory.timestamps, np.array(kept) / FPS)
    check_near(trajectory.poses, walk(FRAMES)[kept])


def test_black_frames_with_depth_are_lost_or_weak_and_then_near():
    frames = list(filmed(FRAMES))
    for k in (20, 21, 22):
        frames[k] = replace(frames[k], image=np.zeros_like(frames[k].image))
    answers, _ = run(frames)
    assert {answer.state for answer in answers[20:23]} <= {State.LOST, State.WEAK}
    assert all(answer.state == State.OK for answer in answers[23:])
    for answer, T_wc in zip(answers[20:23], walk(FRAMES)[20:23], strict=True):
        if answer.T_world_camera is not None:  # from depth alone, in cells 8 cm wide at the far wall
            assert np.linalg.norm((answer.T_world_camera - T_wc)[:3, 3]) < 0.05
    tracked = np.array([answer.T_world_camera for answer in answers[23:]])
    check_near(tracked, walk(FRAMES)[23:])


def test_images_too_soft_for_corners_are_passed():
    """Three frames as through milk glass: no keypoint is left, but what the small images show."""
    frames = list(filmed(FRAMES))
    for k in (20, 21, 22):
        soft = cv2.GaussianBlur(frames[k].image, (0, 0), 6)
        frames[k] = replace(frames[k], image=(0.25 * soft + 96).astype(np.uint8))
    answers, _ = run(frames)
    assert [answer.state for answer in answers[20:23]] == [State.WEAK] * 3
    for answer, T_wc in zip(answers[20:23], walk(FRAMES)[20:23], strict=True):
        assert np.linalg.norm((answer.T_world_camera - T_wc)[:3, 3]) < 0.05
    assert all(answer.state == State.OK for answer in answers[23:])


def test_frames_without_depth_are_tracked():
    frames = [replace(frame, depth=None) if k % 2 else frame for k, frame in enumerate(filmed(FRAMES))]
    answers, trajectory = run(frames)
    assert all(answer.state == State.OK for answer in answers)
    check_near(trajectory.poses, walk(FRAMES))


def test_start_waits_for_depth():
    frames = [replace(frame, depth=None) if k < 3 else frame for k, frame in enumerate(filmed(8))]
    answers, trajectory = run(frames)
    assert [a.reason for a in answers[:4]] == [Reason.NO_DEPTH] * 3 + [Reason.FIRST_FRAME]
    assert len(trajectory) == 5
    origin = np.linalg.inv(walk(8)[3])
    check_near(trajectory.poses, origin @ walk(8)[3:])


def test_two_of_three_frames_left_out_are_borne():
    answers, trajectory = run(filmed(FRAMES)[::3])
    assert all(answer.state == State.OK for answer in answers)
    keyframe = np.array([answer.keyframe for answer in answers])
    assert 1 < keyframe.sum() < len(answers) / 3
    before = np.maximum(np.cumsum(keyframe) - keyframe, 1)
    # each keyframe goes on from the one before: a pixel for every one so far and one for the frame, not two as in
    # NEAR_M; they are independent and add in squares
    check_near(trajectory.poses, walk(FRAMES)[::3], np.sqrt((before + 1) / 2))


def test_frozen_frames_stand_still():
    first = filmed(1)[0]
    answers, trajectory = run([replace(first, timestamp=k / FPS) for k in range(12)])
    assert all(answer.state == State.OK for answer in answers)
    # the same picture: keypoints agree exactly, and depth to the rounding of float32
    np.testing.assert_allclose(trajectory.poses, np.tile(np.eye(4), (12, 1, 1)), atol=1e-4)


def test_colour_frames_give_the_poses_of_grey_ones():
    frames = [replace(f, image=np.repeat(f.image[..., None], 3, axis=2)) for f in filmed(10)]
    assert np.array_equal(run(frames)[1].poses, run(filmed(10))[1].poses)


def test_sift_tracks_too():
    answers, trajectory = run(filmed(12), config=load_config(None, ["extractor.name=sift"]))
    assert all(answer.state == State.OK for answer in answers)
    check_near(trajectory.poses, walk(12))


def test_g2o_maps_too():
    _, trajectory = run(filmed(20), config=load_config(None, ["mapping.optimizer=g2o"]))
    check_near(trajectory.poses, walk(20))


def test_map_is_told():
    with System(CAMERA, CONFIG) as system:
        assert len(system.trajectory()) == len(system.keyframes()) == 0 and system.map_size == (0, 0)
        assert system.points()[0].shape == (0, 3)
        for frame in filmed(20):
            system.track(frame)
        keyframes = system.keyframes()
        xyz, rgb = system.points()
        assert system.map_size == (len(keyframes), len(xyz)) and len(rgb) == len(xyz) > 300
        assert system.map_bytes > xyz.nbytes
        assert (np.diff(keyframes.timestamps) > 0).all()
        check_near(keyframes.poses, walk(20)[np.rint(keyframes.timestamps * FPS).astype(int)])
        # the points lie on the walls; at 2.5 m the assumed noise of depth is 2.5 cm, and the poses are not exact
        assert np.percentile(np.abs(np.abs(xyz) - ROOM_M).min(axis=1), 95) < 0.05 + NEAR_M
        assert all(len(times) >= len(keyframes) for times in system.mapping_ms.values()) and system.mapping_ms


# -- bad input --------------------------------------------------------------------------------------------------


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("mode", ["deterministic", "threaded", "realtime"])
def test_bad_frames_are_refused_in_one_line_and_good_ones_go_on(mode):
    first, second, third = filmed(3)
    half = np.zeros((120, 160), np.uint8)
    with System(CAMERA, CONFIG, mode) as system:
        system.track(first)
        for wrong, said in (
            (replace(second, image=half), "image is 160x120, the camera 320x240"),
            (replace(second, depth=half.astype(np.float32)), "depth is 160x120, the camera 320x240"),
            (replace(second, timestamp=first.timestamp), "not newer"),
            (replace(second, timestamp=-1.0), "not newer"),
        ):
            with pytest.raises(VslamError, match=said) as caught:
                system.track(wrong)
            one_line(caught)
        assert system.track(second).state == State.OK
        assert system.track(third).state == State.OK
        assert len(system.trajectory()) == 3


def test_list_as_image_is_refused_in_one_line():
    with System(CAMERA, CONFIG, "deterministic") as system, pytest.raises(VslamError):
        system.track(RawFrame(0.0, [[1, 2], [3, 4]]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: {"depth": (f.depth * 1000).astype(np.uint16)}, "depth is uint16"),
        (lambda f: {"depth": f.depth.tolist()}, "depth is list"),
        (lambda f: {"depth": np.repeat(f.depth[..., None], 3, axis=2)}, r"depth is float32 \(240, 320, 3\)"),
        (lambda f: {"image": f.image.astype(np.float32)}, "image: found float32"),
        (lambda f: {"timestamp": np.nan}, "timestamp is nan"),
        (lambda f: {"timestamp": np.inf}, "timestamp is inf"),
        (lambda f: {"timestamp": None}, "timestamp is None"),
        (lambda f: {"depth_delay": np.nan}, "depth_delay is nan"),
    ],
)
def test_what_is_no_frame_is_refused_in_one_line(change, said):
    frame = filmed(1)[0]
    with System(CAMERA, CONFIG, "deterministic") as system:
        with pytest.raises(VslamError, match=said) as caught:
            system.track(replace(frame, **change(frame)))
        one_line(caught)
        assert system.track(frame).state == State.OK


@pytest.mark.parametrize(
    "form",
    [
        lambda depth: depth[..., None],
        lambda depth: depth.astype(np.float64),
        lambda depth: np.asfortranarray(depth),
        lambda depth: np.repeat(depth, 2, axis=1)[:, ::2],
        lambda depth: np.frombuffer(depth.tobytes(), np.float32).reshape(depth.shape),  # read-only
    ],
)
def test_depth_in_another_form_is_the_same_depth(form):
    frames = filmed(6)
    _, trajectory = run([replace(frame, depth=form(frame.depth)) for frame in frames])
    assert np.array_equal(trajectory.poses, run(frames)[1].poses)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -1.0])
def test_no_number_in_a_depth_image_means_none(nothing):
    def holed(frame, value):
        depth = frame.depth.copy()
        depth[40:90, 100:200] = value
        return replace(frame, depth=depth)

    _, trajectory = run([holed(frame, nothing) for frame in filmed(6)])
    assert np.array_equal(trajectory.poses, run([holed(frame, 0.0) for frame in filmed(6)])[1].poses)


# -- threads and ends -------------------------------------------------------------------------------------------


def test_hundred_starts_and_stops_leave_no_thread():
    before = set(threading.enumerate())
    for k in range(100):
        with System(CAMERA, CONFIG) as system:
            if k % 10 == 0:
                for frame in filmed(2):
                    system.track(frame)
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("mode", ["deterministic", "threaded", "realtime"])
def test_closed_twice_the_results_are_still_there(mode):
    system = System(CAMERA, CONFIG, mode)
    for frame in filmed(10):
        system.track(frame)
    system.close()
    system.close()
    trajectory = system.trajectory()
    check_near(trajectory.poses, walk(10))
    assert len(trajectory) == 10 and len(system.keyframes()) and len(system.points()[0])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vslam")]


class Fault(Exception):
    pass


def break_mapping(monkeypatch, at: int) -> None:
    """The `at`-th keyframe makes mapping fail."""
    process, calls = LocalMapper.process, []

    def fail(self, request, when_new):
        calls.append(request)
        if len(calls) == at:
            raise Fault("in mapping")
        return process(self, request, when_new)

    monkeypatch.setattr(LocalMapper, "process", fail)


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("mode", ["deterministic", "threaded", "realtime"])
def test_fault_in_mapping_reaches_the_caller_and_ends_cleanly(monkeypatch, mode, at):
    break_mapping(monkeypatch, at)
    before = set(threading.enumerate())
    with pytest.raises(Fault, match="in mapping"):
        run(filmed(FRAMES), mode)
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("mode", ["deterministic", "threaded", "realtime"])
def test_after_a_fault_what_was_computed_can_be_had(monkeypatch, mode):
    break_mapping(monkeypatch, 3)
    system = System(CAMERA, CONFIG, mode)
    tracked = 0
    with pytest.raises(Fault):  # noqa: PT012 any of the frames
        for frame in filmed(FRAMES):
            system.track(frame)
            tracked += 1
    system.close()
    assert len(system.trajectory()) >= tracked > 2
    assert len(system.keyframes()) >= 2


@pytest.mark.parametrize("mode", ["deterministic", "threaded", "realtime"])
def test_fault_at_the_first_keyframe_leaves_nothing_and_no_further_fault(monkeypatch, mode):
    break_mapping(monkeypatch, 1)
    system = System(CAMERA, CONFIG, mode)
    with pytest.raises(Fault):  # noqa: PT012 any of the frames
        for frame in filmed(2):
            system.track(frame)
    with pytest.raises(Fault):  # the run is over
        system.track(filmed(3)[2])
    system.close()
    assert len(system.trajectory()) == len(system.keyframes()) == len(system.points()[0]) == 0


@pytest.mark.parametrize("ask", [System.drain, System.trajectory, System.points, System.keyframes])
def test_fault_that_nobody_has_seen_is_raised_by_whoever_asks(monkeypatch, ask):
    break_mapping(monkeypatch, 1)
    system = System(CAMERA, CONFIG)
    system.track(filmed(1)[0])
    with pytest.raises(Fault):
        ask(system)
    system.close()
    assert len(system.trajectory()) == 0


def test_fault_that_nobody_has_seen_is_raised_at_the_end_of_the_block(monkeypatch):
    break_mapping(monkeypatch, 1)
    with pytest.raises(Fault), System(CAMERA, CONFIG) as system:
        system.track(filmed(1)[0])


def test_system_left_open_is_no_obstacle():
    """Whoever forgets to close leaves a thread that waits; it must not keep others from running."""
    forgotten = System(CAMERA, CONFIG)
    forgotten.track(filmed(1)[0])
    answers, _ = run(filmed(5), "threaded")
    assert all(answer.state == State.OK for answer in answers)
    forgotten.close()
    gc.collect()
