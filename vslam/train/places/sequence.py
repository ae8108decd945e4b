"""The sequence model: descriptors and odometry of a window of frames to one vector of unit length.

After DeepSeqSLAM (Chancan and Milford 2020), with two differences. The position is the motion inside the window as an
odometry gives it, with noise and scale drift, never a place on a map: theirs fed the same positions for every traverse,
so that position alone gave the answer. And the LSTM's state becomes a vector to be looked up, not one of a closed set
of classes, so that places never seen in training can be known again.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vslam.config import PlaceConfig
from vslam.errors import VslamError
from vslam.inference.session import open_session
from vslam.places.descriptor import make_place
from vslam.places.sequence import sequence_scores
from vslam.train.export import store_half, write_onnx
from vslam.train.loop import CHECKPOINT, Trainer, read_checkpoint
from vslam.train.places import losses
from vslam.train.places.evaluate import (
    APART_PERCENT,
    SAME_PERCENT,
    TURN_DEG,
    Recognition,
    mean_scores,
    score_lights,
)
from vslam.train.places.networks import unit
from vslam.train.places.packs import PlacePack, open_place_packs
from vslam.train.places.release import HALF_TOLERANCE
from vslam.train.places.settings import SequenceTrainConfig
from vslam.train.places.windows import (
    POSITION_WIDTH,
    Walk,
    WindowSampler,
    disturbed,
    increments,
    positions,
    window_rows,
)
from vslam.train.run import Journal, check_device

log = logging.getLogger(__name__)


class SequenceNet(nn.Module):
    """Windows (N, W, D + 3) to vectors (N, descriptor) of unit length: LSTM, its last state, a linear layer."""

    def __init__(self, width: int, hidden: int, descriptor: int):
        super().__init__()
        self.lstm = nn.LSTM(width + POSITION_WIDTH, hidden, batch_first=True)
        self.linear = nn.Linear(hidden, descriptor)

    def forward(self, windows: Tensor) -> Tensor:
        states, _ = self.lstm(windows)
        return unit(self.linear(states[:, -1]))


class SequenceModel(nn.Module):
    """The network and its loss; `forward` gives `objective`, and `right` to watch."""

    def __init__(self, config: SequenceTrainConfig, width: int):
        super().__init__()
        self.network = SequenceNet(width, config.hidden, config.descriptor)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        places = self.network(batch["windows"]).float()
        cosines = places @ places.T
        return {
            "objective": losses.multi_similarity(cosines, batch["relation"]),
            "right": losses.nearest_is_right(cosines, batch["relation"].long()),
        }


class SequenceTrainer(Trainer):
    """One run in one folder."""

    def __init__(self, config: SequenceTrainConfig, sampler: WindowSampler, folder: Path):
        self._width = sampler.walks[0].places.shape[2]
        super().__init__(config, sampler, folder)

    def build_model(self) -> nn.Module:
        return SequenceModel(self.config, self._width)

    def loss_of(self, parts: dict[str, Tensor]) -> Tensor:
        return parts["objective"]

    def extra_state(self) -> dict:
        return {"width": self._width}


def check_single_process() -> None:
    """VslamError under `torchrun` with several processes: they would overwrite each other's checkpoints."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise VslamError("the sequence model trains in one process; start 'vslam train sequence' without torchrun")


def train_sequence(
    config: SequenceTrainConfig, folder: Path, quiet: bool = False, start_from: Path | None = None
) -> SequenceTrainer:
    """Train, or go on training, a sequence model in `folder`; scores of the end stand in `sequence.json`.

    Raises:
        VslamError: no walks, wrong checkpoint, no such device, disk full.
    """
    check_single_process()
    check_device(config.device)
    walks = describe_walks(open_place_packs(Path(config.packs)), config)
    held_out = describe_walks(open_place_packs(Path(config.validation)), config) if config.validation else []
    trainer = SequenceTrainer(config, WindowSampler(walks, config), folder)
    if not trainer.resume() and start_from is not None:
        trainer.start_from(start_from / CHECKPOINT if start_from.is_dir() else start_from)
    journal = Journal(folder, quiet=quiet)
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n")

    def validate(network: SequenceNet, step: int) -> None:
        for name, scores in score_walks(network, held_out, config).items():
            journal.write(f"validation {name}", step, asdict(scores))

    trainer.run(journal.step, validate if held_out else lambda network, step: None)
    if held_out:
        scores = score_walks(trainer.averaged.network, held_out, config)
        found = {name: asdict(value) for name, value in scores.items()}
        (folder / "sequence.json").write_text(json.dumps(found, indent=1) + "\n")
    return trainer


