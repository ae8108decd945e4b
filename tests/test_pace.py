"""The map of each frame: fixed by the order of frames and keyframes, whatever time mapping takes."""

import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vslam.pace import DONE_FRAMES, NEW_FRAMES, Pace


def a_map(name, epoch=0):
    return SimpleNamespace(name=name, epoch=epoch)


def play(asks: list[bool], delays: list[float]) -> list[str]:
    """Names of the maps that frames read, with a mapper that takes `delays` (of 0.1 ms) for its keyframes."""
    pace, read, jobs = Pace(2, lambda: None), [], []
    ready = threading.Condition()

    def work():
        for k, delay in enumerate(delays):
            with ready:
                while len(jobs) <= k:
                    ready.wait()
            if jobs[k] is None:
                return
            time.sleep(1e-4 * delay)
            jobs[k].new.set_result(a_map(f"new {k}"))
            time.sleep(1e-4 * delay)
            jobs[k].done.set_result(a_map(f"done {k}"))

    def tell(job):
        with ready:
            jobs.append(job)
            ready.notify()

    mapper = threading.Thread(target=work)
    mapper.start()
    tell(pace.expect())
    for asked in asks:
        pace.next_frame()
        read.append(pace.local_map(None).name)
        if asked:
            tell(pace.expect())
    tell(None)
    mapper.join()
    return read


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.data())
@settings(max_examples=20, deadline=None)
def test_what_is_read_does_not_depend_on_how_long_mapping_takes(asks, data):
    keyframes = 2 + sum(asks)
    times = st.lists(st.floats(0, 30), min_size=keyframes, max_size=keyframes)
    assert play(asks, [0.0] * keyframes) == play(asks, data.draw(times))


def test_a_keyframe_is_read_new_then_done():
    read = play([True] + [False] * DONE_FRAMES, [0.0] * 3)
    # the first keyframe is waited for; the second was asked for at the first frame, with mapping free two frames later
    start = DONE_FRAMES
    assert read[0] == "new 0" and read[start - 1] == "done 0"
    assert play([False] * 5, [0.0] * 2) == ["new 0", "new 0", "done 0", "done 0", "done 0"]
    assert NEW_FRAMES < DONE_FRAMES


def test_mapping_is_at_most_two_keyframes_behind():
    read = play([True] * 12, [0.0] * 14)
    behind = [frame - int(name.split()[1]) for frame, name in enumerate(read)]
    assert max(behind) <= 2


def test_a_correction_of_the_whole_map_is_read_at_once_and_stays():
    pace = Pace(2, lambda: None)
    mapped = pace.expect()
    mapped.new.set_result(a_map("new"))
    pace.next_frame()
    assert pace.local_map(None).name == "new"
    assert pace.local_map(a_map("corrected", epoch=1)).name == "corrected"
    mapped.done.set_result(a_map("done, before the correction"))
    for _ in range(DONE_FRAMES):
        pace.next_frame()
        assert pace.local_map(None).name == "corrected"


def test_found_elsewhere_forgets_what_was_to_come():
    pace = Pace(2, lambda: None)
    pace.expect()  # never mapped
    pace.turn_to(a_map("elsewhere"))
    for _ in range(10):
        pace.next_frame()
        assert pace.local_map(None).name == "elsewhere"


def test_a_mapper_that_failed_is_not_waited_for():
    def fail():
        raise OSError("mapping is over")

    pace = Pace(2, fail)
    mapped = pace.expect()
    assert isinstance(mapped.new, Future) and not mapped.new.done()
    pace.next_frame()
    with pytest.raises(OSError, match="mapping is over"):
        pace.local_map(None)
