"""A training run of a place network: the loop of `vslam.train.loop` with its own batches, losses and mining."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from vslam.errors import VslamError
from vslam.train.loop import CHECKPOINT, Trainer, parameter_groups, read_checkpoint
from vslam.train.places import losses
from vslam.train.places.build import fit
from vslam.train.places.evaluate import by_network, describe_images, score_packs
from vslam.train.places.initialise import set_clusters, set_whitening
from vslam.train.places.layout import set_layout
from vslam.train.places.networks import Gem, NetVlad, build_place_network, start_trunk
from vslam.train.places.packs import open_place_packs
from vslam.train.places.sampler import ClassSampler, PlaceSampler, Spot, coarsen
from vslam.train.places.settings import PlaceTrainConfig
from vslam.train.run import Journal, check_device, join_processes

log = logging.getLogger(__name__)


CLUSTER_VIEWS, WHITENING_VIEWS = 500, 5000
"""Training views that NetVLAD's clusters, and whitenings, are computed from."""


class PlaceModel(nn.Module):
    """A place network and its loss; `forward` gives `loss`, and `right` to watch."""

    def __init__(self, config: PlaceTrainConfig, classes: list[int] | None):
        super().__init__()
        self.config = config
        self.network = build_place_network(config.network)
        self.classifier = None
        if classes is not None:
            width = self.network.widths.descriptor
            self.classifier = losses.LargeMarginCosine(classes, width, config.scale, config.margin)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        images = (batch["images"][:, None].float() / 255).contiguous(memory_format=torch.channels_last)
        local = self.network.local(images)
        with torch.autocast(images.device.type, enabled=False):  # pooling and cosines need all their digits
            places = self.network.head(local.float())
            cosines = places @ places.T
            right = losses.nearest_is_right(cosines, batch["relation"].long())
            return {"objective": self._loss(places, cosines, batch), "right": right}

    def _loss(self, places: Tensor, cosines: Tensor, batch: dict[str, Tensor]) -> Tensor:
        if self.classifier is not None:
            return self.classifier(places, batch["labels"], int(batch["group"]))
        if self.config.network == "netvlad":
            return losses.hard_triplets(cosines, batch["relation"], self.config.margin)
        return losses.multi_similarity(cosines, batch["relation"])


