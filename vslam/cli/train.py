"""`vslam train`: train a network, or pack images and sequences to train on."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path

from vslam.errors import VslamError

DEFAULT_CONFIG = {
    "superpoint": "train-light", "gcnv2": "train-light", "gcnv2-tiny": "train-tiny",
    "gem": "train-gem", "cosplace": "train-cosplace", "netvlad": "train-netvlad",
}  # fmt: skip
"""superpoint and gcnv2 are two heads of one trunk: either command trains both."""

PLACES = ("gem", "cosplace", "netvlad")
"""Networks that describe whole images: they learn from place packs."""


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
        network.add_argument("--init", type=Path, metavar="CHECKPOINT", help="start from the weights of another run")
        network.add_argument("--quiet", action="store_true", help="no progress bar")
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


def run(options: argparse.Namespace) -> int:
    """Train or pack; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    require_torch()
    if options.what.startswith("pack-"):
        return _pack(options)
    if options.what in PLACES:
        from vslam.train.places.settings import load_place_config as load
        from vslam.train.places.training import train_places as train
    else:
        from vslam.train.run import train
        from vslam.train.settings import load_train_config as load

    config = load(options.config)
    if options.what in PLACES and config.network != options.what:
        raise VslamError(f"{options.config}: is for network '{config.network}', not '{options.what}'")
    given = {key: getattr(options, key) for key in ("packs", "steps", "device") if getattr(options, key) is not None}
    trainer = train(dataclasses.replace(config, **given), options.out, options.quiet, options.init)
    if trainer.rank == 0:
        print(
            f"{options.out}: step {trainer.step}; 'vslam export {options.what} --checkpoint {options.out}' writes ONNX"
        )
    return 0


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
