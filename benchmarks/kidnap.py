"""Kidnapped cameras: how often and how soon is a lost camera found again in a map of the place, and is it right?

    python -m benchmarks.kidnap FOLDER --map-until FRAME [--trials 40] [--seed 1] [--set KEY=VALUE]

A map is made of the frames before FRAME. Then, again and again, the camera goes blind for a second and comes back at a
random later frame that `info.json` lists as a revisit, and goes on from there for a second; the map is not changed. A
trial succeeds when there is a pose within that second; a pose is wrong beyond 0.10 m or 5 degrees.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.loops import BAD_POSE_DEG, BAD_POSE_M, pose_difference, true_pose
from vslam.config import load_config
from vslam.datasets import open_dataset
from vslam.geometry import se3
from vslam.system import System
from vslam.types import State
from vslam.warmup import warm_up

WITHIN_S = 1.0
BLIND_S = 1.0


def main() -> None:
    options = _options()
    dataset = open_dataset("tum", options.folder)
    config = load_config(None, options.set)
    warm_up(config, quiet=True)
    with System(dataset.camera, config, "deterministic") as system:
        answers = [system.track(dataset.load(index)) for index in range(options.map_until)]
        stored = system.stored()
    start = answers[0].timestamp
    origin = true_pose(dataset.truth, dataset.timestamps[0])
    info = json.loads((options.folder / "info.json").read_text())
    seen = np.unique(np.array([j for i, j in info["revisits"] if i < options.map_until <= j]))
    seen = seen[seen + round(WITHIN_S * dataset.camera.fps) < len(dataset)]
    places = np.random.default_rng(options.seed).choice(seen, options.trials, replace=len(seen) < options.trials)
    times, worst, wrong = [], [], 0
    with System(dataset.camera, config, "deterministic", stored, localize=True) as system:
        clock = start + 1e6
        for place in places.tolist():
            clock, found, errors = trial(system, dataset, place, clock, origin)
            times.append(found)
            if errors:
                worst.append(max(shift for shift, _ in errors))
                wrong += any(shift > BAD_POSE_M or turn > BAD_POSE_DEG for shift, turn in errors)
            text = "lost" if found is None else f"after {found:.2f} s, at most {100 * worst[-1]:.1f} cm off"
            print(f"frame {place}: {text}", flush=True)
    good = [t for t in times if t is not None]
    print(
        f"{options.folder.name}: {len(good)} of {len(times)} found within {WITHIN_S:g} s, median "
        f"{np.median(good) if good else float('nan'):.2f} s; {wrong} with a wrong pose; median of the largest errors "
        f"{100 * np.median(worst) if worst else float('nan'):.1f} cm"
    )


def trial(system, dataset, place: int, clock: float, origin: np.ndarray):
    """Blind, then from frame `place` on: the clock after it, the seconds until a pose or None, and all errors."""
    step = 1.0 / dataset.camera.fps
    first = dataset.load(place)
    blind = replace(first, image=np.zeros_like(first.image), depth=None)
    for _ in range(round(BLIND_S / step)):
        clock += step
        system.track(replace(blind, timestamp=clock))
    found, errors = None, []
    for k in range(round(WITHIN_S / step)):
        clock += step
        answer = system.track(replace(dataset.load(place + k), timestamp=clock))
        if answer.state in (State.OK, State.WEAK):
            found = k * step if found is None else found
            true = se3.inverse(origin) @ true_pose(dataset.truth, dataset.timestamps[place + k])
            errors.append(pose_difference(true, answer.T_world_camera))
    return clock, found, errors


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--map-until", type=int, required=True)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="extend", nargs="+", default=[])
    return parser.parse_args()


if __name__ == "__main__":
    main()
