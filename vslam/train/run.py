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
import torch
import torch.distributed as dist

from vslam.errors import VslamError
from vslam.train.data.pack import Pack, open_packs
from vslam.train.data.pairs import PairSampler
from vslam.train.evaluate import fixed_pairs, score_network
from vslam.train.loop import Progress, Trainer
from vslam.train.settings import TrainConfig

log = logging.getLogger(__name__)

VALIDATION_PAIRS = 60


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
            loss=f"{progress.parts['loss']:.2f}", right=f"{progress.parts['right']:.2f}", refresh=False
        )


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def train(config: TrainConfig, folder: Path, quiet: bool = False, start_from: Path | None = None) -> Trainer:
    """Train, or go on training, in `folder`; under `torchrun` on every process it started.

    Raises:
        VslamError: no data, wrong checkpoint, no such device, disk full.
    """
    rank, world = join_processes(config)
    cv2.setNumThreads(1)
    packs = open_packs(Path(config.packs))
    check_device(config.device)
    trainer = Trainer(config, make_sampler(packs, config), folder, rank, world)
    if not trainer.resume() and start_from is not None:
        trainer.start_from(start_from)
    journal = Journal(folder, quiet=quiet or rank > 0)
    if rank == 0:
        (folder / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
    trainer.run(journal.step, make_validation(config, journal))
    if world > 1:
        dist.destroy_process_group()
    return trainer


def make_sampler(packs: list[Pack], config: TrainConfig) -> PairSampler:
    """Pairs with all that the chosen losses need."""
    return PairSampler(packs, replace(config.pairs, cells=config.losses.hinge_dense > 0))


def make_validation(config: TrainConfig, journal: Journal):
    """A function that scores a network on the validation packs, or does nothing when there are none."""
    if not config.validation:
        return lambda network, step: None
    pairs = fixed_pairs(PairSampler(open_packs(Path(config.validation)), config.pairs), VALIDATION_PAIRS)

    def validate(network, step: int) -> None:
        for name, binary in (("float", False), ("bits", True)):
            journal.write(f"validation {name}", step, asdict(score_network(network, pairs, binary)))

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
