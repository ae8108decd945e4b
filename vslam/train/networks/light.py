"""Our network: one light trunk, a cell detector, a float descriptor and a binary descriptor.

The descent to half resolution in the first layer is where the speed comes from; the detector sees the quarter
resolution map through a pixel unshuffle, so that it can still tell the pixels of a cell apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELL = 8
"""Side of a detector cell in pixels: 64 places and one 'no keypoint' make the 65 channels."""


@dataclass(frozen=True)
class Widths:
    """Channels at 1/2, 1/4, 1/8 and 1/16, of the heads, and sizes of the descriptors."""

    trunk: tuple[int, ...] = (16, 32, 64, 96)
    head: int = 64
    descriptor: int = 64
    bits: int = 256


TINY = Widths(trunk=(16, 24, 48, 64), head=48)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; no bias, as batch norm has one."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def normalise(image: Tensor) -> Tensor:
    """Zero mean and unit spread over each image: gain and offset of the camera drop out. (N, 1, H, W)."""
    mean = image.mean(dim=(2, 3), keepdim=True)
    centred = image - mean
    return centred / ((centred * centred).mean(dim=(2, 3), keepdim=True) + 1e-4).sqrt()


class LightNet(nn.Module):
    """Image (N, 1, H, W) in [0, 1], H and W multiples of 16, to four maps at 1/8.

    `semi` (N, 65, ...) logits of a cell's pixels and of 'none'; `descriptors` (N, D, ...), to be sampled and then
    divided by their norm; `bits` (N, 256, ...), to be sampled and then compared with 0; `reliability` (N, 1, ...)
    logit of the probability that a keypoint here finds its mate.
    """

    stride = 16

    def __init__(self, widths: Widths = Widths()):
        super().__init__()
        a, b, c, d = widths.trunk
        head = widths.head
        self.widths = widths
        self.at2 = nn.Sequential(conv(1, a, stride=2), conv(a, a))
        self.at4 = nn.Sequential(conv(a, b, stride=2), conv(b, b))
        self.at8 = nn.Sequential(conv(b, c, stride=2), conv(c, c), conv(c, c))
        self.at16 = nn.Sequential(conv(c, d, stride=2), conv(d, d), nn.Conv2d(d, c, 1))
        self.detector = nn.Sequential(conv(c + 4 * b, head), conv(head, head), nn.Conv2d(head, CELL * CELL + 1, 1))
        self.describe = conv(c, head)
        self.descriptor = nn.Conv2d(head, widths.descriptor, 1)
        self.bits = nn.Conv2d(head, widths.bits, 1)
        self.reliability = nn.Conv2d(head, 1, 1)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Detector logits (N, 65, H/8, W/8) and the features (N, head, H/8, W/8) all descriptor heads share."""
        quarter = self.at4(self.at2(normalise(image)))
        eighth = self.at8(quarter)
        context = F.interpolate(self.at16(eighth), scale_factor=2.0, mode="bilinear", align_corners=False)
        semi = self.detector(torch.cat([eighth, F.pixel_unshuffle(quarter, 2)], dim=1))
        return semi, self.describe(F.relu(eighth + context))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        semi, shared = self.features(image)
        return {
            "semi": semi,
            "descriptors": self.descriptor(shared),
            "bits": self.bits(shared),
            "reliability": self.reliability(shared),
        }


def heatmap(semi: Tensor) -> Tensor:
    """Keypoint probability of each pixel (N, H, W) from logits (N, 65, H/8, W/8)."""
    return F.pixel_shuffle(semi.softmax(dim=1)[:, :-1], CELL).squeeze(1)
