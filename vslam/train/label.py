"""Pseudo ground truth by a network of ours: its detections under many warps of an image, carried back and averaged.

Homographic adaptation (DeTone et al. 2018, section 5). The labels are written beside the packs, one file a pack, in the
form that `vslam.train.data.pack` describes, and take the place of the packs' own keypoints in a run with `labels:`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from vslam.errors import VslamError
from vslam.train.data.corners import Detector, adapt, ranked_peaks
from vslam.train.data.pack import LABELS, Pack, encode_corners, open_packs, write_arrays
from vslam.train.export import fold_norms
from vslam.train.networks.light import LightNet, heatmap


@dataclass(frozen=True)
class LabelConfig:
    """How labels are made."""

    warps: int = 100  # the first is the image itself
    threshold: float = 0.015  # mean probability of a pixel
    limit: int = 600  # keypoints an image
    radius: int = 4  # pixels about a keypoint without another
    seed: int = 0


def label_packs(
    packs: Path, out: Path, network: LightNet, name: str, config: LabelConfig = LabelConfig(), device: str = "cpu"
) -> Iterator[str]:
    """Write a label file for every pack of a folder that has none yet; yields a line for each.

    Raises:
        VslamError: no packs, or a file that cannot be written.
    """
    if packs.resolve() == out.resolve():
        raise VslamError(f"{out}: is the folder of the packs; choose another for their labels")
    detect = network_detector(network, device)
    origin = f"{name}, sha256 {digest(network)}"
    for pack in open_packs(packs):
        file = out / (pack.name + LABELS)
        if file.exists():
            yield f"{file}: there already"
            continue
        found = [label_image(pack.image(k), detect, config, pack_seed(pack, k)) for k in range(len(pack))]
        points = encode_corners([xy for xy, _ in found])
        scores = np.concatenate([score for _, score in found]).astype(np.float32)
        how = {"detector": np.array(origin), "warps": np.int64(config.warps), "threshold": np.float64(config.threshold)}
        write_arrays(file, points | how | {"scores": scores})
        yield f"{file}: {len(pack)} images, {len(scores) / len(pack):.0f} keypoints an image"


def label_image(
    image: np.ndarray, detect: Detector, config: LabelConfig, seed: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints of a grey uint8 image, float32 (M, 2) pixels, best first, and their mean probability (M,)."""
    rng = np.random.default_rng((config.seed, *seed))
    score = adapt(image, detect, rng, config.warps)
    xy, _ = ranked_peaks(score, 0.0, score.size, config.radius)  # of the smoothed map, which has lower peaks
    column, row = np.rint(xy).astype(int).T
    mean = cv2.dilate(score.astype(np.float32), np.ones((3, 3), np.uint8))[row, column]
    order = np.argsort(-mean, kind="stable")[: config.limit]
    order = order[mean[order] > config.threshold]
    return xy[order], mean[order]


def network_detector(network: LightNet, device: str = "cpu") -> Detector:
    """The probability map of a network, as homographic adaptation takes it."""
    folded = fold_norms(network).to(device)

    def detect(image: np.ndarray) -> np.ndarray:
        bottom, right = -image.shape[0] % network.stride, -image.shape[1] % network.stride
        padded = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        with torch.no_grad():
            grey = torch.from_numpy(padded)[None, None].to(device).float() / 255
            probability = heatmap(folded.features(grey)[0])[0].cpu().numpy()
        return np.ascontiguousarray(probability[: image.shape[0], : image.shape[1]])

    return detect


def pack_seed(pack: Pack, index: int) -> tuple[int, int]:
    """Numbers that an image's warps depend on, whatever other packs there are."""
    return int.from_bytes(hashlib.sha256(pack.name.encode()).digest()[:4], "little"), index


def digest(network: LightNet) -> str:
    """Which weights: the start of their sha256."""
    total = hashlib.sha256()
    for key, value in network.state_dict().items():
        total.update(key.encode())
        total.update(value.cpu().numpy().tobytes())
    return total.hexdigest()[:16]
