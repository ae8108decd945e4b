"""Published place networks, built so that their own tensors load: CosPlace on ResNets, NetVLAD on VGG-16.

Both were trained on colour, made zero mean and unit spread by ImageNet's figures. Here a grey image (N, 1, H, W) in
[0, 1] goes to all three channels inside the network, so that they are used like ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue."""

VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""Channels of the convolutions up to conv5_3; 0 halves the map."""


def as_colour(grey: Tensor) -> Tensor:
    """Three normalised channels (N, 3, H, W) of a grey image (N, 1, H, W) in [0, 1]."""
    return torch.cat([(grey - mean) / spread for mean, spread in zip(MEAN, SPREAD, strict=True)], dim=1)


def unit(values: Tensor) -> Tensor:
    """Divided by their length along the channels, as `F.normalize` does."""
    return values / (values * values).sum(dim=1, keepdim=True).sqrt().clamp(min=1e-12)


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the channels (He et al. 2016)."""

    def __init__(self, inputs: int, channels: int, stride: int, bottleneck: bool):
        super().__init__()
        outputs = channels * (4 if bottleneck else 1)
        if bottleneck:
            plan = [(inputs, channels, 1, 1), (channels, channels, 3, stride), (channels, outputs, 1, 1)]
        else:
            plan = [(inputs, channels, 3, stride), (channels, channels, 3, 1)]
        self.count = len(plan)
        for k, (before, after, kernel, step) in enumerate(plan, start=1):
            self.add_module(f"conv{k}", nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{k}", nn.BatchNorm2d(after))
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for k in range(1, self.count + 1):
            y = self.get_submodule(f"bn{k}")(self.get_submodule(f"conv{k}")(y))
            y = F.relu(y) if k < self.count else y
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class CosPlaceResNet(nn.Module):
    """CosPlace's layout (Berton et al. 2022), EigenPlaces' too: ResNet, unit local features, GeM, linear, unit length.

    `blocks` are the residual blocks of the four stages: (2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) ResNet-34 or, with
    bottlenecks, ResNet-50.
    """

    def __init__(self, blocks: tuple[int, ...], bottleneck: bool, descriptor: int):
        super().__init__()
        stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        stages, inputs = [], 64
        for k, count in enumerate(blocks):
            stage, channels = [], 64 * 2**k
            for block in range(count):
                stage.append(Block(inputs, channels, 2 if k and not block else 1, bottleneck))
                inputs = channels * (4 if bottleneck else 1)
            stages.append(nn.Sequential(*stage))
        self.backbone = nn.Sequential(*stem, *stages)
        pool = nn.Module()
        pool.p = nn.Parameter(torch.ones(1) * 3)
        self.aggregation = nn.ModuleList([nn.Identity(), pool, nn.Identity(), nn.Linear(inputs, descriptor)])

    def forward(self, image: Tensor) -> Tensor:
        local = unit(self.backbone(as_colour(image)))
        p = self.aggregation[1].p.item()  # a constant of the exported file
        pooled = local.clamp(min=1e-6).pow(p).mean(dim=(2, 3), keepdim=True).pow(1 / p)
        linear = self.aggregation[3]
        return unit(F.conv2d(pooled, linear.weight[:, :, None, None], linear.bias)[:, :, 0, 0])


class NetVladVgg16(nn.Module):
    """NetVLAD's layout (Arandjelovic et al. 2016) on VGG-16 up to conv5_3, no whitening: clusters * 512 values."""

    def __init__(self, clusters: int, biased: bool):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in VGG16:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2, 2)]
            channels = width or channels
        self.encoder = nn.Sequential(*layers[:-1])
        self.pool = nn.Module()
        self.pool.conv = nn.Conv2d(channels, clusters, 1, bias=biased)
        self.pool.centroids = nn.Parameter(torch.rand(clusters, channels))

    def forward(self, image: Tensor) -> Tensor:
        local = unit(self.encoder(as_colour(image)))
        share = self.pool.conv(local).softmax(dim=1).flatten(2)
        sums = share @ local.flatten(2).transpose(1, 2)
        residual = sums - share.sum(dim=2)[:, :, None] * self.pool.centroids
        return unit(unit(residual.transpose(1, 2)).transpose(1, 2).flatten(1))
