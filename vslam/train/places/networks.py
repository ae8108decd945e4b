"""The three networks that describe a whole image: one light backbone, three ways to pool its map.

All take (N, 1, H, W) grey in [0, 1], H and W multiples of 16, and give (N, D) of unit length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vslam.errors import VslamError
from vslam.train.networks.light import conv, normalise


@dataclass(frozen=True)
class PlaceWidths:
    """Channels at 1/2, 1/4, 1/8, 1/16, of the deep layers at 1/16, and of what is pooled."""

    trunk: tuple[int, ...] = (16, 32, 64, 96)  # as in LightNet, so that its layers can be the start
    deep: int = 192
    pooled: int = 256
    local: int = 96  # netvlad: channels of a local feature
    clusters: int = 32  # netvlad
    descriptor: int = 256
    whitened: int = 255  # gem: of its pooled values, the layout's, and a constant, 384 in all
    layout: int = 128


class Residual(nn.Module):
    """Two 3x3 convolutions and the way round them."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels), *list(conv(channels, channels))[:2])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Backbone(nn.Module):
    """Image (N, 1, H, W) to a map (N, deep, H/16, W/16); the first layers have LightNet's names and shapes."""

    stride = 16

    def __init__(self, widths: PlaceWidths):
        super().__init__()
        a, b, c, d = widths.trunk
        self.at2 = nn.Sequential(conv(1, a, stride=2), conv(a, a))
        self.at4 = nn.Sequential(conv(a, b, stride=2), conv(b, b))
        self.at8 = nn.Sequential(conv(b, c, stride=2), conv(c, c), conv(c, c))
        self.at16 = nn.Sequential(conv(c, d, stride=2), conv(d, d))
        self.deep = nn.Sequential(conv(d, widths.deep), Residual(widths.deep))

    def forward(self, image: Tensor) -> Tensor:
        return self.deep(self.at16(self.at8(self.at4(self.at2(normalise(image))))))

    def trunk(self) -> nn.ModuleList:
        """The layers that a trained LightNet can initialise."""
        return nn.ModuleList([self.at2, self.at4, self.at8, self.at16])


def unit(values: Tensor, dim: int = 1) -> Tensor:
    """Vectors along `dim` divided by their length, written so that every run-time knows the operators."""
    return values / ((values * values).sum(dim=dim, keepdim=True) + 1e-12).sqrt()


class GeneralisedMean(nn.Module):
    """`(mean x^p)^(1/p)` over the map with a learned p (Radenovic et al. 2018); (N, C, h, w) to (N, C, 1, 1)."""

    def __init__(self, power: float = 3.0):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(power))

    def forward(self, x: Tensor) -> Tensor:
        powered = x.clamp(min=1e-6).pow(self.p)
        return powered.mean(dim=(2, 3), keepdim=True).pow(1 / self.p)


def peaks(x: Tensor, sharpness: float = 2.0) -> Tensor:
    """Nearly the largest value (N, C) of each channel of a map, its mean with weights `softmax(sharpness * x)`."""
    values = x.flatten(2)
    return ((values * sharpness).softmax(dim=2) * values).sum(dim=2)


class Pooled(nn.Module):
    """Generalised mean, a linear layer, unit length (Radenovic et al. 2018)."""

    def __init__(self, widths: PlaceWidths = PlaceWidths()):
        super().__init__()
        self.widths = widths
        self.width = widths.descriptor
        self.backbone = Backbone(widths)
        self.last = conv(widths.deep, widths.pooled, 1)
        self.pool = GeneralisedMean()
        self.linear = nn.Conv2d(widths.pooled, widths.descriptor, 1)  # of a 1x1 map: a linear layer

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.local(image))

    def head(self, local: Tensor) -> Tensor:
        """Descriptors (N, D) of maps that `local` gave."""
        return unit(self.linear(self.pool(local))[:, :, 0, 0])

    def local(self, image: Tensor) -> Tensor:
        """The map (N, C, h, w) that is pooled."""
        return self.last(self.backbone(image))


class CosPlace(Pooled):
    """As Pooled, with local features of unit length before the mean (Berton et al. 2022)."""

    def local(self, image: Tensor) -> Tensor:
        return unit(super().local(image))


