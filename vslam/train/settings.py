"""Settings of a training run: one tree of frozen dataclasses, read from `configs/train-*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from vslam.config import from_dict, read_values
from vslam.train.data.pairing import PairRules
from vslam.train.data.pairs import PairConfig

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class LossWeights:
    """What each part of the joint loss counts; 0 leaves it out."""

    detector: float = 1.0  # cell cross-entropy of both views
    place: float = 0.5  # sub-pixel place of corners, px
    descriptor: float = 1.0  # dual softmax of unit float descriptors
    hinge_dense: float = 0.0  # SuperPoint's own loss over all pairs of cells; in the place of descriptor
    hinge_sparse: float = 0.0  # the same margins over known points and random others; in the place of descriptor
    bits_float: float = 0.5  # dual softmax of the 256 values before the sign, unit length
    bits: float = 1.0  # dual softmax of straight-through signs / 16
    triplet: float = 0.0  # GCNv2's own loss on the 256 values, signs at the end; in the place of bits_float and bits
    triplet_bits: float = 0.0  # the same on straight-through signs / 16
    balance: float = 0.02  # every bit one half of the time
    reliability: float = 0.5  # binary cross-entropy with 'mutual nearest neighbour is right'


@dataclass(frozen=True)
class TrainConfig:
    """One run: which network, what data, how long."""

    network: str = "light"  # light or tiny
    packs: str = "packs"  # folder of training packs (*.npz)
    labels: str = ""  # folder of label files ('vslam train label') in the place of the packs' own keypoints
    pair_files: str = ""  # folder of pair files ('vslam train pair'): sequences give these pairs and no others
    validation: str = ""  # folder of packs kept apart; empty: none
    steps: int = 6000
    batch: int = 8  # pairs a step (a process, with several)
    rate: float = 2e-3  # highest learning rate
    decay: float = 1e-4
    warmup: float = 0.05  # share of the steps in which the rate rises
    freeze_norm: float = 0.1  # share of the steps, at the end, with batch statistics frozen
    clip: float = 1.0
    average: float = 0.999  # decay of the averaged weights, which are the ones exported
    seed: int = 1
    checkpoint_seconds: float = 120.0
    validate_every: int = 500
    device: str = "cpu"
    mixed_precision: bool = False  # bfloat16 autocast; pays on GPUs
    pairs: PairConfig = field(default_factory=PairConfig)
    losses: LossWeights = field(default_factory=LossWeights)


def load_train_config(path: str | Path) -> TrainConfig:
    """Settings from a YAML file, or from a shipped one by its name.

    Raises:
        VslamError: no such file, not YAML, unknown key.
    """
    return read_settings(path, TrainConfig)


def load_pair_rules(path: str | Path | None) -> PairRules:
    """The rules of training pairs from a YAML file; None: as they are.

    Raises:
        VslamError: as above.
    """
    return PairRules() if path is None else read_settings(path, PairRules)


def read_settings(path: str | Path, kind: type[Settings]) -> Settings:
    """A dataclass of settings from a YAML file or a shipped name."""
    where, values = read_values(path, training=True)
    return from_dict(kind, values, where)