class PlaceTrainer(Trainer):
    """One run in one folder, with a memory of hard negatives where `mine_every` asks for it."""

    config: PlaceTrainConfig
    sampler: PlaceSampler

    def __init__(self, config: PlaceTrainConfig, sampler: PlaceSampler, folder: Path, rank: int = 0, world: int = 1):
        self._classes = sampler.counts() if isinstance(sampler, ClassSampler) else None
        self._pool: list[Spot] | None = None
        self._hard: list[np.ndarray] | None = None
        self._sampler = sampler
        super().__init__(config, sampler, folder, rank)
        self.world = world
        if world > 1:  # a step of cosplace leaves the classes of other groups alone
            is_partial = self._classes is not None
            self.parallel = nn.parallel.DistributedDataParallel(self.model, find_unused_parameters=is_partial)

    def build_model(self) -> nn.Module:
        model = PlaceModel(self.config, self._classes)
        model.network.backbone.trunk().requires_grad_(self.config.trunk_rate > 0)
        for name in ("whiten", "layout"):  # computed when the run ends
            getattr(model.network, name, nn.Module()).requires_grad_(False)
        return model

    def _set_mode(self) -> None:
        super()._set_mode()
        if self.config.trunk_rate == 0:
            self.model.network.backbone.trunk().eval()  # a trunk that does not learn keeps its statistics too

    def parameter_groups(self) -> list[dict]:
        """The trunk learns at its own share of the rate; classifiers ten times as fast as the network."""
        trunk = {id(p) for p in self.model.network.backbone.trunk().parameters()}
        heads = {id(p) for p in self.model.classifier.parameters()} if self.model.classifier else set()
        found = []
        for group in parameter_groups(self.model, self.config.decay):
            early, fast = (
                [p for p in group["params"] if id(p) in chosen and p.requires_grad] for chosen in (trunk, heads)
            )
            rest = [p for p in group["params"] if id(p) not in trunk | heads]
            parts = ((early, self.config.trunk_rate), (rest, 1.0), (fast, 10.0))
            found += [group | {"params": params, "share": share} for params, share in parts if params]
        return found

    def prepare(self, start_from: Path | None) -> None:
        """What a fresh run begins with: another run's weights, or the trunk of another network; clusters; classes."""
        whole = False
        if start_from is not None:
            whole = self.take_weights(start_from)
        elif self.config.trunk:
            file = Path(self.config.trunk)
            state = read_checkpoint(file / CHECKPOINT if file.is_dir() else file)
            start_trunk(self.model.network.backbone, state["averaged"])
        if isinstance(self.model.network, (Gem, NetVlad)):
            self.model.network.is_whitened.zero_()  # unwhitened vectors are trained; whitening follows at the end
        if isinstance(self.model.network, NetVlad) and not whole:
            images = self._views(self.sampler.draw_pool(self.config.seed, 0, CLUSTER_VIEWS))
            set_clusters(self.model.network, images, self.config.seed)
        if self.model.classifier is not None:
            self._begin_classes()
        self.averaged.load_state_dict(self.model.state_dict())

    def _begin_classes(self) -> None:
        """Each class begins at the sum of its first views' descriptors: far fewer steps than from random directions."""
        for group, weight in enumerate(self.model.classifier.classifiers):
            members = self.sampler.first_members(group)
            spots = [spot for each in members for spot in each]
            if not spots:
                continue
            places = torch.from_numpy(describe_images(self.model.network, self._views(spots), self.device))
            label = torch.arange(len(members)).repeat_interleave(torch.tensor([len(each) for each in members]))
            with torch.no_grad():
                weight.zero_().index_add_(0, label.to(self.device), places.to(self.device))

    def take_weights(self, file: Path) -> bool:
        """Take from another run's checkpoint what fits: all of the same network (returns True), else the backbone and
        layers of the same shape."""
        state = read_checkpoint(file / CHECKPOINT if file.is_dir() else file)
        mine = self.model.state_dict()
        own = {
            key: value for key, value in state["averaged"].items()
            if key.startswith("network.") and key in mine and mine[key].shape == value.shape
        }  # fmt: skip
        if not any(key.startswith("network.backbone.") for key in own):
            raise VslamError(f"{file}: holds network '{state['network']}', which has no backbone of a place network")
        self.model.load_state_dict(mine | own)
        return state["network"] == self.config.network

    def draw(self, index: int) -> dict[str, np.ndarray]:
        every = self.config.mine_every
        if every and self.step % every == 0:
            self._mine()
        return self.sampler.batch(self.config.seed, index, self.config.batch, self._pool, self._hard)

    def _mine(self) -> None:
        """Describe a pool of views with the averaged network and keep, of each, the other places most alike."""
        self._pool = self.sampler.draw_pool(self.config.seed, self.step, self.config.mine_pool)
        places = describe_images(self.averaged.network, self._views(self._pool), self.device)
        relation = self.sampler.relate(self._pool)
        cosines = np.where(relation == 0, places @ places.T, -2.0)
        nearest = np.argsort(-cosines, axis=1)[:, : self.config.mine_nearest]
        self._hard = list(nearest)

    def _views(self, spots: list[Spot], whole: bool = False) -> list[np.ndarray]:
        """Images of views at the size of training, or, `whole`, at that of use."""
        views = self.config.views
        size = self.config.image_size if whole else (views.width, views.height)
        return [self._sampler.plain(spot, size) for spot in spots]

    def loss_of(self, parts: dict[str, Tensor]) -> Tensor:
        return parts["objective"]

    def extra_state(self) -> dict:
        if self._pool is None:
            return {}
        return {"pool": torch.tensor(self._pool), "hard": torch.from_numpy(np.stack(self._hard))}

    def resume(self) -> bool:
        if not super().resume():
            return False
        state = read_checkpoint(self.folder / CHECKPOINT)
        if "pool" in state:
            self._pool = [tuple(row) for row in state["pool"].tolist()]
            self._hard = list(state["hard"].numpy())
        return True

    def finish(self) -> None:
        """Whitening and layout of the averaged network, from training views; then the last checkpoint."""
        network = self.averaged.network
        if self.rank > 0 or getattr(network, "is_whitened", True):
            return
        if isinstance(network, Gem):
            set_layout(network.layout, self.sampler, self.config.seed, self.config.layout_pairs)
            set_whitening(network, self._lights(), self.device)
        else:
            spots = self.sampler.draw_pool(self.config.seed, 1, WHITENING_VIEWS)
            set_whitening(network, self._views(spots, whole=True), self.device)
        self.save()

    def _lights(self) -> list[np.ndarray]:
        """Images of the size of use under all lights of the packs, some as a camera of fewer pixels sees them."""
        rng, size = np.random.default_rng((self.config.seed, 5)), self.config.image_size
        found = []
        for _ in range(WHITENING_VIEWS):
            image = fit(self._sampler.any_image(rng), size)
            found.append(coarsen(image, rng) if rng.random() < self.config.views.coarse else image)
        return found


def train_places(
    config: PlaceTrainConfig, folder: Path, quiet: bool = False, start_from: Path | None = None
) -> PlaceTrainer:
    """Train, or go on training, a place network in `folder`; under `torchrun` on every process it started.

    Raises:
        VslamError: no data, wrong checkpoint, no such device, disk full.
    """
    cv2.setNumThreads(1)
    check_settings(config)
    check_device(config.device)
    rank, world = join_processes(config)
    packs = open_place_packs(Path(config.packs))
    if config.network == "cosplace":
        sampler: PlaceSampler = ClassSampler(packs, config.views, config.group_steps)
    else:
        sampler = PlaceSampler(packs, config.views)
    trainer = PlaceTrainer(config, sampler, folder, rank, world)
    if not trainer.resume():
        trainer.prepare(start_from)
    journal = Journal(folder, quiet=quiet or rank > 0)
    if rank == 0:
        (folder / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
    trainer.run(journal.step, make_validation(config, journal))
    trainer.finish()
    if world > 1:
        dist.destroy_process_group()
    return trainer


def check_settings(config: PlaceTrainConfig) -> None:
    """VslamError for sizes and numbers that no run can have."""
    sizes = {"views.width, views.height": (config.views.width, config.views.height), "image_size": config.image_size}
    for name, size in sizes.items():
        if len(size) != 2 or min(size) < 32 or any(side % 16 for side in size):
            raise VslamError(f"{name}: {list(size)}; expected width and height, multiples of 16 from 32 up")
    for name, value in (("batch", config.batch), ("views.worlds", config.views.worlds), ("steps", config.steps + 1)):
        if value < 1:
            raise VslamError(f"{name}: {value}; expected a positive number")


def make_validation(config: PlaceTrainConfig, journal: Journal):
    """A function that scores a network on the validation packs, or does nothing when there are none."""
    if not config.validation:
        return lambda network, step: None
    packs = open_place_packs(Path(config.validation))
    size, device = config.image_size, torch.device(config.device)

    def validate(network, step: int) -> None:
        for name, scores in score_packs(by_network(network, device), packs, size).items():
            journal.write(f"validation {name}", step, asdict(scores))

    return validate
