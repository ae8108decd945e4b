"""Settings of a place network's run, read from `configs/train-{gem,netvlad,cosplace}.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vslam.train.data.light import LightConfig
from vslam.train.settings import read_settings


@dataclass(frozen=True)
class ViewConfig:
    """How views of places are drawn. Overlaps are in percent of a view's pixels."""

    width: int = 256  # of what the network sees in training, multiples of 16
    height: int = 192
    worlds: int = 4  # packs a batch draws from: the others of the same world are the hard negatives
    min_overlap: int = 30  # two views show the same place from here on, each seeing so much of the other
    max_overlap: int = 5  # and different places up to here; in between a pair counts neither way
    max_turn_deg: float = 45.0  # between two views of the same place
    zoom: float = 1.3  # a view is cut out with up to this magnification
    angle_deg: float = 8.0  # roll
    perspective: float = 0.12
    other_light: float = 0.0  # chance that the second view of a place is taken of another light, where there is one
    coarse: float = 0.25  # share of views that are seen by a camera of fewer pixels
    season: float = 0.0  # share of those that see the place in drawn weather, season and light
    cell: float = 0.4  # side of a class's cell (cosplace) in medians of the depth
    heading_deg: float = 45.0  # width of a class's range of headings
    light: LightConfig = field(default_factory=LightConfig)


@dataclass(frozen=True)
class PlaceTrainConfig:
    """One run: which network, what data, how long."""

    network: str = "gem"  # gem, netvlad or cosplace
    packs: str = "place-packs"  # folder of place packs (*.npz)
    validation: str = ""  # folder of packs kept apart; empty: none
    steps: int = 3000
    image_size: tuple[int, int] = (320, 240)  # width and height of whole images, as in use and in validation
    batch: int = 24  # places a step, two views each
    rate: float = 1e-3  # highest learning rate
    trunk_rate: float = 0.3  # share of it for the first layers, down to 1/16; 0: they stay as they are
    trunk: str = ""  # checkpoint of 'vslam train superpoint' whose first layers are taken; empty: from nothing
    decay: float = 1e-4
    warmup: float = 0.05
    freeze_norm: float = 0.1
    clip: float = 5.0
    average: float = 0.998
    seed: int = 1
    checkpoint_seconds: float = 120.0
    validate_every: int = 250
    device: str = "cpu"
    mixed_precision: bool = False
    margin: float = 0.1  # netvlad: of squared distances; cosplace: of the cosine
    scale: float = 30.0  # cosplace: of the logits
    mine_every: int = 0  # netvlad: steps between two searches for hard negatives; 0: only those in the batch
    mine_pool: int = 1500  # views searched
    mine_nearest: int = 10  # hard negatives kept of each
    layout_pairs: int = 10000  # gem: pairs of views that its layout is computed from when the run ends
    group_steps: int = 20  # cosplace: steps before the next group of classes
    views: ViewConfig = field(default_factory=ViewConfig)


@dataclass(frozen=True)
class SequenceTrainConfig:
    """One run of the sequence model: a window of place descriptors and of noisy odometry to one vector."""

    network: str = "sequence"
    place: str = "gem"  # the network that describes the frames: a shipped one
    packs: str = "place-packs"  # walks to learn from; packs without poses are left out
    validation: str = ""
    lights: int = 1  # learn from so many lights of each walk (the first ones); others are for tests
    window: int = 8  # frames
    max_stride: int = 2  # frames of the walk from one frame of the window to the next, drawn from 1 up
    hidden: int = 256
    descriptor: int = 256
    steps: int = 2000
    batch: int = 48  # places a step, two windows each
    worlds: int = 4
    rate: float = 1e-3
    decay: float = 1e-3
    warmup: float = 0.05
    freeze_norm: float = 0.0
    clip: float = 5.0
    average: float = 0.99
    seed: int = 1
    checkpoint_seconds: float = 120.0
    validate_every: int = 500
    device: str = "cpu"
    mixed_precision: bool = False
    vision_only: float = 0.25  # share of windows whose odometry is hidden
    position_only: float = 0.15  # share of windows whose descriptors are hidden
    descriptor_noise: float = 0.02  # of each entry of a unit vector
    step_noise: float = 0.05  # of an increment's length, as a share of it
    yaw_noise_deg: float = 0.5  # of an increment's turn
    scale_drift: float = 0.15  # of the logarithm of a window's scale


def load_place_config(path: str | Path) -> PlaceTrainConfig:
    """Settings of a place network from a YAML file, or from a shipped one by its name.

    Raises:
        VslamError: no such file, not YAML, unknown key.
    """
    return read_settings(path, PlaceTrainConfig)


def load_sequence_config(path: str | Path) -> SequenceTrainConfig:
    """Settings of the sequence model, in the same way."""
    return read_settings(path, SequenceTrainConfig)
