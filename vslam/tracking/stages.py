"""Where the time of one frame goes."""

from __future__ import annotations

import time


class StageClock:
    """Names the stages of a frame as they end; wall time of each, CPU time of the thread for the whole."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._began = self._last = time.perf_counter()
        self._cpu = time.thread_time()

    def mark(self, stage: str) -> None:
        """The stage of this name has just ended."""
        now = time.perf_counter()
        self.ms[stage] = self.ms.get(stage, 0.0) + 1e3 * (now - self._last)
        self._last = now

    def total(self) -> tuple[float, float]:
        """Milliseconds since the start: wall, CPU of this thread."""
        return 1e3 * (time.perf_counter() - self._began), 1e3 * (time.thread_time() - self._cpu)