class Layout(nn.Module):
    """Where light and edges lie in a small copy of the image, which a mean over the map forgets.

    Of images (N, 1, H, W) it gives (N, D) of unit length.

    Grey values and slopes, each freed of the contrast around it, so that weather and season change them little; then
    one linear layer, which `vslam.train.places.layout` computes from data.
    """

    SIZE = (48, 64)
    """Height and width of the copy, whatever the shape of the image."""
    AROUND, GREY_POOL, CELL = 11, 2, 8
    """Pixels of the copy: window of the local contrast, of a grey value, of a histogram of slopes."""
    GREY = 0.5
    """Weight of grey values beside slopes."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("kernels", slope_kernels())
        cells = [self.SIZE[0] * self.SIZE[1] // pool**2 for pool in (self.GREY_POOL, self.CELL)]
        self.project = nn.Conv2d(cells[0] + 2 * len(self.kernels) * cells[1], width, 1)

    def forward(self, image: Tensor) -> Tensor:
        return unit(self.project(self.features(self.shrink(image))[:, :, None, None])[:, :, 0, 0])

    def shrink(self, image: Tensor) -> Tensor:
        """The small copy (N, 1, 48, 64)."""
        return F.interpolate(F.avg_pool2d(image, 4), size=self.SIZE, mode="bilinear", align_corners=False)

    def features(self, small: Tensor) -> Tensor:
        """(N, C) of small copies."""
        small = normalise(small)
        grey = F.avg_pool2d(self._contrast_free(small), self.GREY_POOL)
        slopes = F.conv2d(F.pad(small, (3, 3, 3, 3), mode="replicate"), self.kernels)
        cells = F.avg_pool2d(torch.cat([F.relu(slopes), F.relu(slopes * -1.0)], dim=1), self.CELL)
        energy = mean_around((cells * cells).sum(dim=1, keepdim=True), 3)
        return torch.cat([self.GREY * grey.flatten(1), (cells / (energy + 0.0004).sqrt()).flatten(1)], dim=1)

    def _contrast_free(self, small: Tensor) -> Tensor:
        centred = small - mean_around(small, self.AROUND)
        return centred / (mean_around(centred * centred, self.AROUND) + 0.0064).sqrt()


def mean_around(values: Tensor, side: int) -> Tensor:
    """Mean over the pixels of a square window that lie in the map."""
    return F.avg_pool2d(values, side, 1, side // 2, count_include_pad=False)


def slope_kernels(orientations: int = 4, sigma: float = 1.0) -> Tensor:
    """Derivatives of a Gaussian (orientations, 1, 7, 7) in directions over half a turn; absolute values add up to 1."""
    x = torch.arange(-3.0, 4.0)
    bell = torch.exp(-(x[None] ** 2 + x[:, None] ** 2) / (2 * sigma**2))
    angles = torch.arange(orientations) * (torch.pi / orientations)
    kernels = (angles.cos()[:, None, None] * x[None, None] + angles.sin()[:, None, None] * x[None, :, None]) * bell
    return (kernels / kernels.abs().sum(dim=(1, 2), keepdim=True))[:, None]


def lack_of_detail(image: Tensor) -> Tensor:
    """(N, 1): near 0 for a sharp image, near 1 for one that was enlarged, whose pixels hold little that its quarter
    lacks: from the variance lost in halving an image twice, against that lost in the third halving."""
    half = F.avg_pool2d(image, 2)
    quarter = F.avg_pool2d(half, 2)
    full, fine, coarse = (spread(each) for each in (image, quarter, F.avg_pool2d(quarter, 2)))
    ratio = ((full - fine + 1e-6) / (fine - coarse + 1e-6)).clamp(min=1e-6, max=100.0)
    steep = (ratio * DETAIL).pow(10.0)
    return 1 - steep / (1 + steep)


DETAIL = 1.9155
"""1 / 0.522, the ratio at which an image counts as half without detail."""


def spread(image: Tensor) -> Tensor:
    """Variance (N, 1) of an image (N, 1, H, W)."""
    centred = image - image.mean(dim=(2, 3), keepdim=True)
    return (centred * centred).mean(dim=(2, 3))


class Gem(Pooled):
    """Means and peaks of the map, PCA-whitened, and joined with the layout: unit vectors and a constant as in NetVlad.

    Their cosines are added. What `head` gives is learned: generalised means, which many cells make. The peak of each
    channel comes from a few cells and tells of single things that the mean hides, such as a notice on a wall. The
    layout counts the more, the fewer details an image has: in thumbnails little else is left, while seen from another
    place the layout differs. While `is_whitened` is 0 the descriptor is means and peaks side by side.
    """

    constant = 0.5
    """Of the cosine of any two descriptors."""
    share, share_coarse = 0.01, 0.5
    """Of the layout in the rest, for sharp images and for those without detail."""
    evening = 0.3
    """Of the whitening, see there: with 0.5 small differences of things that all places have count too much."""

    def __init__(self, widths: PlaceWidths = PlaceWidths()):
        super().__init__(widths)
        self.width = widths.whitened + widths.layout + 1
        self.whiten = nn.Conv2d(widths.descriptor + widths.pooled, widths.whitened, 1)
        self.layout = Layout(widths.layout)
        self.register_buffer("is_whitened", torch.tensor(0))

    def forward(self, image: Tensor) -> Tensor:
        whole = self.means_and_peaks(self.local(image))
        if not self.is_whitened:
            return whole
        whitened = unit(self.whiten(whole[:, :, None, None])[:, :, 0, 0])
        share = self.share + (self.share_coarse - self.share) * lack_of_detail(image)
        parts = [(1 - share).sqrt() * whitened, share.sqrt() * self.layout(image)]
        places = torch.cat(parts, dim=1) * (1 - self.constant) ** 0.5
        return torch.cat([places, share * 0 + self.constant**0.5], dim=1)

    def means_and_peaks(self, local: Tensor) -> Tensor:
        """Vectors (N, descriptor + pooled) of unit length, half of their cosine from each part, of a map."""
        return 0.5**0.5 * torch.cat([self.head(local), unit(peaks(local))], dim=1)


class NetVlad(nn.Module):
    """Soft-assigned sums of differences from cluster centres (Arandjelovic et al. 2016), reduced by PCA whitening.

    While `is_whitened` is 0 the descriptor is the whole vector; `whiten` is set from data at the end of training. One
    entry of the reduced vector is constant: whitened vectors of different places stand at right angles, those of
    GeM do not, and one threshold of the cosine shall serve both.
    """

    constant = 0.5
    """Of the cosine of any two descriptors; the rest of it, up to 1, is the whitened vectors'."""
    evening = 0.5
    """Of the whitening: all axes get the same spread."""

    def __init__(self, widths: PlaceWidths = PlaceWidths()):
        super().__init__()
        self.widths = widths
        self.width = widths.descriptor
        self.backbone = Backbone(widths)
        self.last = nn.Conv2d(widths.deep, widths.local, 1)
        self.assign = nn.Conv2d(widths.local, widths.clusters, 1, bias=False)
        self.centres = nn.Parameter(F.normalize(torch.randn(widths.clusters, widths.local), dim=1))
        self.whiten = nn.Conv2d(widths.clusters * widths.local, widths.descriptor - 1, 1)
        self.register_buffer("is_whitened", torch.tensor(0))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.local(image))

    def head(self, local: Tensor) -> Tensor:
        """Descriptors (N, D), or whole vectors before whitening, of maps that `local` gave."""
        whole = self.vlad(local)
        if not self.is_whitened:
            return whole
        places = unit(self.whiten(whole[:, :, None, None])[:, :, 0, 0])
        constant = places[:, :1] * 0 + self.constant**0.5
        return torch.cat([places * (1 - self.constant) ** 0.5, constant], dim=1)

    def local(self, image: Tensor) -> Tensor:
        """Local features (N, C, h, w) of unit length."""
        return unit(self.last(self.backbone(image)))

    def vlad(self, x: Tensor) -> Tensor:
        """The whole vector (N, clusters * local) of unit length: `a x^T - (sum a) c`, no tensor of all differences."""
        share = self.assign(x).softmax(dim=1).flatten(2)
        sums = share @ x.flatten(2).transpose(1, 2)
        residual = sums - share.sum(dim=2)[:, :, None] * self.centres
        return unit(unit(residual, dim=2).flatten(1))


NETWORKS = {"gem": Gem, "cosplace": CosPlace, "netvlad": NetVlad}


def build_place_network(name: str) -> nn.Module:
    """A place network by its name in the settings."""
    if name not in NETWORKS:
        raise VslamError(f"network: '{name}'; known: {', '.join(NETWORKS)}")
    return NETWORKS[name]()


def start_trunk(backbone: Backbone, averaged: dict[str, Tensor], prefix: str = "network.") -> None:
    """Take the first layers from the averaged weights of a LightNet's checkpoint.

    Raises:
        VslamError: the checkpoint's layers are of other sizes.
    """
    own = {key.removeprefix(prefix): value for key, value in averaged.items()}
    state = backbone.state_dict()
    taken = {key: own[key] for key in state if key in own and own[key].shape == state[key].shape}
    wanted = [key for key in state if not key.startswith("deep.")]
    missing = [key for key in wanted if key not in taken]
    if missing:
        raise VslamError(f"trunk: the checkpoint has no fitting {missing[0]}; take one of network 'light'")
    backbone.load_state_dict(state | taken)