def describe_walks(packs: list[PlacePack], config: SequenceTrainConfig) -> list[Walk]:
    """The walks among the packs that are long enough, each frame described by the place network.

    Raises:
        VslamError: there are none.
    """
    place = make_place(PlaceConfig(config.place))
    walks = []
    for pack in packs:
        views = len(pack.overlap)
        if pack.poses is None or views <= (config.window - 1) * config.max_stride + 1:
            continue
        log.info("describing %d images of %s", len(pack.images), pack.name)
        places = place.describe_many(list(pack.images)).reshape(-1, views, place.dim)
        walks.append(Walk(pack, places, pack.relation(SAME_PERCENT, APART_PERCENT, TURN_DEG)))
    if not walks:
        raise VslamError("packs: no walks with poses that are long enough for a window; see 'vslam train pack-places'")
    return walks


def score_walks(network: SequenceNet, walks: list[Walk], config: SequenceTrainConfig) -> dict[str, Recognition]:
    """Scores by inputs: `vision`, `position`, `both`; `frame`, the place network alone; `lines`, its similarities
    summed along lines of constant speed. Means over walks and lights, of the same queries."""
    found: dict[str, list[Recognition]] = {}
    for k, walk in enumerate(walks):
        likeness = {"frame": [[a @ b.T for b in walk.places] for a in walk.places]}
        likeness["lines"] = [[sequence_scores(v, config.window) for v in row] for row in likeness["frame"]]
        for inputs in ("vision", "position", "both"):
            vectors = [describe_windows(network, walk, light, config, inputs, k) for light in range(len(walk.places))]
            likeness[inputs] = [[a @ b.T for b in vectors] for a in vectors]
        relation = walk.relation.copy()
        relation[: config.window - 1] = relation[:, : config.window - 1] = -1  # no whole window ends there
        for name, values in likeness.items():
            found.setdefault(name, []).extend(score_lights(values, walk.pack.time, relation).values())
    return {name: mean_scores(scores) for name, scores in found.items()}


def describe_windows(
    network: SequenceNet, walk: Walk, light: int, config: SequenceTrainConfig, inputs: str, seed: int
) -> np.ndarray:
    """Vectors (V, descriptor) of the windows that end at each view; the odometry of each light errs in its own way."""
    rng = np.random.default_rng((seed, light, 5))
    views = len(walk.relation)
    windows = np.zeros((views, config.window, walk.places.shape[2] + POSITION_WIDTH), np.float32)
    for last in range(config.window - 1, views):
        rows = window_rows(last, config.window, 1)
        moved = positions(disturbed(increments(walk.pack.poses[rows]), rng, config))
        if inputs != "position":
            windows[last, :, :-POSITION_WIDTH] = walk.scaled[light, rows]
        if inputs != "vision":
            windows[last, :, -POSITION_WIDTH:] = moved
    with torch.no_grad():
        return network.eval()(torch.from_numpy(windows).to(next(network.parameters()).device)).cpu().numpy()


def export_sequence(checkpoint: Path, file: Path) -> None:
    """Write a trained model as ONNX: `image` (N, W, D + 3), descriptors times root of D and positions, to `place`.

    Raises:
        VslamError: not a checkpoint of a sequence model, or the written file gives other vectors.
    """
    source = checkpoint / CHECKPOINT if checkpoint.is_dir() else checkpoint
    state = read_checkpoint(source)
    if state["network"] != "sequence":
        raise VslamError(f"{source}: holds network '{state['network']}', not 'sequence'")
    config = json.loads(state["config"])
    network = SequenceNet(state["width"], config["hidden"], config["descriptor"]).eval()
    prefix = "network."
    network.load_state_dict({key.removeprefix(prefix): value for key, value in state["averaged"].items()})
    example = torch.randn(2, config["window"], state["width"] + POSITION_WIDTH)
    exact = file.with_suffix(".float.onnx")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_onnx(network, example, {"image": {0: "windows", 1: "frames"}, "place": {0: "windows"}}, exact)
        store_half(exact, file)
    finally:
        exact.unlink(missing_ok=True)
    with torch.no_grad():
        expected = network(example).numpy()
    error = float(np.abs(open_session(file, "onnx").run(example.numpy())["place"] - expected).max())
    if error > HALF_TOLERANCE:
        raise VslamError(f"{file}: vectors are off by {error:.1e} (allowed {HALF_TOLERANCE}); the export is wrong")
