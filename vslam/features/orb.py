"""ORB: corners on an image pyramid, oriented, with binary descriptors (Rublee et al., ICCV 2011).

Differences from the paper, each measured in benchmarks/features.py: corners are found by a test of opposite pairs on
FAST's circle that the compiler turns into vector code, ranked by the smaller eigenvalue of the gradient's second-moment
matrix (Shi and Tomasi, CVPR 1994), spread evenly per level and refined below a pixel.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import cv2
import numpy as np

from vslam.features.brief import ANGLES, RADIUS, rotated_offsets
from vslam.features.spread import spread_into
from vslam.kernels import inner, njit
from vslam.types import Features

ENOUGH = 2  # corners for each keypoint wanted: some to choose from
CLIMB = 0  # pixels from the corner to the peak of its response
MARGIN = RADIUS + 1 + CLIMB  # pixels kept free at a level's border: the descriptor's patch and sub-pixel refinement
MAX_CORNERS_PER_PIXEL = 0.12  # local maxima above the threshold; an image of pure noise has 0.09


@dataclass(frozen=True)
class Config:
    """Settings of the ORB extractor (`extractor.options`)."""

    levels: int = 8
    scale_factor: float = 1.2  # between levels
    threshold: int = 15  # grey levels by which the whole circle must differ along every diameter
    low_threshold: int = 7  # the same, for a level that has too few corners otherwise
    level_share: float = 1.0  # a level gets keypoints in proportion to scale ** -level_share
    sigma: float = 1.0  # pixels at level 0: 0.25 on rendered pairs, where camera model, shutter and light are perfect
    octave_sigma_power: float = 1.0  # sigma grows as scale ** power


class Orb:
    """Oriented FAST-like corners and rotated BRIEF; 32-byte descriptors compared by Hamming distance."""

    metric = "hamming"
    scale_pyramid = True
    max_distance = 64.0  # bits; true matches between neighbouring views stay below (benchmarks/features.py)
    Config = Config

    def __init__(self, max_keypoints: int = 1000, options: Config = Config()):
        self._options = options
        self._max_keypoints = max_keypoints
        self._local = threading.local()  # images of one size in a row reuse their buffers

    def extract(self, image: np.ndarray) -> Features:
        """Features of a grey uint8 image (H, W); an image too small for a level simply has none there."""
        workspace = self._workspace(*image.shape)
        workspace.fill(image)
        n = select(
            workspace.atlas, workspace.corner_score, workspace.tops, workspace.sizes, workspace.quotas,
            np.uint8(self._options.threshold), np.uint8(self._options.low_threshold), workspace.corners,
            workspace.strength, workspace.xy, workspace.level, workspace.score,
        )  # fmt: skip
        return self._describe(workspace, n)

    def _describe(self, workspace: _Workspace, n: int) -> Features:
        xy, angle = np.empty((n, 2), np.float32), np.empty(n, np.float32)
        words = np.empty((n, 4), np.uint64)
        offsets = rotated_offsets(workspace.atlas.shape[1])
        describe(
            workspace.atlas, workspace.blurred, workspace.tops, workspace.ratios, workspace.xy[:n], workspace.level[:n],
            offsets, xy, angle, words,
        )  # fmt: skip
        level = workspace.level[:n].copy()
        sigma = self._options.sigma * workspace.ratios[:, 0] ** self._options.octave_sigma_power
        return Features(
            xy, sigma.astype(np.float32)[level], workspace.score[:n].copy(), level, angle, words.view(np.uint8)
        )

    def _workspace(self, height: int, width: int) -> _Workspace:
        found = getattr(self._local, "workspace", None)
        if found is None or found.shape != (height, width):
            found = self._local.workspace = _Workspace(height, width, self._max_keypoints, self._options)
        return found


class _Workspace:
    """Buffers for images of one size: all pyramid levels in one array, so that they share one row stride."""

    def __init__(self, height: int, width: int, max_keypoints: int, options: Config):
        self.shape = (height, width)
        scales = options.scale_factor ** np.arange(options.levels)
        self.sizes = np.stack([np.rint(height / scales), np.rint(width / scales)], axis=1).astype(np.int64)
        self.ratios = np.array([width, height]) / np.maximum(self.sizes[:, ::-1], 1)  # x and y: levels have whole sizes
        self.tops = np.concatenate([[0], np.cumsum(self.sizes[:, 0])])[:-1].astype(np.int64)
        rows = int(self.sizes[:, 0].sum())
        self.atlas, self.blurred, self.corner_score = (np.zeros((rows, width), np.uint8) for _ in range(3))
        self.levels = [(slice(top, top + h), slice(0, w)) for top, (h, w) in zip(self.tops, self.sizes, strict=True)]
        share = scales**-options.level_share
        self.quotas = np.rint(max_keypoints * share / share.sum()).astype(np.int64)
        self.quotas[0] += max_keypoints - self.quotas.sum()
        capacity = int(MAX_CORNERS_PER_PIXEL * height * width) + 64
        self.corners, self.strength = np.empty((capacity, 2), np.float32), np.empty(capacity, np.float32)
        self.xy, self.score = np.empty((max_keypoints, 2), np.float32), np.empty(max_keypoints, np.float32)
        self.level = np.empty(max_keypoints, np.uint8)

    def fill(self, image: np.ndarray) -> None:
        """Build the pyramid and its smoothed copy."""
        previous = image
        for i, place in enumerate(self.levels):
            level = self.atlas[place]
            if i == 0:
                level[:] = image
            elif min(level.shape) > 0:
                cv2.resize(previous, level.shape[::-1], dst=level, interpolation=cv2.INTER_LINEAR)
            if min(level.shape) > 0:
                cv2.GaussianBlur(level, (5, 5), 0, dst=self.blurred[place])
            previous = level


@njit(fastmath=True)
def select(
    atlas, corner_score, tops, sizes, quotas, threshold, low_threshold, corners, strength, out_xy, out_level, out_score
):
    """Find, rank and spread corners level by level; returns their number.

    `atlas` (R, W) uint8 holds level l in rows `tops[l]` to `tops[l] + sizes[l, 0]`; positions go to `out_xy` (N, 2) in
    pixels of the level.
    """
    total = 0
    chosen = np.empty(len(out_xy), np.int64)
    for level in range(len(tops)):
        top, height, width = tops[level], sizes[level, 0], sizes[level, 1]
        if height <= 2 * MARGIN or width <= 2 * MARGIN:
            continue
        image = atlas[top : top + height]
        corner_map = corner_score[top : top + height]
        opposite_pairs(image, width, corner_map)
        count = local_maxima(corner_map, width, threshold, corners)
        if count < ENOUGH * quotas[level]:
            count = local_maxima(corner_map, width, low_threshold, corners)
        for i in range(count):
            strength[i] = smaller_eigenvalue(image, int(corners[i, 0]), int(corners[i, 1]))
        wanted = min(quotas[level], len(out_xy) - total)
        kept = spread_into(corners, strength, 0, count, width, height, wanted, chosen)
        for i in range(kept):
            row = total + i
            refine_corner(image, int(corners[chosen[i], 0]), int(corners[chosen[i], 1]), out_xy[row])
            out_level[row] = level
            out_score[row] = strength[chosen[i]]
        total += kept
    return total


@inner
def opposite_pairs(image, width, out):
    """By how much every diameter of FAST's circle has an end brighter (or darker) than the centre, uint8.

    A corner in the sense of FAST-9 (Rosten and Drummond, ECCV 2006) passes for every arc of nine contains an end of
    each of the eight diameters; on a straight edge the diameter along it fails.
    """
    last = width - 3
    for y in range(3, image.shape[0] - 3):
        a0, b0 = image[y - 3, 3:last], image[y + 3, 3:last]
        a1, b1 = image[y - 3, 4 : last + 1], image[y + 3, 2 : last - 1]
        a2, b2 = image[y - 2, 5 : last + 2], image[y + 2, 1 : last - 2]
        a3, b3 = image[y - 1, 6 : last + 3], image[y + 1, 0 : last - 3]
        a4, b4 = image[y, 6 : last + 3], image[y, 0 : last - 3]
        a5, b5 = image[y + 1, 6 : last + 3], image[y - 1, 0 : last - 3]
        a6, b6 = image[y + 2, 5 : last + 2], image[y - 2, 1 : last - 2]
        a7, b7 = image[y + 3, 4 : last + 1], image[y - 3, 2 : last - 1]
        centre, row = image[y, 3:last], out[y, 3:last]
        for x in range(last - 3):
            bright, dark = max(a0[x], b0[x]), min(a0[x], b0[x])
            bright, dark = min(bright, max(a1[x], b1[x])), max(dark, min(a1[x], b1[x]))
            bright, dark = min(bright, max(a2[x], b2[x])), max(dark, min(a2[x], b2[x]))
            bright, dark = min(bright, max(a3[x], b3[x])), max(dark, min(a3[x], b3[x]))
            bright, dark = min(bright, max(a4[x], b4[x])), max(dark, min(a4[x], b4[x]))
            bright, dark = min(bright, max(a5[x], b5[x])), max(dark, min(a5[x], b5[x]))
            bright, dark = min(bright, max(a6[x], b6[x])), max(dark, min(a6[x], b6[x]))
            bright, dark = min(bright, max(a7[x], b7[x])), max(dark, min(a7[x], b7[x]))
            here = centre[x]
            row[x] = max(np.uint8(max(bright, here) - here), np.uint8(here - min(dark, here)))


@inner
def local_maxima(score, width, threshold, corners):
    """Pixels above `threshold` that no neighbour exceeds, away from the border, into `corners`; returns their number.

    The test is free of branches, so it becomes vector code; its flags are then read eight at a time.
    """
    count = 0
    inner = width - 2 * MARGIN
    flags = np.zeros((inner + 7) // 8 * 8, np.uint8)
    words = flags.view(np.uint64)
    for y in range(MARGIN, score.shape[0] - MARGIN):
        up, here, down = score[y - 1, MARGIN - 1 :], score[y, MARGIN - 1 :], score[y + 1, MARGIN - 1 :]
        for x in range(inner):
            s = here[x + 1]
            before = max(max(up[x], up[x + 1]), max(up[x + 2], here[x]))
            after = max(max(down[x], down[x + 1]), max(down[x + 2], here[x + 2]))
            flags[x] = (s > threshold) & (s >= before) & (s > after)
        for w in range(len(words)):
            if words[w] == 0:
                continue
            for x in range(8 * w, 8 * w + 8):
                if flags[x] and count < len(corners):
                    corners[count, 0] = x + MARGIN
                    corners[count, 1] = y
                    count += 1
    return count


@inner(fastmath=True)
def smaller_eigenvalue(image, x, y):
    """Smaller eigenvalue of the gradient's second-moment matrix over a 5x5 window, in squared grey levels."""
    xx, xy, yy = 0, 0, 0
    for v in range(y - 2, y + 3):
        for u in range(x - 2, x + 3):
            gx = np.int32(image[v, u + 1]) - np.int32(image[v, u - 1])
            gy = np.int32(image[v + 1, u]) - np.int32(image[v - 1, u])
            xx += gx * gx
            xy += gx * gy
            yy += gy * gy
    return np.float32(0.5 * (xx + yy - math.sqrt((xx - yy) * (xx - yy) + 4.0 * xy * xy)))


