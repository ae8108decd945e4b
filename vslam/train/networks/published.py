"""Published layouts that users may own weights of: SuperPoint in three forms, GCNv2 and GCNv2-tiny.

Layers after DeTone et al. 2018 ("SuperPoint") and Tang et al. 2019 ("GCNv2"); only definitions, no weights.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vslam.train.networks.light import heatmap

Order = Literal["plain", "relu-norm", "norm-relu"]

SUPERPOINT_STAGES = ((64, 64), (64, 64), (128, 128), (128, 128))
SUPERPOINT_HEAD = 256


class Layer(nn.Module):
    """A convolution with bias, and ReLU and batch norm in the order of the layout; the last of a head has no ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, order: Order, is_last: bool = False):
        super().__init__()
        self.order, self.is_last = order, is_last
        self.conv = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2)
        if order != "plain":
            self.norm = nn.BatchNorm2d(outputs, eps=1e-3 if order == "relu-norm" else 1e-5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.order == "norm-relu":
            x = self.norm(x)
        if not self.is_last:
            x = F.relu(x)
        return self.norm(x) if self.order == "relu-norm" else x


class SuperPoint(nn.Module):
    """Image (N, 1, H, W) in [0, 1] to `score` (N, H, W) and unit `descriptors` (N, H/8, W/8, 256)."""

    outputs = ("score", "descriptors")

    def __init__(self, order: Order):
        super().__init__()
        self.layers = nn.ModuleDict()
        inputs = 1
        for stage, widths in enumerate(SUPERPOINT_STAGES, start=1):
            for letter, width in zip("ab", widths, strict=True):
                self.layers[f"conv{stage}{letter}"] = Layer(inputs, width, 3, order)
                inputs = width
        for letter, outputs in (("P", 65), ("D", 256)):
            self.layers[f"conv{letter}a"] = Layer(inputs, SUPERPOINT_HEAD, 3, order)
            self.layers[f"conv{letter}b"] = Layer(SUPERPOINT_HEAD, outputs, 1, order, is_last=True)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = image
        for stage in range(1, 5):
            x = self.layers[f"conv{stage}b"](self.layers[f"conv{stage}a"](x))
            if stage < 4:
                x = F.max_pool2d(x, 2)
        semi = self.layers["convPb"](self.layers["convPa"](x))
        described = self.layers["convDb"](self.layers["convDa"](x))
        return heatmap(semi), unit(described)


class Gcnv2(nn.Module):
    """Image (N, 1, H, W) in [0, 1] to `score` (N, H, W) and unit `descriptors` (N, H/16, W/16, 256), bits by sign."""

    outputs = ("score", "descriptors")

    def __init__(self, tiny: bool):
        super().__init__()
        a, b, c, d = (32, 32, 64, 128) if tiny else (32, 64, 128, 256)
        self.conv1 = nn.Conv2d(1, a, 4, 2, 1)
        self.conv2 = nn.Conv2d(a, b, 4, 2, 1)
        self.conv3_1 = nn.Conv2d(b, c, 3, 1, 1)
        self.conv3_2 = nn.Conv2d(c, c, 4, 2, 1)
        self.conv4_1 = nn.Conv2d(c, d, 3, 1, 1)
        self.conv4_2 = nn.Conv2d(d, d, 4, 2, 1)
        self.convF_1 = nn.Conv2d(d, 256, 3, 1, 1)
        self.convF_2 = nn.Conv2d(256, 256, 1)
        self.convD_1 = nn.Conv2d(d, 256, 3, 1, 1)
        self.convD_2 = nn.Conv2d(256, 256, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = image
        for layer in (self.conv1, self.conv2, self.conv3_1, self.conv3_2, self.conv4_1, self.conv4_2):
            x = F.elu(layer(x))
        described = self.convF_2(F.elu(self.convF_1(x)))
        score = self.convD_2(F.elu(self.convD_1(x))).sigmoid()
        return F.pixel_shuffle(score, 16)[:, 0], unit(described)


def unit(described: Tensor) -> Tensor:
    """Maps (N, D, h, w) divided by their norm over D, as (N, h, w, D)."""
    described = described / (torch.sum(described * described, dim=1, keepdim=True) + 1e-12).sqrt()
    return described.permute(0, 2, 3, 1)
