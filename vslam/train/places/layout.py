"""The layout's linear layer: found at once from pairs of views of one picture, not by steps.

Directions of the features are kept in which pictures differ most, measured by how much weather, season and a small
shift move one and the same picture (linear discriminant analysis, Fisher 1936).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from vslam.train.places.networks import Layout
from vslam.train.places.sampler import PlaceSampler
from vslam.train.places.season import change_season

SHIFT, ZOOM = 0.03, 0.06
"""How far the second view of a pair is off, as shares of the image: standard deviation, and most."""

FLOOR = 4.0
"""Mean variances added to those within pictures: drawn seasons are not the real ones, and shall not decide alone."""


def set_layout(layout: Layout, sampler: PlaceSampler, seed: int, pairs: int) -> None:
    """Compute the linear layer from views of the sampler's packs."""
    first, second = layout_pairs(sampler, np.random.default_rng((seed, 4)), pairs)
    mean, matrix = discriminant(features_of(layout, first), features_of(layout, second), layout.project.out_channels)
    matrix /= np.abs(matrix).max()  # vectors are brought to unit length, and half precision has few digits below 1e-4
    with torch.no_grad():
        layout.project.weight.copy_(torch.from_numpy(matrix)[:, :, None, None])
        layout.project.bias.copy_(torch.from_numpy(-matrix @ mean))


def layout_pairs(sampler: PlaceSampler, rng: np.random.Generator, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Small pictures (N, h, w) float32 in [0, 1] twice: in two seasons, the second a little off."""
    found = [[], []]
    for _ in range(pairs):
        image = sampler.any_image(rng)
        for pictures, view in zip(found, two_windows(image, rng), strict=True):
            pictures.append(change_season(view, rng))
    return np.stack(found[0]), np.stack(found[1])


def two_windows(image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """The same window of an image (H, W) cut out twice, the second time shifted and scaled a little."""
    height, width = Layout.SIZE
    small = cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_AREA)
    zoom = rng.uniform(0.7, 0.96)
    size = np.array([2 * width * zoom, 2 * height * zoom * rng.uniform(0.85, 1.0)])
    corner = rng.uniform(0, 1, 2) * (np.array([2 * width, 2 * height]) - size)
    found = []
    for strength in (0, 1):
        extent = size * (1 + strength * rng.uniform(-ZOOM, ZOOM))
        start = corner + (size - extent) / 2 + strength * rng.normal(0, SHIFT, 2) * size
        scale = np.array([width, height]) / extent
        matrix = np.column_stack([np.diag(scale), -scale * start])
        soft = cv2.GaussianBlur(small, (0, 0), 0.6)
        cut = cv2.warpAffine(soft, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        found.append(cut.astype(np.float32) / 255)
    return found


def features_of(layout: Layout, pictures: np.ndarray) -> np.ndarray:
    """Features (N, C) float64 of small pictures (N, h, w)."""
    device = layout.project.weight.device
    with torch.no_grad():
        parts = [layout.features(part[:, None].to(device)) for part in torch.from_numpy(pictures).split(500)]
    return torch.cat(parts).cpu().numpy().astype(np.float64)


def discriminant(first: np.ndarray, second: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (C,) and matrix (width, C) of the directions with the largest spread between pictures (N, C) for that
    between two views of one, each of which then has unit spread between two views."""
    mean = (first.mean(axis=0) + second.mean(axis=0)) / 2
    apart, middle = (first - second) / 2, (first + second) / 2 - mean
    within = 2 * apart.T @ apart / len(apart)
    between = middle.T @ middle / len(middle) - within / 2
    within += FLOOR * np.trace(within) / len(within) * np.eye(len(within))
    half = np.linalg.inv(np.linalg.cholesky(within))
    _, axes = np.linalg.eigh(half @ between @ half.T)
    return mean, axes[:, ::-1][:, :width].T @ half
