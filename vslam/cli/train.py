"""`vslam train`: train a network, or pack images and sequences to train on."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path

from vslam.errors import VslamError

DEFAULT_CONFIG = {
    "superpoint": "train-light", "gcnv2": "train-light", "gcnv2-tiny": "train-tiny", "magicpoint": "train-magicpoint",
    "gem": "train-gem", "cosplace": "train-cosplace", "netvlad": "train-netvlad", "sequence": "train-sequence",
}  # fmt: skip
"""superpoint and gcnv2 are two heads of one trunk: either command trains both."""

PLACES = ("gem", "cosplace", "netvlad")
"""Networks that describe whole images: they learn from place packs, and so does `sequence`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-commands: one for each network, `pack-images`, `pack-sequence`, `pack-places`."""
    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, config in DEFAULT_CONFIG.items():
        network = commands.add_parser(name, help=f"train {name}; goes on where --out has a checkpoint")
        network.add_argument("--config", default=config, help="settings: a YAML file or a shipped name (%(default)s)")
        network.add_argument(
            "--out", type=Path, default=Path("runs") / f"train-{name}", help="folder of the run (%(default)s)"
        )
        network.add_argument("--packs", help="folder of training packs; replaces that of the settings")
        network.add_argument("--steps", type=int, help="replaces that of the settings")
        network.add_argument("--device", help="cpu, cuda, cuda:1 ...; replaces that of the settings")
        network.add_argument(
            "--init", type=Path, metavar="WEIGHTS", help="start from another run, an exported .onnx file or a shipped "
            "network's name",
        )  # fmt: skip
        network.add_argument("--quiet", action="store_true", help="no progress bar")
        if name not in (*PLACES, "sequence", "magicpoint"):
            network.add_argument("--labels", help="folder of 'vslam train label'; replaces the packs' own keypoints")
            network.add_argument("--pair-files", help="folder of 'vslam train pair': sequences give these pairs only")
            network.add_argument(
                "--images", type=Path, metavar="DIR", help="train on your own images: split 8:1:1, packed below --out"
            )
    _add_label(commands)
    _add_pair(commands)
    images = commands.add_parser("pack-images", help="pack a folder of images")
    images.add_argument("folder", type=Path)
    images.add_argument("file", type=Path, help="the pack to write (.npz)")
    images.add_argument(
        "--crops", type=int, default=2, help="cuts at full resolution from each large image (%(default)s)"
    )
    sequence = commands.add_parser("pack-sequence", help="pack an RGB-D sequence in TUM layout with camera.yaml")
    sequence.add_argument("folder", type=Path)
    sequence.add_argument("file", type=Path, help="the pack to write (.npz)")
    places = commands.add_parser("pack-places", help="pack one world for the networks that describe whole images")
    places.add_argument("file", type=Path, help="the pack to write (.npz)")
    places.add_argument(
        "folders", type=Path, nargs="+", help="one walk in TUM layout under one or more lights, or frames of videos "
        "with index.csv, or photos",
    )  # fmt: skip
    places.add_argument("--world", default="", help="packs of one world may show the same places (default: folder)")
    places.add_argument("--only", default="", help="of videos: these floors, with commas between (default: all)")
    places.add_argument("--source", default="", help="origin and licence, kept in the pack")
    for packing in (images, sequence):
        packing.add_argument("--source", default="", help="origin and licence, kept in the pack")
        packing.add_argument("--step", type=int, default=1, help="take every n-th image (%(default)s)")


def _add_label(commands) -> None:
    label = commands.add_parser("label", help="keypoints of packed images by a network, under many warps")
    label.add_argument("packs", type=Path, help="folder of training packs")
    label.add_argument("out", type=Path, help="folder to write label files to")
    label.add_argument(
        "--checkpoint", type=Path, required=True, metavar="WEIGHTS", help="of 'vslam train magicpoint' or another "
        "network (run folder, checkpoint, .onnx file or a shipped network's name)",
    )  # fmt: skip
    label.add_argument("--warps", type=int, default=100, help="an image (%(default)s)")
    label.add_argument("--threshold", type=float, default=0.015, help="least mean probability of a pixel (%(default)s)")
    label.add_argument("--limit", type=int, default=600, help="keypoints an image, at most (%(default)s)")
    label.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (%(default)s)")


def _add_pair(commands) -> None:
    pair = commands.add_parser("pair", help="find the frames of packed sequences that make good pairs")
    pair.add_argument("packs", type=Path, help="folder of training packs")
    pair.add_argument("out", type=Path, help="folder to write pair files to")
    pair.add_argument("--rules", metavar="FILE", help="YAML of what a pair must meet (docs/training.md)")


def run(options: argparse.Namespace) -> int:
    """Train or pack; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    require_torch()
    if options.what.startswith("pack-"):
        return _pack(options)
    if options.what in ("label", "pair"):
        return _label(options) if options.what == "label" else _pair(options)
    load, train = _training(options.what)
    is_own = getattr(options, "images", None) is not None
    if is_own and options.config == DEFAULT_CONFIG[options.what]:
        options.config = "train-finetune"
    config = load(options.config)
    if options.what in (*PLACES, "sequence") and config.network != options.what:
        raise VslamError(f"{options.config}: is for network '{config.network}', not '{options.what}'")
    words = ("packs", "labels", "pair_files", "steps", "device")
    given = {key: getattr(options, key) for key in words if getattr(options, key, None) is not None}
    config = dataclasses.replace(config, **given)
    if is_own:
        return _fine_tune(options, config)
    trainer = train(config, options.out, options.quiet, options.init)
    if trainer.rank == 0:
        next_step = f"vslam export {options.what} --checkpoint {options.out}' writes ONNX"
        if options.what == "magicpoint":
            next_step = f"vslam train label PACKS LABELS --checkpoint {options.out}' labels images with it"
        print(f"{options.out}: step {trainer.step}; '{next_step}")
    return 0


