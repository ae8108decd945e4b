"""Exports with their proof: the written file gives the maps of the network, and int8 says what it costs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vslam.errors import VslamError
from vslam.features.learned import as_input
from vslam.inference.session import Session, open_session
from vslam.train.data.warp import random_homography
from vslam.train.evaluate import best_described, score_pair
from vslam.train.export import DenseMaps, export_onnx, store_half
from vslam.train.loop import BEST, CHECKPOINT, build_network, read_checkpoint
from vslam.train.networks.light import LightNet

BINARY = {"superpoint": False, "gcnv2": True, "gcnv2-tiny": True}
NETWORK = {"superpoint": "light", "gcnv2": "light", "gcnv2-tiny": "tiny"}

TOLERANCE = 1e-3
"""Largest difference of a score or reliability, and of a descriptor as a share of its map's largest value."""

HALF_TOLERANCE = 2e-2
"""The same for weights rounded to 11 bits."""


@dataclass(frozen=True)
class Matching:
    """What a network finds in fixed warped pairs: keypoints and right matches a view, share of right matches."""

    keypoints: float
    right: float
    precision: float


def load_network(checkpoint: Path, name: str) -> tuple[LightNet, int]:
    """The averaged network of a checkpoint (file, or folder of a run), and its step.

    Raises:
        VslamError: not a checkpoint, or one of another network.
    """
    network, kind, step = open_checkpoint(checkpoint)
    if kind != NETWORK[name]:
        raise VslamError(f"{checkpoint_file(checkpoint)}: holds network '{kind}'; {name} needs '{NETWORK[name]}'")
    return network, step


def open_checkpoint(checkpoint: Path) -> tuple[LightNet, str, int]:
    """The averaged network of a checkpoint, what it is, and its step.

    Raises:
        VslamError: not a checkpoint.
    """
    state = read_checkpoint(checkpoint_file(checkpoint))
    network = build_network(state["network"])
    prefix = "network."
    own = {key.removeprefix(prefix): value for key, value in state["averaged"].items() if key.startswith(prefix)}
    network.load_state_dict(own)
    return network.eval(), state["network"], int(state["step"])


def checkpoint_file(checkpoint: Path) -> Path:
    """The file itself, or of a run's folder the best of its checkpoints, or the last where none was judged."""
    if not checkpoint.is_dir():
        return checkpoint
    return checkpoint / BEST if (checkpoint / BEST).is_file() else checkpoint / CHECKPOINT


def export_half(network: LightNet, name: str, file: Path) -> None:
    """Write a network as ONNX with half-precision weights, and check the file against PyTorch.

    Raises:
        VslamError: the written file gives other maps.
    """
    dense = DenseMaps(network, BINARY[name])
    exact = file.with_suffix(".float.onnx")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        export_onnx(dense, exact)
        check_parity(dense, exact, TOLERANCE)
        store_half(exact, file)
        check_parity(dense, file, HALF_TOLERANCE)
    finally:
        exact.unlink(missing_ok=True)


def check_parity(dense: DenseMaps, file: Path, tolerance: float) -> None:
    """VslamError unless the file's maps equal PyTorch's within `tolerance`, on two sizes of image."""
    session = open_session(file, "onnx")
    rng = np.random.default_rng(0)
    for shape in ((240, 320), (176, 208)):
        image = as_input(smooth_noise(rng, shape))
        with torch.no_grad():
            expected = [value.numpy() for value in dense(torch.from_numpy(image))]
        found = session.run(image)
        for name, truth in zip(dense.outputs, expected, strict=True):
            error = float(np.abs(found[name] - truth).max() / max(1.0, np.abs(truth).max()))
            if error > tolerance:
                raise VslamError(
                    f"{file}: map '{name}' is off by {error:.1e} (allowed {tolerance}); the export is wrong"
                )


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A uint8 image (H, W) with structure of several sizes."""
    import cv2

    layers = [cv2.resize(rng.random((shape[0] // s, shape[1] // s)), shape[::-1]) for s in (4, 8, 16, 32)]
    return (255 * np.mean(layers, axis=0)).astype(np.uint8)


def matching(session: Session, images: list[np.ndarray], binary: bool, count: int = 300) -> Matching:
    """Matching of each uint8 image (H, W) with a warped copy of itself; the same warps for every session."""
    import cv2

    rng = np.random.default_rng(5)
    rows = []
    for image in images:
        size = image.shape[::-1]
        matrix = random_homography(rng, size, 20.0, (0.8, 1.25), 0.15, 0.05)
        warped = cv2.warpPerspective(image, matrix, size, borderMode=cv2.BORDER_REFLECT_101)
        noisy = np.clip(warped * 0.8 + rng.normal(0, 4, warped.shape), 0, 255).astype(np.uint8)
        features = [best_described(session.run(as_input(view)), view.shape, binary, count) for view in (image, noisy)]
        keypoints, _, _, right, seen = score_pair(*features, matrix, image.shape)
        rows.append((keypoints, right, seen))
    keypoints, right, seen = np.array(rows, float).T
    return Matching(float(keypoints.mean()), float(right.mean()), float(right.sum() / max(seen.sum(), 1)))


def enter_manifest(manifest: Path, name: str, files: dict[str, Path], about: dict) -> None:
    """Write or replace one network's entry; `about` holds everything but the files."""
    entries = json.loads(manifest.read_text()) if manifest.is_file() else {}
    listed = {}
    for precision, file in files.items():
        content = file.read_bytes()
        listed[precision] = {"file": file.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    entries[name] = about | {"files": listed}
    partial = manifest.with_name(manifest.name + ".part")
    partial.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
    partial.replace(manifest)
