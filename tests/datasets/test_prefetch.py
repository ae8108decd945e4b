"""Decoding ahead and frames on a clock: order, errors, threads, time."""

import gc
import threading
import time

import numpy as np
import pytest

from vslam.datasets.prefetch import Clocked, prefetch
from vslam.errors import FrameError
from vslam.types import RawFrame

IMAGE = np.zeros((2, 2), np.uint8)


class Film:
    """A sequence without files: 10 Hz, some frames broken; it counts how many were decoded."""

    def __init__(self, frames=20, broken=(), fatal=()):
        self.name, self.camera, self.truth = "film", None, None
        self.timestamps = 50 + np.arange(frames) * 0.1
        self.broken, self.fatal, self.decoded = set(broken), set(fatal), []

    def __len__(self):
        return len(self.timestamps)

    def load(self, index):
        time.sleep(0.001 * (index % 3))  # so that threads finish out of order
        self.decoded.append(index)
        if index in self.broken:
            raise FrameError(f"frame {index} is broken")
        if index in self.fatal:
            raise MemoryError(index)
        return RawFrame(float(self.timestamps[index]), IMAGE)


def decode_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("vslam-decode")]


@pytest.fixture(autouse=True)
def no_thread_left():
    yield
    gc.collect()
    deadline = time.monotonic() + 5
    while decode_threads() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not decode_threads()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("depth", [0, 1, 4, 50])
def test_frames_come_in_order_whatever_the_threads(workers, depth):
    film, wanted = Film(), [3, 1, 4, 15, 9, 2, 6, 5]
    got = list(prefetch(film, wanted, workers, depth))
    assert [index for index, _ in got] == wanted
    assert [frame.timestamp for _, frame in got] == [film.timestamps[index] for index in wanted]
    assert not decode_threads()


def test_nothing_to_do_ends_at_once():
    assert list(prefetch(Film(), [])) == []


def test_broken_frames_come_as_errors_in_their_place():
    got = list(prefetch(Film(broken=(2, 5)), range(8), workers=2))
    assert [index for index, frame in got if isinstance(frame, FrameError)] == [2, 5] and len(got) == 8


def test_other_exceptions_reach_the_caller_and_end_the_threads():
    frames = prefetch(Film(fatal=(3,)), range(8))
    with pytest.raises(MemoryError):
        list(frames)
    assert not decode_threads()
    with pytest.raises(StopIteration):
        next(frames)


def test_no_more_is_decoded_than_the_queue_holds():
    film = Film(frames=200)
    with prefetch(film, range(200), depth=4) as frames:
        for _ in range(3):
            next(frames)
        time.sleep(0.05)
        assert len(film.decoded) <= 3 + 4
    assert len(film.decoded) <= 3 + 4 and not decode_threads()


def test_stopping_early_ends_the_threads():
    with prefetch(Film(), range(20)) as frames:
        for index, _ in frames:
            if index == 2:
                break
    assert not decode_threads()
    for index, _ in prefetch(Film(), range(20), workers=2):  # without a with block, when the last reference goes
        if index == 2:
            break


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_fault_of_the_caller_ends_the_threads(fault):
    with pytest.raises(fault), prefetch(Film(), range(20)) as frames:  # noqa: PT012
        for _ in frames:
            raise fault
    assert not decode_threads()


def test_a_hundred_starts_and_stops_leave_nothing():
    for k in range(100):
        with prefetch(Film(), range(20), workers=1 + k % 2) as frames:
            next(frames)
    assert not decode_threads()


class Clock:
    """Time that passes only when someone sleeps."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


def played(film, indices, busy):
    """Indices and arrival times when frame `index` keeps the caller busy for `busy(index)` seconds; the rest."""
    clock = Clock()
    camera = Clocked(film, indices, clock=clock, sleep=clock.sleep)
    got = []
    for index, _ in camera:
        got.append((index, clock.now - 1000.0))
        clock.sleep(busy(index) + 1e-9)
    return got, camera


def test_a_fast_caller_gets_every_frame_at_its_time():
    got, camera = played(Film(), range(20), lambda index: 0.03)
    assert [index for index, _ in got] == list(range(20)) and camera.dropped == []
    np.testing.assert_allclose([when for _, when in got], np.arange(20) * 0.1, atol=1e-6)


def test_frames_that_come_while_the_caller_is_busy_are_dropped_but_the_newest():
    got, camera = played(Film(), range(20), lambda index: 0.35 if index == 5 else 0.01)
    assert camera.dropped == [6, 7]  # frames 6, 7 and 8 came during the 0.35 s after frame 5
    assert [index for index, _ in got] == [*range(6), *range(8, 20)]
    assert dict(got)[8] == pytest.approx(0.85, abs=1e-6)  # at once
    assert dict(got)[9] == pytest.approx(0.9, abs=1e-6)  # then in time again


def test_a_slow_caller_gets_what_it_can_take():
    got, camera = played(Film(), range(20), lambda index: 0.199)
    assert sorted([index for index, _ in got] + camera.dropped) == list(range(20))
    assert len(camera.dropped) == pytest.approx(10, abs=2)


def test_the_end_may_be_late():
    got, camera = played(Film(), range(20), lambda index: 100.0 if index == 3 else 0.01)
    assert [index for index, _ in got] == [0, 1, 2, 3, 19] and camera.dropped == list(range(4, 19))


def test_part_of_a_sequence_begins_at_once():
    got, _ = played(Film(), [7, 9, 11], lambda index: 0.01)
    np.testing.assert_allclose([when for _, when in got], [0, 0.2, 0.4], atol=1e-6)


def test_decoding_that_takes_long_drops_nothing():
    clock = Clock()

    class Slow(Film):
        def load(self, index):
            clock.now += 0.25  # a decoder slower than the camera
            return super().load(index)

    camera = Clocked(Slow(), range(20), depth=1, clock=clock, sleep=clock.sleep)
    assert len([index for index, _ in camera]) + len(camera.dropped) == 20
    assert next(iter([index for index, _ in Clocked(Film(), [0])])) == 0


def test_clocked_errors_and_stops_leave_no_thread():
    clock = Clock()
    got = list(Clocked(Film(broken=(1,)), range(4), clock=clock, sleep=clock.sleep))
    assert [isinstance(frame, FrameError) for _, frame in got] == [False, True, False, False]
    with pytest.raises(MemoryError):
        list(Clocked(Film(fatal=(2,)), range(4), clock=clock, sleep=clock.sleep))
    with Clocked(Film(), range(20), clock=clock, sleep=clock.sleep) as frames:
        next(frames)
    assert not decode_threads()
