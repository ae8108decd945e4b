"""Compiling the kernels before the first frame, with a bar that says so; an instant where the cache has them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from vslam.config import Config, MappingConfig, PlaceConfig, TrackingConfig
from vslam.system import System
from vslam.types import Camera, RawFrame

KERNELS = 70  # compiled on a first run; only the bar's length depends on it


def warm_up(config: Config, quiet: bool = False) -> None:
    """Compile every kernel that a run with `config` needs, by running a tiny one.

    A first run of the package takes some seconds here; afterwards the kernels come from the cache.
    """
    with _progress(quiet or _is_warm()):
        camera = Camera(200.0, 200.0, 99.5, 79.5, 200, 160)
        tracking = TrackingConfig(min_matches=6, min_inliers=6, keyframe_ratio=2.0, keyframe_min_gap=1)
        mapping, none = MappingConfig(optimizer=config.mapping.optimizer), PlaceConfig("none")  # no kernels in networks
        small = replace(config, tracking=tracking, mapping=mapping, place=none)
        with System(camera, small, mode="deterministic") as system:
            for frame in _frames(camera):
                system.track(frame)


def _frames(camera: Camera) -> Iterator[RawFrame]:
    """A textured wall that slides by, then black, then the wall again: every branch that has a kernel."""
    rng = np.random.default_rng(0)
    wall = np.kron(rng.integers(0, 255, (40, 60), np.uint8), np.ones((8, 8), np.uint8))
    depth = np.full((camera.height, camera.width), 2.0, np.float32)
    depth[:, ::7] = 0.0
    for i in range(6):
        yield RawFrame(i / 30, np.ascontiguousarray(wall[i : i + camera.height, 2 * i : 2 * i + camera.width]), depth)
    yield RawFrame(0.25, np.zeros((camera.height, camera.width), np.uint8), depth)
    yield RawFrame(0.3, np.ascontiguousarray(wall[8 : 8 + camera.height, 9 : 9 + camera.width]), depth)


def _is_warm() -> bool:
    import numba

    return sum(1 for _ in Path(numba.config.CACHE_DIR).rglob("*.nbi")) >= KERNELS // 2


@contextmanager
def _progress(quiet: bool) -> Iterator[None]:
    from numba.core import event
    from tqdm import tqdm

    if quiet:
        yield
        return
    often = 0.1 if sys.stderr.isatty() else 5.0  # seconds; a log needs few lines
    with tqdm(
        total=KERNELS, desc="Compiling kernels (first run only)", unit="kernel", leave=False, mininterval=often
    ) as bar:

        class Count(event.Listener):
            def on_start(self, _: event.Event) -> None:
                pass

            def on_end(self, compiled: event.Event) -> None:
                if compiled.data["dispatcher"].py_func.__module__.startswith("vslam."):  # not numba's own helpers
                    bar.update(min(1, bar.total - bar.n))

        with event.install_listener("numba:compile", Count()):
            yield
