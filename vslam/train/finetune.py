"""Fine-tuning on a folder of one's own images: split once, packed, and scored on what was kept apart."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from vslam.errors import VslamError
from vslam.train.data.build import find_images, pack_files
from vslam.train.data.pack import open_packs
from vslam.train.data.pairs import PairSampler
from vslam.train.evaluate import fixed_pairs, score_network
from vslam.train.networks.light import LightNet
from vslam.train.settings import TrainConfig

PARTS = {"train": 8, "validation": 1, "test": 1}
"""Of ten images, how many go where."""
MIN_IMAGES = 20
BLOCKS = 50
"""Neighbouring files stay together: pictures of one walk must not be learned and tested on."""
TEST_PAIRS = 100


def split(files: list[Path], seed: int = 0) -> dict[str, list[Path]]:
    """Files, in their order, cut into blocks, and the blocks dealt out 8 : 1 : 1."""
    blocks = np.array_split(np.arange(len(files)), min(BLOCKS, len(files) // 2))
    order = np.random.default_rng(seed).permutation(len(blocks))
    wanted = np.cumsum(list(PARTS.values())) / sum(PARTS.values()) * len(blocks)
    found: dict[str, list[Path]] = {}
    begin = 0
    for part, end in zip(PARTS, np.round(wanted).astype(int), strict=True):
        chosen = sorted(order[begin:end])
        found[part] = [files[i] for block in chosen for i in blocks[block]]
        begin = end
    return found


def prepare(images: Path, out: Path, config: TrainConfig, source: str = "") -> TrainConfig:
    """Split and pack a folder of images below `out` (what is there already is kept); the settings of a run on it.

    Raises:
        VslamError: no such folder, or fewer than 20 images.
    """
    if not images.is_dir():
        raise VslamError(f"{images}: no such folder; --images needs one with pictures (jpg, png, bmp, webp)")
    files = find_images(images)
    if len(files) < MIN_IMAGES:
        raise VslamError(f"{images}: {len(files)} images; at least {MIN_IMAGES} are needed to train, validate and test")
    folder = out / "packs"
    for part, chosen in split(files).items():
        pack = folder / part / "images.npz"
        while int(os.environ.get("RANK", "0")) and not pack.exists():
            time.sleep(0.5)  # the first process of several packs
        if not pack.exists():
            pack_files(chosen, pack, source or f"{images.name}: {part}")
    return replace(config, packs=str(folder / "train"), validation=str(folder / "validation"))


def compare(before: LightNet, after: LightNet, config: TrainConfig, out: Path) -> list[str]:
    """What training did to the images kept apart: a line for floats and one for bits."""
    test = open_packs(out / "packs" / "test")
    pairs = fixed_pairs(PairSampler(test, replace(config.pairs, depth_share=0.0)), TEST_PAIRS)
    lines = []
    for name, binary in (("float", False), ("bits", True)):
        old, new = (score_network(network, pairs, binary) for network in (before, after))
        lines.append(
            f"test images, {name}: repeatability {old.repeatability:.3f} -> {new.repeatability:.3f}, right among "
            f"mutual matches {old.precision:.3f} -> {new.precision:.3f} ({old.matches:.0f} -> {new.matches:.0f} a pair)"
        )
    return lines
