"""Our network as it is exported: the same maps from layers that run-times are quick at.

The first convolution reads four pixels of a row as four channels, and the detector's
first layer is the sum of three convolutions in the place of one over rearranged and joined maps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vslam.train.networks.light import CELL, CornerResponse, LightNet, gaussian_pair

Tensors = dict[str, Tensor]

GROUP = 4
"""Pixels of a row that the first convolution takes as channels: int8 instructions multiply four at a time."""


def fold(network: LightNet) -> LightNet:
    """Rebuild a network whose norms are folded; it gives the same maps."""
    _, at4, at8, _ = network.widths.trunk
    network.corners = ShiftedCornerResponse()
    network.at2[0] = RowStem(network.at2[0][0])
    network.detector[0] = SplitJoin(network.detector[0][0], at8, at4)
    return network.eval().requires_grad_(False)


def whole(tensors: Tensors) -> Tensors:
    """Tensors of a folded network under the names and in the shapes of the one that is trained; others as they are."""
    found = dict(tensors)
    if "at2.0.rows.weight" in found:
        found["at2.0.0.weight"] = RowStem.unfold(found.pop("at2.0.rows.weight"))
        bias = found.pop("at2.0.rows.bias")
        found["at2.0.0.bias"] = bias[: len(bias) // 2]
    if "detector.0.eighth.weight" in found:
        parts = [found.pop(f"detector.0.{part}.weight") for part in ("eighth", "quarter", "corners")]
        found["detector.0.0.weight"] = torch.cat([part.flatten(1) for part in parts], dim=1)[:, :, None, None]
        found["detector.0.0.bias"] = found.pop("detector.0.eighth.bias")
    return found


class RowStem(nn.Module):
    """A 3x3 convolution of stride 2 over one channel and its ReLU, by four pixels of a row: two columns come out."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.rows = nn.Conv2d(GROUP, 2 * conv.out_channels, 3, (2, 1), 1)
        weight = torch.zeros_like(self.rows.weight)
        for half, column, group, place in self.places():
            weight[half * conv.out_channels : (half + 1) * conv.out_channels, place, :, group] = conv.weight[
                :, 0, :, column
            ]
        self.rows.weight.data, self.rows.bias.data = weight, conv.bias.repeat(2)

    @staticmethod
    def places() -> list[tuple[int, int, int, int]]:
        """Rows (output column of two, column of the kernel, group left, here or right of it, pixel in that group)."""
        columns = [(half, column, 2 * half + column - 1) for half in range(2) for column in range(3)]
        return [(half, column, 1 + x // GROUP, x % GROUP) for half, column, x in columns]

    @classmethod
    def unfold(cls, rows: Tensor) -> Tensor:
        """The 3x3 kernels (A, 1, 3, 3) from those by rows (2 A, 4, 3, 3)."""
        kernels = [rows[: len(rows) // 2, place, :, group] for half, _, group, place in cls.places() if not half]
        return torch.stack(kernels, dim=2)[:, None]

    def forward(self, image: Tensor) -> Tensor:
        n, _, height, width = image.shape
        groups = image.reshape(n, height, width // GROUP, GROUP).permute(0, 3, 1, 2)
        pairs = F.relu(self.rows(groups)).permute(0, 2, 3, 1)
        return pairs.reshape(n, height // 2, width // 2, -1).permute(0, 3, 1, 2)


class SplitJoin(nn.Module):
    """What `Seen` gives, without moving pixels to channels: a kernel of 2x2 and stride 2 sees the same four."""

    def __init__(self, conv: nn.Conv2d, at8: int, at4: int):
        super().__init__()
        out = conv.out_channels
        self.eighth = nn.Conv2d(at8, out, 1)
        self.quarter = nn.Conv2d(at4, out, 2, 2, bias=False)
        self.corners = nn.Conv2d(CELL * CELL, out, 1, bias=False)
        eighth, quarter, corners = conv.weight.data.split([at8, 4 * at4, CELL * CELL], dim=1)
        self.eighth.weight.data, self.eighth.bias.data = eighth.clone(), conv.bias.data.clone()
        self.quarter.weight.data = quarter.reshape(out, at4, 2, 2).clone()
        self.corners.weight.data = corners.clone()

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        eighth, quarter, corners = maps
        return F.relu(self.quarter(quarter) + self.eighth(eighth) + self.corners(corners))


class ShiftedCornerResponse(CornerResponse):
    """The same values by adding shifted images: run-times are slow at convolutions of one channel."""

    def slopes(self, image: Tensor) -> tuple[Tensor, Tensor]:
        smooth, slope = (kernel.tolist() for kernel in gaussian_pair())
        padded = F.pad(image, (2, 2, 2, 2))
        return add_shifted(add_shifted(padded, smooth, 2), slope, 3), add_shifted(
            add_shifted(padded, slope, 2), smooth, 3
        )

    def mean3x3(self, values: Tensor) -> Tensor:
        third = [1 / 3] * 3
        return add_shifted(add_shifted(F.pad(values, (1, 1, 1, 1)), third, 2), third, 3)


def add_shifted(image: Tensor, weights: list[float], dim: int) -> Tensor:
    """Correlation with a few weights along one dimension, without padding."""
    last = len(weights) - 1
    windows = [slice(k, k - last if k < last else None) for k in range(len(weights))]  # fixed slices export plainly
    terms = [
        weight * (image[:, :, window] if dim == 2 else image[:, :, :, window])
        for weight, window in zip(weights, windows, strict=True)
        if weight
    ]
    return sum(terms[1:], terms[0])