@inner(fastmath=True)
def refine_corner(image, x, y, out):
    """Sub-pixel position: up the response at most CLIMB pixels, then the peak of a quadratic through 3x3 of it."""
    r = np.empty((3, 3), np.float32)
    for climbed in range(CLIMB + 1):
        best, best_u, best_v = np.float32(-1.0), 1, 1
        for v in range(3):
            for u in range(3):
                r[v, u] = smaller_eigenvalue(image, x + u - 1, y + v - 1)
                if r[v, u] > best:
                    best, best_u, best_v = r[v, u], u, v
        if (best_u == 1 and best_v == 1) or climbed == CLIMB:
            break
        x, y = x + best_u - 1, y + best_v - 1
    gx = 0.5 * (r[1, 2] - r[1, 0])
    gy = 0.5 * (r[2, 1] - r[0, 1])
    hxx = r[1, 2] - 2.0 * r[1, 1] + r[1, 0]
    hyy = r[2, 1] - 2.0 * r[1, 1] + r[0, 1]
    hxy = 0.25 * (r[2, 2] - r[2, 0] - r[0, 2] + r[0, 0])
    determinant = hxx * hyy - hxy * hxy
    dx, dy = np.float32(0.0), np.float32(0.0)
    if determinant > 1e-6 * hxx * hxx and hxx < 0.0:
        dx = -(hyy * gx - hxy * gy) / determinant
        dy = -(hxx * gy - hxy * gx) / determinant
    out[0] = x + min(max(dx, -0.5), 0.5)
    out[1] = y + min(max(dy, -0.5), 0.5)


