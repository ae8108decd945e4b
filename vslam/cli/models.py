"""`vslam models`: the shipped networks, and conversion of your own checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-commands list, show, verify and convert."""
    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    commands.add_parser("list", help="name the shipped networks")
    show = commands.add_parser("show", help="print the model card of a network")
    show.add_argument("name", metavar="NAME")
    verify = commands.add_parser("verify", help="compare files with their checksums and open them")
    verify.add_argument("name", nargs="?", metavar="NAME", help="one network (default: all)")
    convert = commands.add_parser(
        "convert", help="a published SuperPoint, GCNv2, CosPlace or NetVLAD checkpoint to ONNX"
    )
    convert.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a PyTorch file; its layout is recognised")
    convert.add_argument("out", type=Path, metavar="OUT.onnx", help="the file to write")


def run(options: argparse.Namespace) -> int:
    """Do what the sub-command says; returns the exit code."""
    return {"list": _list, "show": _show, "verify": _verify, "convert": _convert}[options.what](options)


def _list(options: argparse.Namespace) -> int:
    from vslam.inference.models import manifest

    for model in manifest().values():
        sizes = ", ".join(f"{name} {entry['bytes'] / 1e6:.2f} MB" for name, entry in model.files.items())
        print(f"{model.name:12} {model.licence:12} {sizes:30} {model.description}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from vslam.inference.models import find_model

    model = find_model(options.name)
    print((model.folder / model.card).read_text(), end="")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from vslam.inference.models import find_model, manifest
    from vslam.inference.session import open_session

    chosen = [find_model(options.name)] if options.name else list(manifest().values())
    for model in chosen:
        for precision in model.files:
            open_session(model.file(precision))
            print(f"{model.name} {precision}: good")
    return 0


def _convert(options: argparse.Namespace) -> int:
    from vslam.cli.train import require_torch

    require_torch()
    from vslam.train.convert import convert

    layout = convert(options.checkpoint, options.out)
    print(f"{options.out}: {layout.name}; use it with {layout.use}")
    print(f"licence: {layout.licence}")
    return 0
