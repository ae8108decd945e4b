"""Decoding ahead in threads (OpenCV releases the GIL), and frames that arrive on a clock as from a camera."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from vslam.datasets.dataset import Dataset
from vslam.errors import FrameError
from vslam.types import RawFrame

Loaded = tuple[int, RawFrame | FrameError]


class _Decoder:
    """A pool of decode threads that ends with `close`, with the `with` block, or with the last reference."""

    def __init__(self, dataset: Dataset, workers: int):
        self._load = dataset.load
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="vslam-decode")

    def start(self, index: int) -> Future:
        return self._pool.submit(_load_or_error, self._load, index)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if hasattr(self, "_pool"):
            self._pool.shutdown(wait=False, cancel_futures=True)


def _load_or_error(load: Callable[[int], RawFrame], index: int) -> RawFrame | FrameError:
    try:
        return load(index)
    except FrameError as error:
        return error


class Prefetch(_Decoder):
    """See `prefetch`."""

    def __init__(self, dataset: Dataset, indices: Iterable[int], workers: int = 1, depth: int = 4):
        super().__init__(dataset, workers)
        self._indices = iter(indices)
        self._depth = max(depth, 1)
        self._started: deque[tuple[int, Future]] = deque()

    def __iter__(self) -> Prefetch:
        return self

    def __next__(self) -> Loaded:
        try:
            self._fill()
            if not self._started:
                raise StopIteration
            index, future = self._started.popleft()
            self._fill()  # so that the next ones decode while the caller works on this one
            return index, future.result()
        except BaseException:
            self.close()
            raise

    def _fill(self) -> None:
        while len(self._started) < self._depth:
            index = next(self._indices, None)
            if index is None:
                return
            self._started.append((index, self.start(index)))

    def close(self) -> None:
        """End the decode threads; what is being decoded is waited for."""
        self._indices = iter(())
        self._started.clear()
        super().close()


def prefetch(dataset: Dataset, indices: Iterable[int], workers: int = 1, depth: int = 4) -> Prefetch:
    """Iterate over `(index, RawFrame | FrameError)` in the order of `indices`, decoding up to `depth` frames ahead.

    A frame that cannot be read comes as its error; any other exception of `dataset.load` is raised here. The threads
    end when the iteration does. Use it in a `with` block where the loop may stop early:

        with prefetch(dataset, range(len(dataset))) as frames:
            for index, frame in frames: ...
    """
    return Prefetch(dataset, indices, workers, depth)


class Clocked(_Decoder):
    """Frames at their recorded rate, as from a camera whose driver holds one frame: the newest.

    Iterating gives `(index, RawFrame | FrameError)`. Asked early, it waits for the next frame's time. Asked late, it
    gives the newest frame that arrived meanwhile; those before it that nobody took are in `dropped`. Decoding is done
    ahead and is not part of the play: where a frame is not decoded yet, the clock stands still until it is.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Sequence[int],
        workers: int = 1,
        depth: int = 4,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        super().__init__(dataset, workers)
        self._indices = list(indices)
        self._times = [float(dataset.timestamps[index]) for index in self._indices]
        self._depth = max(depth, 1)
        self._clock, self._sleep = clock, sleep
        self._next = 0  # position of the first frame not yet given or dropped
        self._offset: float | None = None  # clock minus recorded time, from the first frame on
        self._started: dict[int, Future] = {}
        self.dropped: list[int] = []

    def __iter__(self) -> Clocked:
        return self

    def __next__(self) -> Loaded:
        try:
            if self._next >= len(self._indices):
                raise StopIteration
            asked = self._clock()
            position = self._newest(asked)
            self._drop_until(position)
            frame = self._decoded(position)
            self._wait_for(position, asked)
            self._next = position + 1
            return self._indices[position], frame
        except BaseException:
            self.close()
            raise

    def _newest(self, now: float) -> int:
        """The last frame that has arrived, or the next one if none has."""
        position = self._next
        if self._offset is None:
            return position
        while position + 1 < len(self._times) and self._times[position + 1] + self._offset <= now:
            position += 1
        return position

    def _drop_until(self, position: int) -> None:
        self.dropped += self._indices[self._next : position]
        for skipped in [old for old in self._started if old < position]:
            self._started.pop(skipped).cancel()

    def _decoded(self, position: int) -> RawFrame | FrameError:
        for ahead in range(position, min(position + 1 + self._depth, len(self._indices))):
            if ahead not in self._started:
                self._started[ahead] = self.start(self._indices[ahead])
        if self._offset is None:  # begin with a full queue
            for future in self._started.values():
                future.exception()
        return self._started.pop(position).result()

    def _wait_for(self, position: int, asked: float) -> None:
        now = self._clock()
        if self._offset is None:
            self._offset = now - self._times[position]
        due = max(self._times[position] + self._offset, asked)
        if now < due:
            self._sleep(due - now)
        else:
            self._offset += now - due  # it was decoding that was late, not the caller

    def close(self) -> None:
        """End the decode threads; what is being decoded is waited for."""
        self._next = len(self._indices)
        self._started.clear()
        super().close()
