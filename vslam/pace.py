"""Which map the tracker reads at which frame: the same from run to run, however fast the threads happen to be.

Mapping runs beside tracking, and its map would come a frame earlier on one day than on another, which changes all that
follows. So a map is read when mapping may be expected to have it, and waited for if need be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from vslam.types import LocalMap

NEW_FRAMES = 1  # after a keyframe was asked for, its points are in the map
DONE_FRAMES = 3  # and the map around it has been adjusted
POLL_S = 0.05


class Mapped(NamedTuple):
    """The maps that come of one keyframe."""

    new: Future[LocalMap]
    done: Future[LocalMap]


class Pace:
    """The tracker's map, frame by frame.

    Args:
        max_waiting: keyframes that mapping may be behind.
        check: raises if mapping has failed, so that nobody waits for it.
    """

    def __init__(self, max_waiting: int, check: Callable[[], None]):
        self._check, self._most = check, 2 * max_waiting
        self._frame, self._free_at = 0, 0
        self._due: deque[tuple[int, Future[LocalMap]]] = deque()
        self._map: LocalMap | None = None

    def expect(self) -> Mapped:
        """A keyframe has been asked for: what mapping shall give."""
        begin = max(self._frame, self._free_at)
        self._free_at = begin + DONE_FRAMES
        mapped = Mapped(Future(), Future())
        self._due += [(begin + NEW_FRAMES, mapped.new), (self._free_at, mapped.done)]
        return mapped

    def next_frame(self) -> None:
        """Another frame has come."""
        self._frame += 1

    def local_map(self, newest: LocalMap | None) -> LocalMap | None:
        """The map for this frame. `newest` is what there is: it replaces one from before a correction of the whole."""
        while self._due and (self._map is None or self._due[0][0] <= self._frame or len(self._due) > self._most):
            ready = self._wait(self._due.popleft()[1])
            if self._map is None or ready.epoch >= self._map.epoch:
                self._map = ready
        if newest is not None and (self._map is None or newest.epoch > self._map.epoch):
            self._map = newest
        return self._map

    def turn_to(self, local_map: LocalMap | None) -> None:
        """The camera was found elsewhere; what is still to come is of where it was."""
        self._map = local_map
        self._due.clear()

    def _wait(self, future: Future[LocalMap]) -> LocalMap:
        while True:
            try:
                return future.result(POLL_S)
            except TimeoutError:
                self._check()
