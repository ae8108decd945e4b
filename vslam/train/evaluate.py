"""Scores of a network on fixed pairs of views that it never saw: what a run is watched by, and `sigma` measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vslam.features import maps
from vslam.features.learned import as_input
from vslam.train.data.pairs import Pair, PairSampler
from vslam.train.data.shapes import Drawing
from vslam.train.data.warp import apply_homography
from vslam.train.export import DenseMaps
from vslam.train.networks.light import LightNet

WITHIN_PX = 3.0
"""Two keypoints are the same place when this near (DeTone et al. 2018)."""


@dataclass(frozen=True)
class Scores:
    """Means over homography pairs. `repeatability` and `localisation_px` as SuperPoint's paper defines them, `sigma_px`
    the robust spread of one coordinate of one keypoint about its true place; `precision` and `matches` of mutual
    nearest neighbours within 3 px of the truth."""

    keypoints: float
    repeatability: float
    localisation_px: float
    sigma_px: float
    precision: float
    matches: float


@dataclass(frozen=True)
class CornerScores:
    """How well a detector finds the known corners of drawn shapes. `average_precision` over all detections, best first,
    a detection being right within 3 px of a corner that no better one has taken; `recall` of all of them,
    `localisation_px` of the right ones."""

    average_precision: float
    recall: float
    localisation_px: float


def score_corners(
    network: LightNet, drawings: list[Drawing], threshold: float = 0.015, limit: int = 300
) -> CornerScores:
    """Scores of a network's detector on drawn shapes."""
    dense = DenseMaps(network.cpu(), False).eval()
    ranked: list[tuple[float, float]] = []
    for drawing in drawings:
        with torch.no_grad():
            outputs = named(dense, as_input(drawing.image))
        search = maps.Search(threshold, radius=4)
        xy, value, _ = maps.find_in_outputs(outputs, drawing.image.shape, search, maps.Workspace(), weigh=False)
        order = np.argsort(-value, kind="stable")[:limit]
        ranked += zip(value[order].tolist(), taken_corners(xy[order], drawing.corners), strict=True)
    return rank_corners(ranked, sum(len(drawing.corners) for drawing in drawings))


def taken_corners(xy: np.ndarray, corners: np.ndarray) -> list[float]:
    """Of each detection (N, 2), best first, the distance to the nearest corner (M, 2) left within 3 px, else inf."""
    left = np.ones(len(corners), bool)
    found = []
    for place in xy:
        distance = np.where(left, np.linalg.norm(corners - place, axis=1), np.inf)
        k = int(distance.argmin()) if len(corners) else -1
        is_right = k >= 0 and distance[k] <= WITHIN_PX
        found.append(float(distance[k]) if is_right else np.inf)
        if is_right:
            left[k] = False
    return found


def rank_corners(ranked: list[tuple[float, float]], corners: int) -> CornerScores:
    """Scores from (score, distance to its corner or inf) of all detections, and the number of all corners."""
    distance = np.array([d for _, d in sorted(ranked, key=lambda row: -row[0])], float)
    right = np.isfinite(distance)
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    total = max(corners, 1)
    place = float(distance[right].mean()) if right.any() else np.nan
    return CornerScores(float(precision[right].sum() / total), float(right.sum() / total), place)


def fixed_pairs(sampler: PairSampler, count: int, seed: int = 77) -> list[Pair]:
    """The first `count` homography pairs of a seed."""
    found: list[Pair] = []
    for k in range(50 * count):
        if len(found) == count:
            break
        pair = sampler.pair(seed, k)
        if np.isfinite(pair.homography).all():
            found.append(pair)
    return found


