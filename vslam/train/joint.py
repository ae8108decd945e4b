"""The joint loss of detector, float descriptor, bits and reliability on a batch of pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vslam.errors import VslamError
from vslam.train import losses
from vslam.train.networks.light import LightNet, normalise
from vslam.train.settings import LossWeights

START_SCALE, MAX_SCALE = 20.0, 60.0
"""Inverse temperature of the dual softmax: where it starts, and a bound against collapse."""

DETECTOR_PARTS = ("detector", "place")
DESCRIPTOR_PARTS = ("descriptor", "hinge_dense", "hinge_sparse")
BIT_PARTS = ("bits_float", "bits", "triplet", "triplet_bits", "balance")
"""Which losses train which head."""
SHARES = {
    "detector": ("detector", 0.5), "detector_warped": ("detector", 0.5),
    "hinge_dense_right": ("hinge_dense", 1.0), "hinge_dense_wrong": ("hinge_dense", 1.0),
    "hinge_sparse_right": ("hinge_sparse", 1.0), "hinge_sparse_wrong": ("hinge_sparse", 1.0),
}  # fmt: skip
"""Parts that are logged apart and share a weight: whose, and how much of it; the others have their own."""


class JointModel(nn.Module):
    """The network and the learned scales of its losses; `forward` gives each loss, so that DDP sees one module."""

    def __init__(self, network: LightNet, weights: LossWeights = LossWeights()):
        super().__init__()
        if not any(vars(weights).values()):
            raise VslamError("losses: every weight is 0, so nothing would be learned; give one of them a value")
        self.network = network
        self.weights = weights
        self.scales = nn.Parameter(torch.full((3,), float(np.log(START_SCALE))))
        self._hold_idle()

    def _hold_idle(self) -> None:
        """What no chosen loss reaches does not train: several processes wait for every gradient there is to come."""
        network = self.network
        reached = {
            DETECTOR_PARTS: [network.detector, network.corner_gain],
            (*DESCRIPTOR_PARTS, *BIT_PARTS, "reliability"): [network.at16, network.describe],
            DESCRIPTOR_PARTS: [network.descriptor],
            BIT_PARTS: [network.bits],
            ("reliability",): [network.reliability],
            ("descriptor", "bits_float", "bits"): [self.scales],
        }
        for names, parts in reached.items():
            is_used = any(getattr(self.weights, name) for name in names)
            for part in parts:
                part.requires_grad_(is_used)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Parts of the loss, unweighted, and figures to watch: share of right mutual matches (float and bits), cosine
        that right pairs lack to 1, and cosine of the nearest wrong ones. Heads without weight are left out."""
        network, weights = self.network, self.weights
        images = batch["images"].flatten(0, 1)[:, None].float() / 255
        normal = normalise(images.contiguous(memory_format=torch.channels_last))
        quarter, eighth = network.trunk(normal)
        parts: dict[str, Tensor] = {}
        if any(getattr(weights, name) for name in DETECTOR_PARTS):
            with _full_precision(normal):
                response = network.corners(normal)
            parts |= self._detector(network.detect(response, quarter, eighth).float(), batch)
        if describes(weights):
            shared = network.share(eighth).float()
            with _full_precision(normal):
                parts |= self._descriptors(shared, batch)
        return parts

    def _detector(self, semi: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        points = batch["points"].flatten(0, 1)
        corners = (batch["valid"] & batch["is_corner"]).repeat(2, 1)
        log_probability = losses.pixel_log_probability(semi)
        views = zip(semi.chunk(2), batch["targets"], batch["masks"], strict=True)
        first, second = (losses.cell_cross_entropy(*view) for view in views)
        place = losses.place_loss(log_probability, points, corners)
        return {"detector": first, "detector_warped": second, "place": place}

    def _descriptors(self, shared: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network, points, valid = self.network, batch["points"], batch["valid"]
        at_points = losses.sample_map(shared, points.flatten(0, 1))
        blocked = [losses.blocked_pairs(points[k], valid) for k in (0, 1)]
        scales = self.scales.exp().clamp(max=MAX_SCALE)
        unit = F.normalize(_pointwise(network.descriptor, at_points), dim=2).chunk(2)
        values = _pointwise(network.bits, at_points)
        whole = F.normalize(values, dim=2).chunk(2)
        signs = (losses.straight_through_sign(values) / values.shape[2] ** 0.5).chunk(2)
        descriptor, logits = losses.dual_softmax(*unit, scales[0], *blocked, valid)
        bits_float, value_logits = losses.dual_softmax(*whole, scales[1], *blocked, valid)
        bits, bit_logits = losses.dual_softmax(*signs, scales[2], *blocked, valid)
        right = losses.reliability_targets(logits, points[0], points[1], valid)
        right_bits = losses.reliability_targets(bit_logits, points[0], points[1], valid)
        sure = _pointwise(network.reliability, at_points)[..., 0].chunk(2)
        both = ((right + right_bits) / 2).to(sure[0].dtype)
        reliability = sum(F.binary_cross_entropy_with_logits(s, both, weight=valid.to(s.dtype)) for s in sure)
        count = valid.sum().clamp(min=1)
        cosines = logits / scales[0]
        parts = {
            "descriptor": descriptor,
            "bits_float": bits_float,
            "bits": bits,
            "triplet": losses.hardest_triplet(value_logits / scales[1], *blocked, valid),
            "triplet_bits": losses.hardest_triplet(bit_logits / scales[2], *blocked, valid),
            "balance": losses.bit_balance(values, valid.repeat(2, 1)),
            "reliability": reliability,
            "right": (right * valid).sum() / count,
            "right_bits": (right_bits * valid).sum() / count,
        }
        return parts | self._hinges(shared, cosines, blocked[1], batch) | _likeness(cosines, blocked[1], valid)

    def _hinges(self, shared: Tensor, cosines: Tensor, blocked: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        if self.weights.hinge_sparse:
            pair = losses.sparse_hinge(cosines, blocked, batch["valid"], int(batch["seed"][0]))
            found |= dict(zip(("hinge_sparse_right", "hinge_sparse_wrong"), pair, strict=True))
        if self.weights.hinge_dense:
            a, b = F.normalize(self.network.descriptor(shared).float(), dim=1).chunk(2)
            pair = losses.dense_hinge(a, b, batch["cells"], batch["masks"])
            found |= dict(zip(("hinge_dense_right", "hinge_dense_wrong"), pair, strict=True))
        return found


def _full_precision(like: Tensor) -> torch.autocast:
    """What decides places, and which match is right, is not rounded by `mixed_precision`."""
    return torch.autocast(like.device.type, enabled=False)


def describes(weights: LossWeights) -> bool:
    """Whether any loss but the detector's counts."""
    return any(getattr(weights, name) for name in (*DESCRIPTOR_PARTS, *BIT_PARTS, "reliability"))


def _likeness(cosines: Tensor, blocked: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """What right pairs lack to a cosine of 1, and the cosine of the nearest wrong one; (N, P, P), to be watched."""
    with torch.no_grad():
        itself = torch.eye(cosines.shape[1], dtype=torch.bool, device=cosines.device)
        wrong = cosines.masked_fill(blocked | itself, -1.0).amax(dim=2)
        count = valid.sum().clamp(min=1)
        lacking = ((1 - cosines.diagonal(dim1=1, dim2=2)) * valid).sum() / count
        return {"positive": lacking, "negative": (wrong * valid).sum() / count}


def _pointwise(layer: nn.Conv2d, features: Tensor) -> Tensor:
    """A 1x1 convolution at points (N, P, C): it commutes with bilinear sampling and costs less there."""
    return F.linear(features, layer.weight[:, :, 0, 0], layer.bias)


def total(parts: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum of the parts; those of weight 0, and the figures to watch, are left out."""
    chosen = {name: SHARES.get(name, (name, 1.0)) for name in parts}
    factors = {name: share * getattr(weights, owner, 0.0) for name, (owner, share) in chosen.items()}
    return sum(factor * parts[name] for name, factor in factors.items() if factor)
