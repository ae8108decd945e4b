"""One line of work: calls done one after the other, in a thread of their own or, without one, when asked to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """Does calls in the order in which they come. The first one that fails ends the work: `fault` keeps its exception,
    later calls are dropped.

    Args:
        name: of the thread.
        threaded: False to do the calls only in `run_waiting` and `drain`, in the caller's thread.
    """

    def __init__(self, name: str, threaded: bool):
        self.fault: BaseException | None = None
        self._calls: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition()
        self._waiting = 0  # calls given to `do` that are not done
        self._is_ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True) if threaded else None
        if self._thread is not None:
            self._thread.start()

    def do(self, call: Callable[[], object]) -> None:
        """Do `call` later."""
        with self._changed:
            self._waiting += 1
        self._put(lambda: self._perform(call))

    def ask(self, call: Callable[[], T]) -> T:
        """The result of `call`, done between two others; what it raises is raised here."""
        if self._thread is None or threading.current_thread() is self._thread or not self._thread.is_alive():
            return call()
        answer: Future[T] = Future()
        self._put(lambda: _answer(answer, call))
        return answer.result()

    def hold(self, allowed: int) -> None:
        """Wait until at most `allowed` calls are not done."""
        with self._changed:
            while self._thread is not None and self.fault is None and self._waiting > allowed:
                self._changed.wait()

    def run_waiting(self) -> None:
        """Without a thread: do what waits, now."""
        while self._thread is None and self._calls:
            self._calls.popleft()()

    def drain(self) -> None:
        """Wait until all is done."""
        self.run_waiting()
        self.hold(0)

    def close(self) -> None:
        """Do what waits, then end the thread. Safe to call twice."""
        self.run_waiting()
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _put(self, call: Callable[[], object]) -> None:
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._calls and not self._is_ended:
                    self._changed.wait()
                if not self._calls:
                    return
                call = self._calls.popleft()
            call()

    def _perform(self, call: Callable[[], object]) -> None:
        try:
            if self.fault is None:
                call()
        except BaseException as fault:  # handed to whoever owns the worker, who raises it
            self.fault = fault
        finally:
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()


def _answer(answer: Future, call: Callable[[], object]) -> None:
    try:
        answer.set_result(call())
    except BaseException as fault:  # raised where the question came from
        answer.set_exception(fault)