def score_network(network: LightNet, pairs: list[Pair], binary: bool, keypoints: int = 300) -> Scores:
    """Scores of a network's float or binary descriptors on pairs of views."""
    dense = DenseMaps(network.cpu(), binary).eval()
    rows = []
    for pair in pairs:
        features = [extract(dense, image, binary, keypoints) for image in pair.images]
        rows.append(score_pair(*features, pair.homography, pair.images[0].shape))
    keypoint_count, repeated, distances, right, matched = zip(*rows, strict=True)
    every = np.concatenate(distances) if distances else np.zeros(0)
    length = np.linalg.norm(every, axis=1)
    near = every[length <= WITHIN_PX]
    # two keypoints err independently, hence the root of 2; 1.4826 makes the median deviation a standard deviation
    sigma = 1.4826 * np.median(np.abs(near)) / np.sqrt(2) if len(near) else np.nan
    return Scores(
        float(np.mean(keypoint_count)), float(np.mean(repeated)),
        float(length[length <= WITHIN_PX].mean()) if len(near) else np.nan, float(sigma),
        float(np.sum(right) / max(np.sum(matched), 1)), float(np.mean(right)),
    )  # fmt: skip


def extract(dense: DenseMaps, image: np.ndarray, binary: bool, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best `count` keypoints (N, 2) of a uint8 image, best first, and their descriptors."""
    with torch.no_grad():
        outputs = named(dense, image[None, None].astype(np.float32) / 255)
    return best_described(outputs, image.shape, binary, count)


def named(dense: DenseMaps, image: np.ndarray) -> dict[str, np.ndarray]:
    """A network's outputs of an image (1, 1, H, W) float32 by name, as a session gives them."""
    values = (value.numpy() for value in dense(torch.from_numpy(image)))
    return dict(zip(dense.outputs, values, strict=True))


def best_described(
    outputs: dict[str, np.ndarray], shape: tuple[int, ...], binary: bool, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best `count` keypoints (N, 2) of an image (H, W), best first, and descriptors, by a network's outputs."""
    xy, value, _ = maps.find_in_outputs(outputs, shape, maps.Search(), maps.Workspace())
    best = np.argsort(-value, kind="stable")[:count]
    described = np.ascontiguousarray(outputs["descriptors"][0])
    return xy[best], maps.describe(described, outputs["score"].shape[2] // described.shape[1], xy[best], binary)


def score_pair(a: tuple, b: tuple, homography: np.ndarray, shape: tuple[int, int]) -> tuple:
    """Keypoints a view, repeatability, offsets (K, 2) of the nearest keypoints, right and all mutual matches."""
    forth, back = apply_homography(homography, a[0]), apply_homography(np.linalg.inv(homography), b[0])
    in_b, in_a = inside(forth, shape), inside(back, shape)
    offsets = [nearest_offset(forth[in_b], b[0]), nearest_offset(back[in_a], a[0])]
    near = sum(int((np.linalg.norm(o, axis=1) <= WITHIN_PX).sum()) for o in offsets)
    i, j = mutual_nearest(a[1], b[1])
    right = int((np.linalg.norm(forth[i] - b[0][j], axis=1) <= WITHIN_PX).sum())
    seen = int(in_b[i].sum())
    total = max(int(in_a.sum() + in_b.sum()), 1)
    return (len(a[0]) + len(b[0])) / 2, near / total, np.concatenate(offsets), right, seen


def inside(xy: np.ndarray, shape: tuple[int, int], margin: float = 4.0) -> np.ndarray:
    """Which points (N, 2) lie in an image (H, W), `margin` pixels from its border."""
    return (xy >= margin).all(1) & (xy[:, 0] < shape[1] - margin) & (xy[:, 1] < shape[0] - margin)


def nearest_offset(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Vector from each point (N, 2) to the nearest of `others` (M, 2); infinite where there are none."""
    if not len(others) or not len(points):
        return np.full((len(points), 2), np.inf)
    offsets = others[None] - points[:, None]
    return offsets[np.arange(len(points)), np.linalg.norm(offsets, axis=2).argmin(axis=1)]


def mutual_nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two descriptor arrays that are each other's nearest; bits are compared by Hamming distance."""
    if not len(a) or not len(b):
        return np.zeros(0, int), np.zeros(0, int)
    if a.dtype == np.uint8:
        a, b = (np.unpackbits(d, axis=1).astype(np.float32) - 0.5 for d in (a, b))
    likeness = a @ b.T
    best = likeness.argmax(axis=1)
    i = np.flatnonzero(likeness.argmax(axis=0)[best] == np.arange(len(a)))
    return i, best[i]
