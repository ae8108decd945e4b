"""The training loop: resumable at any step, deterministic by seed, on one process or several."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vslam.errors import VslamError
from vslam.train.data.pairs import PairSampler
from vslam.train.joint import JointModel, total
from vslam.train.networks.light import TINY, LightNet, Widths
from vslam.train.settings import TrainConfig

log = logging.getLogger(__name__)

WIDTHS = {"light": Widths(), "tiny": TINY}
CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"
"""The averaged weights that scored best on the validation data, before learning by heart begins."""


@dataclass
class Progress:
    """What a caller is told after each step."""

    step: int
    steps: int
    rate: float
    parts: dict[str, float]
    seconds_a_step: float


def build_network(name: str) -> LightNet:
    """One of our networks by its name in the settings."""
    if name not in WIDTHS:
        raise VslamError(f"network: '{name}'; known: {', '.join(WIDTHS)}")
    return LightNet(WIDTHS[name])


class Trainer:
    """One run in one folder. Everything needed to go on is in its checkpoint."""

    def __init__(self, config: TrainConfig, sampler: PairSampler, folder: Path, rank: int = 0, world: int = 1):
        torch.manual_seed(config.seed)
        self.config, self.sampler, self.folder = config, sampler, folder
        self.rank, self.world = rank, world
        self.device = torch.device(config.device)
        model = self.build_model().to(self.device, memory_format=torch.channels_last)
        self.model = model
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(self.parameter_groups(), lr=config.rate)
        self.step = 0
        self.best = -math.inf
        self.judge_start = False  # weights of another run are a result to be beaten
        self.parallel = nn.parallel.DistributedDataParallel(model) if world > 1 else model

    def build_model(self) -> nn.Module:
        """The network with what its loss learns; `forward(batch)` gives the parts of the loss."""
        return JointModel(build_network(self.config.network), self.config.losses)

    def parameter_groups(self) -> list[dict]:
        """Parameters by decay; a group's `share`, if it has one, is its share of the learning rate."""
        return parameter_groups(self.model, self.config.decay)

    def draw(self, index: int) -> dict[str, np.ndarray]:
        """The batch with this number; the same whenever it is drawn."""
        return self.sampler.batch(self.config.seed, index, self.config.batch)

    def loss_of(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        """The one figure that is made small."""
        return total(parts, self.config.losses)

    def extra_state(self) -> dict:
        """What a checkpoint must hold besides weights and optimiser."""
        return {}

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one."""
        file = self.folder / CHECKPOINT
        if not file.exists():
            return False
        state = read_checkpoint(file)
        if state["network"] != self.config.network:
            raise VslamError(
                f"{file}: holds network '{state['network']}', not '{self.config.network}'; use another --out"
            )
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        if (self.folder / BEST).exists():
            self.best = float(read_checkpoint(self.folder / BEST)["score"])
        return True

    def start_from(self, file: Path) -> None:
        """Take the averaged weights of another run's checkpoint as the start (fine-tuning)."""
        state = read_checkpoint(file)
        if state["network"] != self.config.network:
            raise VslamError(f"{file}: holds network '{state['network']}', not '{self.config.network}'")
        self.model.load_state_dict(state["averaged"])
        self.averaged.load_state_dict(state["averaged"])
        self.judge_start = True

    def start_with(self, network: nn.Module) -> None:
        """Take a network's weights as the start."""
        for model in (self.model, self.averaged):
            model.network.load_state_dict(network.state_dict())
        self.judge_start = True

    def save(self) -> None:
        """Write the checkpoint; the last one stays whole whatever happens while writing."""
        state = {
            "network": self.config.network,
            "step": self.step,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "config": json.dumps(asdict(self.config)),
        } | self.extra_state()
        write_whole(self.folder / CHECKPOINT, lambda partial: torch.save(state, partial))

    def run(self, report=lambda progress: None, validate=lambda network, step: None) -> None:
        """Train to the last step; saves every `checkpoint_seconds`, at the end, and when interrupted."""
        saved = time.monotonic()
        if self.step == 0 and self.judge_start:
            self._judge(validate)
        try:
            while self.step < self.config.steps:
                began = time.monotonic()
                parts = self.one_step()
                report(Progress(self.step, self.config.steps, self.rate(), parts, time.monotonic() - began))
                if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                    self._judge(validate)
                if self.rank == 0 and time.monotonic() - saved > self.config.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
        finally:
            if self.rank == 0:
                self.save()

    def _judge(self, validate) -> None:
        """Score the averaged network; the best one so far is kept apart."""
        score = validate(self.averaged.network, self.step) if self.rank == 0 else None
        if score is None or not score > self.best:
            return
        self.best = float(score)
        state = {"network": self.config.network, "step": self.step, "score": self.best, "model": {}}
        state["averaged"] = self.averaged.state_dict()
        write_whole(self.folder / BEST, lambda partial: torch.save(state, partial))

    def one_step(self) -> dict[str, float]:
        """Draw a batch, take one optimiser step; returns the parts of the loss."""
        self._set_mode()
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate() * group.get("share", 1.0)
        batch = self._to_device(self.draw(self.step * self.world + self.rank))
        with self._autocast():
            parts = self.parallel(batch)
        loss = self.loss_of(parts)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if torch.isfinite(norm):  # one bad batch must not spoil the run
            self.optimiser.step()
            self._average()
        self.step += 1
        return {name: float(value.detach()) for name, value in parts.items()} | {"loss": float(loss.detach())}

    def rate(self) -> float:
        """Learning rate of the current step: linear rise, then half a cosine down to 1/200 of the highest."""
        done = self.step / self.config.steps
        if done < self.config.warmup:
            return self.config.rate * (done / self.config.warmup * 0.99 + 0.01)
        left = (done - self.config.warmup) / (1 - self.config.warmup)
        return self.config.rate * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * left)))

    def _average(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))  # young averages forget faster
        with torch.no_grad():
            pairs = zip(self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True)
            for kept, new in pairs:
                if kept.dtype.is_floating_point:
                    kept.lerp_(new, 1 - decay)
                else:
                    kept.copy_(new)

    def _set_mode(self) -> None:
        self.model.train()
        if self.step >= self.config.steps * (1 - self.config.freeze_norm):
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def _to_device(self, batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {key: torch.from_numpy(value).to(self.device, non_blocking=True) for key, value in batch.items()}

    def _autocast(self):
        if not self.config.mixed_precision:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def parameter_groups(model: nn.Module, decay: float) -> list[dict]:
    """Weights decay; biases, norms and scales do not."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def read_checkpoint(file: Path) -> dict:
    """A checkpoint's state, on the CPU.

    Raises:
        VslamError: missing, or not a checkpoint of ours.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise VslamError(f"{file}: no such checkpoint; 'vslam train' writes it into its --out folder") from None
    except Exception as error:  # torch raises a dozen kinds for a broken file
        raise VslamError(f"{file}: not a readable checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(state, dict) or not {"network", "model", "averaged", "step"} <= set(state):
        raise VslamError(f"{file}: not a checkpoint of 'vslam train'; 'vslam models convert' takes published ones")
    return state


def write_whole(file: Path, write) -> None:
    """Call `write(partial file)`, then rename: a full disk leaves the old file as it was.

    Raises:
        VslamError: the disk is full or the folder cannot be written.
    """
    partial = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        partial.unlink(missing_ok=True)
        raise VslamError(
            f"{file}: cannot be written ({str(error).splitlines()[0]}); free some space and resume"
        ) from error
