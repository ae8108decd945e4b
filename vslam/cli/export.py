"""`vslam export`: a network as an ONNX or OpenVINO file, checked before the command returns."""

from __future__ import annotations

import argparse
from pathlib import Path

NAMES = ("superpoint", "gcnv2", "gcnv2-tiny", "gem", "cosplace", "netvlad", "sequence")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, where its weights come from, and the form of the file."""
    parser.add_argument("network", choices=NAMES)
    parser.add_argument(
        "--checkpoint", type=Path, help="run folder or checkpoint of 'vslam train' (default: shipped weights)"
    )
    parser.add_argument("--format", choices=("onnx", "openvino"), default="onnx")
    parser.add_argument(
        "--precision", choices=("fp16", "int8"), default="fp16", help="how weights are stored (%(default)s)"
    )
    parser.add_argument("--images", type=Path, help="folder of images to calibrate int8 on; needed for int8")
    parser.add_argument("--out", type=Path, help="file to write (default: NETWORK.onnx or NETWORK.xml)")


def run(options: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from vslam.cli.train import require_torch

    require_torch()
    from vslam.train import exporting

    out = options.out or Path(options.network).with_suffix(".onnx" if options.format == "onnx" else ".xml")
    for line in exporting.export(
        options.network, options.checkpoint, out, options.format, options.precision, options.images
    ):
        print(line)
    return 0
