"""One training run: opens the data, logs, validates, shows progress, exports at the end."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.distributed as dist

from vslam.errors import VslamError
from vslam.train.data import shapes
from vslam.train.data.pack import Pack, open_packs
from vslam.train.data.pairing import with_pairs
from vslam.train.data.pairs import PairSampler
from vslam.train.evaluate import fixed_pairs, score_corners, score_network
from vslam.train.loop import Progress, Trainer
from vslam.train.release import checkpoint_file
from vslam.train.settings import TrainConfig
from vslam.train.shipped import exported_network, measure_norms

log = logging.getLogger(__name__)

VALIDATION_PAIRS = 60
VALIDATION_SHAPES = 100
START_PAIRS = 24
"""Pairs whose views tell the statistics of layers whose norms were folded away."""


class Journal:
    """Mean losses every `every` steps: to `log.jsonl`, to TensorBoard where installed, and to the progress bar."""

    def __init__(self, folder: Path, every: int = 50, quiet: bool = False):
        self._every, self._sums, self._seconds = every, defaultdict(float), 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "log.jsonl"
        self._board = _tensorboard(folder)
        self._bar, self._quiet = None, quiet

    def step(self, progress: Progress) -> None:
        """Count one step in."""
        for name, value in progress.parts.items():
            self._sums[name] += value / self._every
        self._seconds += progress.seconds_a_step / self._every
        self._show(progress)
        if progress.step % self._every == 0:
            means = {name: round(value, 4) for name, value in self._sums.items()}
            self.write(
                "train", progress.step, means | {"rate": progress.rate, "seconds_a_step": round(self._seconds, 4)}
            )
            self._sums.clear()
            self._seconds = 0.0

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """One line of the log."""
        line = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "kind": kind, "step": step} | values
        with open(self._file, "a") as file:
            file.write(json.dumps(line) + "\n")
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def _show(self, progress: Progress) -> None:
        if self._quiet:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=progress.steps, initial=progress.step - 1, unit="step", mininterval=1.0)
        self._bar.update(1)
        self._bar.set_postfix(
            {k: f"{progress.parts[k]:.2f}" for k in ("loss", "right") if k in progress.parts}, refresh=False
        )


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def train(config: TrainConfig, folder: Path, quiet: bool = False, start_from: Path | None = None) -> Trainer:
    """Train, or go on training, in `folder`; under `torchrun` on every process it started. `start_from`: a checkpoint,
    an exported ONNX file, or the name of a shipped network.

    Raises:
        VslamError: no data, wrong checkpoint, no such device, disk full.
    """
    rank, world = join_processes(config)
    cv2.setNumThreads(1)
    packs = training_packs(config)
    check_device(config.device)
    trainer = Trainer(config, make_sampler(packs, config), folder, rank, world)
    if not trainer.resume() and start_from is not None:
        start(trainer, start_from)
    journal = Journal(folder, quiet=quiet or rank > 0)
    if rank == 0:
        (folder / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
    trainer.run(journal.step, make_validation(config, journal))
    if world > 1:
        dist.destroy_process_group()
    return trainer


def start(trainer: Trainer, source: Path) -> None:
    """Begin with weights that are there already.

    Raises:
        VslamError: not there, or of another network.
    """
    if source.is_dir() or source.suffix == ".pt":
        trainer.start_from(checkpoint_file(source))
        return
    network = exported_network(source, trainer.config.network)
    views = trainer.sampler.batch(trainer.config.seed, 0, START_PAIRS)["images"]
    measure_norms(network, torch.from_numpy(views.reshape(-1, 1, *views.shape[2:])).float() / 255)
    trainer.start_with(network)


def training_packs(config: TrainConfig) -> list[Pack]:
    """The packs of a run, with its labels; none where all pairs are of drawn shapes."""
    if config.pairs.shapes >= 1:
        return []
    packs = open_packs(Path(config.packs), Path(config.labels) if config.labels else None)
    return [with_pairs(pack, Path(config.pair_files)) for pack in packs] if config.pair_files else packs


def make_sampler(packs: list[Pack], config: TrainConfig) -> PairSampler:
    """Pairs with all that the chosen losses need."""
    return PairSampler(packs, replace(config.pairs, cells=config.losses.hinge_dense > 0))


def make_validation(config: TrainConfig, journal: Journal):
    """A function that scores a network on the validation packs (the higher the better), or on drawn shapes where it
    learns from shapes alone; it gives None when there is nothing to score by."""
    if config.pairs.shapes >= 1:
        return shape_validation(journal)
    if not config.validation:
        return lambda network, step: None
    pairs = fixed_pairs(PairSampler(open_packs(Path(config.validation)), config.pairs), VALIDATION_PAIRS)

    def validate(network, step: int) -> float:
        merits = []
        for name, binary in (("float", False), ("bits", True)):
            scores = score_network(network, pairs, binary)
            journal.write(f"validation {name}", step, asdict(scores))
            merits.append((scores.repeatability + scores.precision) / 2)
        return sum(merits) / len(merits)

    return validate


def shape_validation(journal: Journal):
    """A function that scores a detector on drawn shapes that no training run draws."""
    drawings = [shapes.draw(np.random.default_rng((VALIDATION_SHAPES, k))) for k in range(VALIDATION_SHAPES)]

    def validate(network, step: int) -> float:
        scores = score_corners(network, drawings)
        journal.write("validation shapes", step, asdict(scores))
        return scores.average_precision

    return validate


def join_processes(config: TrainConfig) -> tuple[int, int]:
    """Rank and number of processes; joins them when `torchrun` started several."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1
    dist.init_process_group("nccl" if config.device.startswith("cuda") else "gloo")
    return dist.get_rank(), world


def check_device(device: str) -> None:
    """VslamError when PyTorch cannot use the device."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise VslamError(f"device: '{device}' cannot be used ({str(error).splitlines()[0]}); set device: cpu") from None
