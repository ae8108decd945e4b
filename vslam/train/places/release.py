"""Place networks as ONNX files, each checked against PyTorch before it gets its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from vslam.errors import VslamError
from vslam.features.learned import as_input
from vslam.inference.session import open_session
from vslam.train.export import fold_norms, store_half, write_onnx
from vslam.train.loop import CHECKPOINT, read_checkpoint
from vslam.train.places.networks import NETWORKS, build_place_network
from vslam.train.release import smooth_noise

TOLERANCE = 1e-4
"""Largest difference of a descriptor's entry from PyTorch's."""

HALF_TOLERANCE = 1e-2
"""The same for weights rounded to 11 bits."""

AXES = {"image": {0: "images", 2: "height", 3: "width"}, "place": {0: "images"}}


def load_place_network(checkpoint: Path, name: str) -> tuple[nn.Module, int]:
    """The averaged network of a checkpoint (file, or folder of a run), and its step.

    Raises:
        VslamError: not a checkpoint, one of another network, or of a run that has not ended.
    """
    file = checkpoint / CHECKPOINT if checkpoint.is_dir() else checkpoint
    state = read_checkpoint(file)
    if state["network"] != name or name not in NETWORKS:
        raise VslamError(f"{file}: holds network '{state['network']}', not '{name}'")
    network = build_place_network(name)
    prefix = "network."
    own = {key.removeprefix(prefix): value for key, value in state["averaged"].items() if key.startswith(prefix)}
    if {key: value.shape for key, value in own.items()} != {k: v.shape for k, v in network.state_dict().items()}:
        raise VslamError(f"{file}: layers of another version of '{name}'; train on from it with --init")
    network.load_state_dict(own)
    if not getattr(network, "is_whitened", True):
        raise VslamError(f"{file}: has no whitening yet, which the end of the run computes; let it end (--steps)")
    return network.eval(), int(state["step"])


def export_place(network: nn.Module, file: Path) -> None:
    """Write image (N, 1, H, W) -> `place` (N, D) as ONNX with half-precision weights, checked against PyTorch.

    Raises:
        VslamError: the written file gives other descriptors.
    """
    folded = fold_norms(network)
    exact = file.with_suffix(".float.onnx")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        export_exact(folded, exact)
        store_half(exact, file)
        check_places(folded, file, HALF_TOLERANCE)
    finally:
        exact.unlink(missing_ok=True)


def export_exact(network: nn.Module, file: Path) -> None:
    """Write a network with folded norms as float32 ONNX, checked against PyTorch."""
    write_onnx(network, torch.rand(2, 1, 96, 128), AXES, file)
    check_places(network, file, TOLERANCE)


def check_places(network: nn.Module, file: Path, tolerance: float) -> None:
    """VslamError unless the file's descriptors equal PyTorch's, on two sizes of image and two numbers of them."""
    session = open_session(file, "onnx")
    rng = np.random.default_rng(0)
    for count, shape in ((1, (144, 192)), (3, (112, 160))):
        images = np.concatenate([as_input(smooth_noise(rng, shape)) for _ in range(count)])
        with torch.no_grad():
            expected = network(torch.from_numpy(images)).numpy()
        error = float(np.abs(session.run(images)["place"] - expected).max())
        if error > tolerance:
            raise VslamError(f"{file}: descriptors are off by {error:.1e} (allowed {tolerance}); the export is wrong")
