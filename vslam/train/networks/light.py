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


class CornerResponse(nn.Module):
    """How corner-like each pixel is: root of det / trace of the structure tensor (Noble 1988), not learned.

    A network that has to find pixels from maps at 1/4 stays for thousands of steps at 'somewhere in this cell'; given
    this response it starts from corners and learns which of them last (as Key.Net does, Barroso-Laguna et al. 2019).
    """

    SCALE = 8.0  # brings the response of a clear corner to the range of logits

    def __init__(self):
        super().__init__()
        smooth, slope = gaussian_pair()
        kernels = torch.stack([smooth[:, None] * slope[None], slope[:, None] * smooth[None]])
        self.register_buffer("gradient", kernels[:, None])

    def forward(self, image: Tensor) -> Tensor:
        """Response (N, 1, H, W) of a normalised image (N, 1, H, W)."""
        gx, gy = self.slopes(image)
        xx, yy, xy = (self.mean3x3(product) for product in (gx * gx, gy * gy, gx * gy))
        ratio = (xx * yy - xy * xy) / (xx + yy + 1e-3)
        return (F.relu(ratio) + 1e-5).sqrt() * self.SCALE

    def slopes(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives along x and y, smoothed with sigma 1 px."""
        return F.conv2d(image, self.gradient, padding=2).chunk(2, dim=1)

    def mean3x3(self, values: Tensor) -> Tensor:
        """Mean over 3x3 pixels, zeros outside the image, by sums: PyTorch is slow at pooling one channel."""
        padded = F.pad(values, (1, 1, 1, 1))
        rows = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
        return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def gaussian_pair() -> tuple[Tensor, Tensor]:
    """A Gaussian of sigma 1 px at 5 places, of sum 1, and its slope, which gives 1 on a ramp of 1 a pixel."""
    t = torch.arange(-2.0, 3.0)
    bell = torch.exp(-t * t / 2)
    return bell / bell.sum(), t * bell / (t * t * bell).sum()


class Seen(nn.Sequential):
    """First layer of the detector, over all it sees of a cell: the 1/8 map, the 1/4 map and each pixel's response."""

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        eighth, quarter, corners = maps
        return super().forward(torch.cat([eighth, F.pixel_unshuffle(quarter, 2), corners], dim=1))


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
        self.corners = CornerResponse()
        self.corner_gain = nn.Parameter(torch.tensor(1.0))
        seen = Seen(*conv(c + 4 * b + CELL * CELL, head, 1))
        self.detector = nn.Sequential(seen, conv(head, head), nn.Conv2d(head, CELL * CELL + 1, 1))
        self.describe = conv(c, head)
        self.descriptor = nn.Conv2d(head, widths.descriptor, 1)
        self.bits = nn.Conv2d(head, widths.bits, 1)
        self.reliability = nn.Conv2d(head, 1, 1)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Detector logits (N, 65, H/8, W/8) and the features (N, head, H/8, W/8) all descriptor heads share."""
        normal = normalise(image)
        quarter, eighth = self.trunk(normal)
        return self.detect(self.corners(normal), quarter, eighth), self.share(eighth)

    def trunk(self, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Features at 1/4 and 1/8 of a normalised image."""
        quarter = self.at4(self.at2(normal))
        return quarter, self.at8(quarter)

    def detect(self, response: Tensor, quarter: Tensor, eighth: Tensor) -> Tensor:
        """Detector logits (N, 65, H/8, W/8) from the corner response and the maps of the trunk."""
        corners = F.pixel_unshuffle(response, CELL)
        semi = self.detector((eighth, quarter, corners))
        return semi + F.pad(self.corner_gain * corners, (0, 0, 0, 0, 0, 1))  # nothing is added to 'none'

    def share(self, eighth: Tensor) -> Tensor:
        """The features (N, head, H/8, W/8) that all descriptor heads share."""
        context = F.interpolate(self.at16(eighth), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.describe(F.relu(eighth + context))

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
    return F.pixel_shuffle(semi.softmax(dim=1)[:, :-1], CELL)[:, 0]
