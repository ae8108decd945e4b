"""The joint loss of detector, float descriptor, bits and reliability on a batch of pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vslam.train import losses
from vslam.train.networks.light import LightNet
from vslam.train.settings import LossWeights

START_SCALE, MAX_SCALE = 20.0, 60.0
"""Inverse temperature of the dual softmax: where it starts, and a bound against collapse."""


class JointModel(nn.Module):
    """The network and the learned scales of its losses; `forward` gives each loss, so that DDP sees one module."""

    def __init__(self, network: LightNet):
        super().__init__()
        self.network = network
        self.scales = nn.Parameter(torch.full((3,), float(np.log(START_SCALE))))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Parts of the loss, unweighted, and two figures to watch: share of right mutual matches, float and bits."""
        images = batch["images"].flatten(0, 1)[:, None].float() / 255
        semi, shared = self.network.features(images.contiguous(memory_format=torch.channels_last))
        points, valid = batch["points"].flatten(0, 1), batch["valid"]
        at_points = losses.sample_map(shared, points)
        parts = self._detector(semi.float(), batch, points)
        parts |= self._descriptors(at_points.float(), batch["points"], valid)
        return parts

    def _detector(self, semi: Tensor, batch: dict[str, Tensor], points: Tensor) -> dict[str, Tensor]:
        targets, masks = batch["targets"].flatten(0, 1), batch["masks"].flatten(0, 1)
        corners = (batch["valid"] & batch["is_corner"]).repeat(2, 1)
        log_probability = losses.pixel_log_probability(semi)
        return {
            "detector": losses.cell_cross_entropy(semi, targets, masks),
            "place": losses.place_loss(log_probability, points, corners),
        }

    def _descriptors(self, at_points: Tensor, points: Tensor, valid: Tensor) -> dict[str, Tensor]:
        network = self.network
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
        return {
            "descriptor": descriptor,
            "bits_float": bits_float,
            "bits": bits,
            "triplet": losses.hardest_triplet(value_logits / scales[1], *blocked, valid),
            "balance": losses.bit_balance(values, valid.repeat(2, 1)),
            "reliability": reliability,
            "right": (right * valid).sum() / count,
            "right_bits": (right_bits * valid).sum() / count,
        }


def _pointwise(layer: nn.Conv2d, features: Tensor) -> Tensor:
    """A 1x1 convolution at points (N, P, C): it commutes with bilinear sampling and costs less there."""
    return F.linear(features, layer.weight[:, :, 0, 0], layer.bias)


def total(parts: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """The weighted sum of the parts; those of weight 0, and the figures to watch, are left out."""
    return sum(getattr(weights, name) * value for name, value in parts.items() if getattr(weights, name, 0.0))