def _fine_tune(options: argparse.Namespace, config) -> int:
    """Train on a folder of images, and say what it did to those kept apart."""
    from vslam.train import finetune
    from vslam.train.release import NETWORK, open_checkpoint
    from vslam.train.run import train
    from vslam.train.shipped import any_network

    if options.packs is not None:
        raise VslamError("--images and --packs: give one of them")
    options.init = options.init or Path(options.what)  # the shipped one
    config = dataclasses.replace(config, network=NETWORK[options.what])
    trainer = train(finetune.prepare(options.images, options.out, config), options.out, options.quiet, options.init)
    if trainer.rank == 0:
        before, after = any_network(options.init), open_checkpoint(options.out)[0]
        for line in finetune.compare(before, after, config, options.out):
            print(line)
        print(
            f"{options.out}: the best of {trainer.step} steps; 'vslam export {options.what} --checkpoint {options.out}'"
        )
    return 0


def _label(options: argparse.Namespace) -> int:
    from vslam.train.label import LabelConfig, label_packs
    from vslam.train.run import check_device
    from vslam.train.shipped import any_network

    if options.warps < 1 or options.limit < 1:
        raise VslamError("--warps and --limit: expected numbers of at least 1")
    if not 0 <= options.threshold < 1:
        raise VslamError(f"--threshold {options.threshold}: expected a probability, at least 0 and below 1")
    check_device(options.device)
    config = LabelConfig(options.warps, options.threshold, options.limit)
    network = any_network(options.checkpoint)
    for line in label_packs(options.packs, options.out, network, options.checkpoint.name, config, options.device):
        print(line, flush=True)
    return 0


def _pair(options: argparse.Namespace) -> int:
    from vslam.train.data.pairing import pair_packs
    from vslam.train.settings import load_pair_rules

    for line in pair_packs(options.packs, options.out, load_pair_rules(options.rules)):
        print(line, flush=True)
    return 0


def _training(what: str):
    """The functions that read a network's settings and that train it."""
    if what in PLACES:
        from vslam.train.places.settings import load_place_config
        from vslam.train.places.training import train_places

        return load_place_config, train_places
    if what == "sequence":
        from vslam.train.places.sequence import train_sequence
        from vslam.train.places.settings import load_sequence_config

        return load_sequence_config, train_sequence
    from vslam.train.run import train
    from vslam.train.settings import load_train_config

    return load_train_config, train


def _pack(options: argparse.Namespace) -> int:
    from vslam.train.data import build
    from vslam.train.places.build import pack_places

    if options.what == "pack-images":
        count = build.pack_images(options.folder, options.file, options.source, options.crops, options.step)
    elif options.what == "pack-places":
        only = tuple(word for word in options.only.split(",") if word)
        count = pack_places(options.folders, options.file, options.source, options.world, only)
    else:
        count = build.pack_sequence(options.folder, options.file, options.source, options.step)
    print(f"{options.file}: {count} images, {options.file.stat().st_size / 1e6:.1f} MB")
    return 0


def require_torch() -> None:
    """VslamError that names the extra when PyTorch is missing."""
    from importlib.util import find_spec

    if not find_spec("torch"):
        raise VslamError("training needs PyTorch; install it: pip install 'vslam[train]'")
