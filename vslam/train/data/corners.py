"""Pseudo ground truth keypoints: a corner response made repeatable by homographic adaptation.

An image is warped many times, corners are detected in each warp, carried back and counted (DeTone et al. 2018,
"SuperPoint", section 5, with a classical response in the place of the network's). What is found in few warps is not
worth learning.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from vslam.train.data.warp import random_homography, warp_grid

CLEAR_CONTRAST = 12.0
"""Grey levels of local contrast that count half: fainter texture is there in one picture and gone in the next."""

WEAK_CORNER, STRONG_CORNER = 5e-3, 0.15
"""Smallest eigenvalue of the structure tensor, of the contrast-free image: no corner below, full marks above."""

Detector = Callable[[np.ndarray], np.ndarray]
"""Grey uint8 (H, W) to a float32 (H, W) map of spots, about 1 at keypoints and 0 elsewhere."""


def adapt(image: np.ndarray, detect: Detector, rng: np.random.Generator, warps: int = 24) -> np.ndarray:
    """Share of warps in which each pixel was detected, float32 (H, W); the first warp is the identity."""
    height, width = image.shape
    total = np.zeros((height, width), np.float32)
    count = np.zeros((height, width), np.float32)
    for k in range(warps):
        matrix = np.eye(3) if k == 0 else random_homography(rng, (width, height), angle=30.0, scale=(0.75, 1.33))
        warped = cv2.warpPerspective(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
        spots = detect(warped)
        seen = cv2.warpPerspective(np.ones_like(total), matrix, (width, height))
        seen = cv2.erode(seen, np.ones((9, 9), np.uint8), borderValue=0.0)  # the border of a warp looks like corners
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        total += cv2.warpPerspective(spots * seen, matrix, (width, height), flags=flags)
        count += cv2.warpPerspective(seen, matrix, (width, height), flags=flags)
    return np.where(count >= 0.2 * warps, total / np.maximum(count, 1e-3), 0.0)


def contrast_free(image: np.ndarray, blur: float = 1.0) -> np.ndarray:
    """The image with local mean 0 and local spread at most 1; noise is kept down, not blown up. float32 (H, W)."""
    grey = image.astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (0, 0), blur)
    mean = cv2.GaussianBlur(smooth, (0, 0), 12.0)
    spread = cv2.GaussianBlur((smooth - mean) ** 2, (0, 0), 12.0)
    # Immerkaer (1996), "Fast noise variance estimation", with the median in place of the mean
    noise = np.median(np.abs(cv2.filter2D(grey, -1, np.float32([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])))) / 4.0
    return (smooth - mean) / np.sqrt(spread + (CLEAR_CONTRAST + 2.0 * noise) ** 2)


def corner_spots(image: np.ndarray) -> np.ndarray:
    """A spot of sigma 0.8 px at each Shi-Tomasi corner, as high as the corner is strong (at most 1); float32 (H, W)."""
    response = cv2.cornerMinEigenVal(contrast_free(image), 3)
    peak = (response >= cv2.dilate(response, np.ones((5, 5), np.uint8))) & (response > WEAK_CORNER)
    height = np.where(peak, np.minimum(np.sqrt(np.maximum(response, 0) / STRONG_CORNER), 1.0), 0.0).astype(np.float32)
    return np.minimum(cv2.GaussianBlur(height, (5, 5), 0.8) / 0.2488, 1.0)


def peaks(score: np.ndarray, threshold: float, limit: int = 300, radius: int = 3) -> np.ndarray:
    """Maxima of `score` above `threshold`, refined below a pixel by a parabola, best first: float32 (M, 2)."""
    return ranked_peaks(score, threshold, limit, radius)[0]


def ranked_peaks(score: np.ndarray, threshold: float, limit: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """As `peaks`, and the smoothed score (M,) of each."""
    smooth = cv2.GaussianBlur(score, (5, 5), 0.8)
    size = 2 * radius + 1
    top = (smooth >= cv2.dilate(smooth, np.ones((size, size), np.uint8))) & (smooth > threshold)
    top[:4], top[-4:], top[:, :4], top[:, -4:] = False, False, False, False
    y, x = np.nonzero(top)
    order = np.argsort(-smooth[y, x], kind="stable")[:limit]
    y, x = y[order], x[order]
    dx = _vertex(smooth[y, x - 1], smooth[y, x], smooth[y, x + 1])
    dy = _vertex(smooth[y - 1, x], smooth[y, x], smooth[y + 1, x])
    return np.stack([x + dx, y + dy], axis=1).astype(np.float32), smooth[y, x]


def _vertex(before: np.ndarray, at: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where a parabola through three equally spaced values has its vertex, in steps from the middle."""
    curvature = np.minimum(before + after - 2 * at, -1e-6)
    return np.clip((before - after) / (2 * curvature), -0.5, 0.5)


def agree_between_views(
    scores: list[np.ndarray], depths: list[np.ndarray], poses: np.ndarray, K: np.ndarray, gaps: tuple[int, ...]
) -> list[np.ndarray]:
    """Scores (H, W) averaged with those of other frames, carried over by depth and pose.

    What one frame alone claims, such as a corner of noise or of a highlight, loses; where no other frame looks, a
    score counts half.
    """
    merged = []
    for i, own in enumerate(scores):
        total, weight = own.copy(), np.ones_like(own)
        for j in (i + gap for gap in gaps if 0 <= i + gap < len(scores)):
            T_j_i = np.linalg.inv(poses[j]) @ poses[i]
            x, y, seen = warp_grid(depths[i], depths[j], K, T_j_i)
            total += np.where(seen, cv2.remap(scores[j], x, y, cv2.INTER_LINEAR), 0.0)
            weight += seen
        merged.append(np.where(weight > 1, total / weight, own / 2).astype(np.float32))
    return merged


def sequence_corners(
    images: list[np.ndarray], depths: list[np.ndarray], poses: np.ndarray, K: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    """Corners of each frame of an RGB-D sequence that other frames confirm: float32 (M, 2) pixels, best first."""
    scores = [adapt(image, corner_spots, rng, warps=10) for image in images]
    merged = agree_between_views(scores, depths, poses, K, gaps=(-16, -9, -4, 4, 9, 16))
    return [peaks(score, threshold=0.12) for score in merged]


def photo_corners(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Repeatable Shi-Tomasi corners of an image, float32 (M, 2) pixels, best first."""
    return peaks(adapt(image, corner_spots, rng, warps=24), threshold=0.12)
