"""What NetVLAD's layers begin and end with: clusters of local features, and PCA whitening of whole vectors."""

from __future__ import annotations

import numpy as np
import torch

from vslam.train.places.evaluate import describe_images
from vslam.train.places.networks import Gem, NetVlad

FEATURES_AN_IMAGE = 100
ITERATIONS = 30
SHRINK = 1e-3
"""Share of the largest variance added to all before they are divided by: directions of noise are not blown up."""


def set_clusters(network: NetVlad, images: list[np.ndarray], seed: int) -> None:
    """Centres by k-means on local features, and assignment weights that give the second best 1 % of the best.

    alpha = -ln(0.01) / mean(first - second dot product with the unit centres).
    """
    rng = np.random.default_rng((seed, 3))
    features = local_features(network, images, rng)
    centres = k_means(features, network.widths.clusters, rng)
    directions = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    best = np.sort(features @ directions.T, axis=1)[:, -2:]
    alpha = -np.log(0.01) / max(float((best[:, 1] - best[:, 0]).mean()), 1e-3)
    with torch.no_grad():
        network.centres.copy_(torch.from_numpy(centres))
        network.assign.weight.copy_(torch.from_numpy(alpha * directions)[:, :, None, None])


def local_features(network: NetVlad, images: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Unit local features (N, C) of uint8 images (H, W) of one size, a random hundred of each."""
    device = next(network.parameters()).device
    network.eval()
    found = []
    with torch.no_grad():
        for image in images:
            maps = network.local(torch.from_numpy(image)[None, None].float().to(device) / 255)
            rows = maps[0].flatten(1).T.cpu().numpy()
            found.append(rows[rng.permutation(len(rows))[:FEATURES_AN_IMAGE]])
    return np.concatenate(found).astype(np.float64)


def k_means(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Centres (count, C) of points (N, C); an empty cluster starts again at a random point."""
    centres = points[rng.choice(len(points), count, replace=False)]
    for _ in range(ITERATIONS):
        nearest = (2 * points @ centres.T - (centres * centres).sum(axis=1)).argmax(axis=1)
        sizes = np.bincount(nearest, minlength=count)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        again = points[rng.integers(len(points), size=count)]
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], again)
    return centres


def set_whitening(network: Gem | NetVlad, images: list[np.ndarray], device: torch.device) -> None:
    """The linear layer that turns unwhitened vectors to their principal axes and evens out the spread of these."""
    whole = describe_images(network, images, device).astype(np.float64)
    mean, matrix = whitening(whole, network.whiten.out_channels, network.evening)
    matrix /= np.abs(matrix).max()  # descriptors are brought to unit length, and half precision ends at 65504
    with torch.no_grad():
        network.whiten.weight.copy_(torch.from_numpy(matrix)[:, :, None, None])
        network.whiten.bias.copy_(torch.from_numpy(-matrix @ mean))
        network.is_whitened.fill_(1)


def whitening(vectors: np.ndarray, width: int, evening: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Mean (C,) and matrix (width, C) such that `matrix @ (v - mean)` has uncorrelated entries.

    Entries are divided by their variance to the power of `evening`: all have unit variance with 0.5, with less those
    that vary most keep more weight. Rows beyond the rank of the vectors (N, C) are zero.
    """
    mean = vectors.mean(axis=0)
    _, values, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    variance = values[:width] ** 2 / max(len(vectors) - 1, 1)
    scale = np.where(variance > 1e-12, (variance + SHRINK * variance[0]) ** -evening, 0.0)
    matrix = np.zeros((width, vectors.shape[1]))
    matrix[: len(scale)] = scale[:, None] * axes[:width]
    return mean, matrix