@njit(fastmath=True)
def describe(atlas, blurred, tops, ratios, level_xy, level, offsets, xy, angle, words):
    """Orientation by the intensity centroid, then 256 comparisons along the rotated pattern, per keypoint.

    `offsets` (ANGLES, 256, 2) int32 are positions relative to the keypoint in the flattened atlas; `xy` (N, 2) receives
    pixels of the full image, `words` (N, 4) uint64 the descriptor.
    """
    flat, stride = blurred.ravel(), blurred.shape[1]
    for i in range(len(level_xy)):
        column = int(level_xy[i, 0] + 0.5)
        row = int(level_xy[i, 1] + 0.5) + tops[level[i]]
        theta = centroid_angle(atlas, column, row)
        angle[i] = theta
        turn = int(theta * (ANGLES / (2.0 * math.pi)) + ANGLES + 0.5) % ANGLES
        centre = row * stride + column
        for word in range(4):
            bits = np.uint64(0)
            for bit in range(64):
                k = 64 * word + bit
                darker = flat[centre + offsets[turn, k, 0]] < flat[centre + offsets[turn, k, 1]]
                bits |= np.uint64(darker) << np.uint64(bit)
            words[i, word] = bits
        xy[i, 0] = (level_xy[i, 0] + 0.5) * ratios[level[i], 0] - 0.5
        xy[i, 1] = (level_xy[i, 1] + 0.5) * ratios[level[i], 1] - 0.5


@inner(fastmath=True)
def centroid_angle(image, column, row):
    """Direction from the centre of a disc of RADIUS to its centre of brightness, radians (Rublee et al., 3.2)."""
    mx, my = 0, 0
    for dy in range(-RADIUS, RADIUS + 1):
        half = int(math.sqrt(RADIUS * RADIUS - dy * dy))
        total = 0
        for dx in range(-half, half + 1):
            value = np.int32(image[row + dy, column + dx])
            total += value
            mx += dx * value
        my += dy * total
    return math.atan2(my, mx)
