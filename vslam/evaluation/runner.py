"""Running the system over a recorded sequence, and keeping what it says of every frame."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vslam.config import Config, to_dict
from vslam.datasets import Dataset
from vslam.datasets.prefetch import Clocked, Prefetch
from vslam.errors import FrameError, VslamError
from vslam.evaluation.colmap import keyframe_images
from vslam.evaluation.results import RunRecord
from vslam.mapping.archive import StoredMap, save_map
from vslam.system import Mode, System
from vslam.types import RawFrame, State, Tracked

log = logging.getLogger(__name__)

OnFrame = Callable[[Tracked, tuple[int, int]], None]
"""Called after each frame with its answer and the map's size (keyframes, points)."""


class SequenceRun:
    """One run over frames `start` to `start + max_frames` of a dataset. `record()` works at any time.

    Modes: `threaded` as fast as possible with mapping in a thread; `deterministic` mapping between frames; `realtime`
    threaded, frames come at their recorded rate and are dropped while tracking is busy. `stored` and `localize` are
    those of `System`. Use it in a `with` block.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        mode: Mode = "threaded",
        start: int = 0,
        max_frames: int | None = None,
        layout: str = "",
        stored: StoredMap | None = None,
        localize: bool = False,
    ):
        self._indices = chosen_frames(dataset, start, max_frames)
        self._dataset, self._config, self._mode, self._layout = dataset, config, mode, layout
        self._system = System(dataset.camera, config, mode, stored, localize)
        self._images = stored.images if stored is not None else {}
        self._answers: dict[int, Tracked] = {}
        self._wall = self._cpu = 0.0
        self._ended = False

    def __len__(self) -> int:
        return len(self._indices)

    def __enter__(self) -> SequenceRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._system.close()

    def run(self, on_frame: OnFrame | None = None) -> None:
        """Track all frames. An exception, Ctrl-C included, ends the run; `record()` then has what came before.

        A fault of mapping is raised here even where something else has ended the run.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            for index, frame in self._frames():
                self._answers[index] = answer = self._track(index, frame)
                if on_frame is not None:
                    on_frame(answer, self._system.map_size)
            self._system.drain()
            self._ended = True
        finally:
            try:
                self._system.drain()
            finally:
                self._system.close()
                self._wall, self._cpu = time.perf_counter() - wall, time.process_time() - cpu

    def record(self) -> RunRecord:
        """All that is known of the run so far."""
        system, dataset = self._system, self._dataset
        xyz, rgb = system.points()
        return RunRecord(
            dataset=self._layout or type(dataset).__name__,
            sequence=dataset.name,
            extractor=self._config.extractor.name,
            camera=dataset.camera,
            frames=tuple(self._all_answers()),
            final=system.trajectory(),
            keyframes=system.keyframes(),
            points_xyz=xyz,
            points_rgb=rgb,
            truth=dataset.truth,
            config=to_dict(self._config),
            wall_s=self._wall,
            cpu_s=self._cpu,
            peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            map_mb=system.map_bytes / 2**20,
            mapping_ms=system.mapping_ms,
            audit=system.audit,
            loops=system.loops,
            loop_cpu_s=system.loop_cpu_s,
            interrupted=not self._ended,
        )

    def save_map(self, file: Path) -> None:
        """Keep the map with the names of its keyframes' images."""
        images = keyframe_images(self._system.map, self._dataset, self._system.first_keyframe)
        save_map(file, self._system.stored(self._images | images, {"sequence": self._dataset.name}))

    def _frames(self) -> Iterator[tuple[int, RawFrame | FrameError]]:
        source = Clocked if self._mode == "realtime" else Prefetch
        with source(self._dataset, self._indices) as frames:
            yield from frames

    def _track(self, index: int, frame: RawFrame | FrameError) -> Tracked:
        if isinstance(frame, FrameError):
            log.warning("%s; frame skipped", frame)
            return Tracked(float(self._dataset.timestamps[index]), State.UNREADABLE)
        return self._system.track(frame)

    def _all_answers(self) -> Iterator[Tracked]:
        """Every frame up to the last one answered; those never given to the tracker were dropped."""
        last = self._indices[-1] if self._ended else max(self._answers, default=-1)
        for index in self._indices:
            if index > last:
                return
            known = self._answers.get(index)
            yield known or Tracked(float(self._dataset.timestamps[index]), State.DROPPED)


def chosen_frames(dataset: Dataset, start: int, max_frames: int | None) -> range:
    """Frames `start` to `start + max_frames` of a dataset.

    Raises:
        VslamError: there are none.
    """
    if max_frames == 0:
        raise VslamError("--max-frames 0 leaves nothing to run; give the number of frames, or leave it out for all")
    if start >= len(dataset):
        raise VslamError(f"--start {start} is beyond the {len(dataset)} frames of {dataset.name}; give a smaller one")
    return range(start, len(dataset) if max_frames is None else min(len(dataset), start + max_frames))
