"""Workers: order, answers, faults, with and without a thread."""

import threading

import pytest

from vslam.worker import Worker

BOTH = pytest.mark.parametrize("threaded", [True, False])


@BOTH
def test_calls_are_done_in_order(threaded):
    worker, done = Worker("test", threaded), []
    for k in range(20):
        worker.do(lambda k=k: done.append(k))
    worker.drain()
    assert done == list(range(20))
    worker.close()


def test_without_a_thread_nothing_is_done_before_its_turn():
    worker, done = Worker("test", threaded=False), []
    worker.do(lambda: done.append(1))
    assert done == []
    worker.run_waiting()
    assert done == [1]


@BOTH
def test_answers_come_back_and_so_do_exceptions(threaded):
    worker = Worker("test", threaded)
    assert worker.ask(lambda: 7) == 7
    with pytest.raises(KeyError):
        worker.ask(lambda: {}["no"])
    assert worker.fault is None and worker.ask(lambda: 8) == 8
    worker.close()


def test_answers_wait_for_the_calls_before_them():
    worker, go, done = Worker("test", threaded=True), threading.Event(), []
    worker.do(lambda: (go.wait(), done.append(1)))
    threading.Timer(0.05, go.set).start()
    assert worker.ask(lambda: list(done)) == [1]
    worker.close()


@BOTH
def test_fault_is_kept_and_ends_the_work(threaded):
    worker, done = Worker("test", threaded), []
    worker.do(lambda: 1 / 0)
    worker.do(lambda: done.append(1))
    worker.drain()
    assert isinstance(worker.fault, ZeroDivisionError)
    worker.close()
    assert done == []


def test_hold_waits_for_all_but_the_allowed():
    worker, go = Worker("test", threaded=True), threading.Event()
    worker.do(go.wait)
    worker.hold(1)
    threading.Timer(0.05, go.set).start()
    worker.hold(0)
    assert go.is_set()
    worker.close()
    worker.close()
