"""Pairs of views with known correspondences, drawn from packs.

Both kinds of pair go one way. A pair starts as two source images and points known in both: the same image twice
(homography), or two frames of a sequence joined by depth and poses. Each source is then seen through a random view
matrix (crop, turn, zoom, perspective) and under its own light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from vslam.train.data import shapes
from vslam.train.data.light import LightConfig, relight
from vslam.train.data.pack import Pack
from vslam.train.data.pairing import carried_points, rows_by_bin, rules_of
from vslam.train.data.warp import apply_homography, random_homography, trusted_depth, warp_by_depth, warp_grid

CELL = 8

DOUBLE_PX = 3.0
"""A keypoint carried over from another frame as near as this to one of the frame's own is the same one."""

Carry = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From pixels (N, 2) of the first source image to those of the second, and which of them (N,) are seen there."""


@dataclass(frozen=True)
class PairConfig:
    """How pairs are drawn."""

    width: int = 256
    height: int = 192
    points: int = 320  # correspondences a pair, filled up with invalid ones
    shapes: float = 0.0  # share of pairs of drawn shapes, whose corners are known; 1 needs no packs
    depth_share: float = 0.5  # pairs from two frames of a sequence; the rest are homographies
    photo_share: float = 0.65  # of the homographies: from packs of photos, the rest from frames of sequences
    angle_deg: float = 30.0
    scale: float = 1.45
    perspective: float = 0.2
    min_gap: int = 3  # frames between the two of a depth pair
    max_gap: int = 60
    cells: bool = False  # say, too, where each cell of the first view lies in the second: the dense loss needs it
    min_overlap: float = 0.2  # share of corners with depth that the other frame truly sees
    light: LightConfig = field(default_factory=LightConfig)


@dataclass(frozen=True)
class Source:
    """Two source images and what is known of them: corners of each, and points (N, 2) seen in both."""

    images: tuple[np.ndarray, np.ndarray]
    corners: tuple[np.ndarray, np.ndarray]
    points: tuple[np.ndarray, np.ndarray]
    is_corner: np.ndarray
    carry: Carry = lambda xy: (xy, np.ones(len(xy), bool))
    known: tuple[np.ndarray, np.ndarray] | None = None  # (H, W) bool: what of each image the other truly sees


@dataclass(frozen=True)
class Pair:
    """What the losses need: views (2, H, W) uint8, detector targets (2, 65, h, w), cell masks (2, h, w), points
    (2, P, 2) in view pixels, which are valid (P,), which of them are corners (P,), of one image seen twice the
    homography (3, 3) from the first view to the second (else NaN), and, where asked for, `cells` (h * w, 2), the pixels
    of the second view that show the centres of the first one's cells (NaN: not seen, or not known)."""

    images: np.ndarray
    targets: np.ndarray
    masks: np.ndarray
    points: np.ndarray
    valid: np.ndarray
    is_corner: np.ndarray
    homography: np.ndarray
    cells: np.ndarray | None = None


class PairSampler:
    """Draws pairs; `pair(seed)` depends on the seed alone, so that a run can be resumed at any step."""

    def __init__(self, packs: list[Pack], config: PairConfig):
        self.config = config
        self.photos = [pack for pack in packs if not pack.is_sequence]
        self.sequences = [pack for pack in packs if pack.is_sequence]
        self._photo_share = _shares(self.photos)
        self._sequence_share = _shares(self.sequences)

    def pair(self, *seed: int) -> Pair:
        """The pair that belongs to these numbers (run seed, step, index in batch, ...)."""
        rng = np.random.default_rng(seed)
        if self.config.shapes and rng.random() < self.config.shapes:
            return self._view(shape_source(rng), rng, same_image=True)
        use_depth = bool(self.sequences) and rng.random() < self.config.depth_share
        source = self._depth_source(rng) if use_depth else None
        if source is not None:
            return self._view(source, rng, same_image=False)
        return self._view(self._photo_source(rng), rng, same_image=True)

    def batch(self, seed: int, step: int, size: int) -> dict[str, np.ndarray]:
        """Stacked pairs; `images`, `targets`, `masks`, `points` lead with (2, size, ...)."""
        pairs = [self.pair(seed, step, k) for k in range(size)]
        stacked = {
            key: np.stack([getattr(p, key) for p in pairs], 1) for key in ("images", "targets", "masks", "points")
        }
        keys = ("valid", "is_corner", *(["cells"] if self.config.cells else []))
        stacked |= {key: np.stack([getattr(p, key) for p in pairs]) for key in keys}
        return stacked | {"seed": np.random.default_rng((seed, step, size)).integers(2**62, size=1)}

    def _photo_source(self, rng: np.random.Generator) -> Source:
        photo = bool(self.photos) and (rng.random() < self.config.photo_share or not self.sequences)
        packs, share = (self.photos, self._photo_share) if photo else (self.sequences, self._sequence_share)
        pack = packs[rng.choice(len(packs), p=share)]
        index = int(rng.integers(len(pack)))
        image, corners = pack.image(index), pack.corners(index)
        anywhere = rng.uniform((8, 8), (image.shape[1] - 9, image.shape[0] - 9), (100, 2))
        points = np.concatenate([corners, anywhere])
        is_corner = np.arange(len(points)) < len(corners)
        return Source((image, image), (corners, corners), (points, points), is_corner)

    def _depth_source(self, rng: np.random.Generator, tries: int = 4) -> Source | None:
        config = self.config
        for _ in range(tries):
            pack = self.sequences[rng.choice(len(self.sequences), p=self._sequence_share)]
            if "pairs" in pack.arrays:
                return listed_source(pack, rng)
            gap = int(np.exp(rng.uniform(np.log(config.min_gap), np.log(config.max_gap + 1))))
            i = int(rng.integers(len(pack)))
            j = i + gap if i + gap < len(pack) else i - gap
            if j < 0:
                continue
            source, overlap = join_by_depth(pack, i, j, rng)
            if overlap >= config.min_overlap and source.is_corner.sum() >= 60:
                return source
        return None

    def _view(self, source: Source, rng: np.random.Generator, same_image: bool) -> Pair:
        config, size = self.config, (self.config.width, self.config.height)
        strong, weak = (1.0, 0.4) if same_image else (0.5, 0.3)
        strength = (weak, strong) if rng.random() < 0.5 else (strong, weak)
        middle = [np.median(points, axis=0) for points in source.points]
        matrices = [
            view_matrix(rng, m, source.images[0].shape, config, s) for m, s in zip(middle, strength, strict=True)
        ]
        images, targets, masks, points = [], [], [], []
        for k in (0, 1):
            warped = cv2.warpPerspective(source.images[k], matrices[k], size, borderMode=cv2.BORDER_REFLECT_101)
            images.append(relight(warped, rng, config.light))
            masks.append(valid_cells(matrices[k], source.images[k].shape, size))
            if source.known is not None:
                masks[k] &= known_cells(source.known[k], matrices[k], size)
            targets.append(cell_targets(apply_homography(matrices[k], source.corners[k]), size))
            points.append(apply_homography(matrices[k], source.points[k]))
        chosen = choose_points(points, source.is_corner, masks, config.points, rng)
        filled = np.zeros((2, config.points, 2), np.float32)
        filled[:, : len(chosen)] = np.stack(points)[:, chosen]
        valid = np.arange(config.points) < len(chosen)
        is_corner = np.zeros(config.points, bool)
        is_corner[: len(chosen)] = source.is_corner[chosen]
        homography = matrices[1] @ np.linalg.inv(matrices[0]) if same_image else np.full((3, 3), np.nan)
        cells = carried_cells(source, matrices, size) if config.cells else None
        return Pair(np.stack(images), np.stack(targets), np.stack(masks), filled, valid, is_corner, homography, cells)


def _shares(packs: list[Pack]) -> np.ndarray:
    """Packs are drawn by the square root of their size: large ones often, small ones not too rarely."""
    weight = np.sqrt([len(pack) for pack in packs])
    return weight / weight.sum() if len(packs) else weight


def join_by_depth(pack: Pack, i: int, j: int, rng: np.random.Generator) -> tuple[Source, float]:
    """Two frames of a sequence, the points that both truly see, and the share of i's corners that j sees."""
    depth_i, depth_j = pack.depth(i), pack.depth(j)
    T_j_i = np.linalg.inv(pack.poses[j]) @ pack.poses[i]
    corners_i, corners_j = pack.corners(i), pack.corners(j)
    anywhere = rng.uniform((8, 8), (depth_i.shape[1] - 9, depth_i.shape[0] - 9), (150, 2))
    forth, seen = warp_by_depth(np.concatenate([corners_i, anywhere]), depth_i, depth_j, pack.K, T_j_i)
    back, seen_back = warp_by_depth(corners_j, depth_j, depth_i, pack.K, np.linalg.inv(T_j_i))
    in_i = np.concatenate([corners_i, anywhere, back])[np.concatenate([seen, seen_back])]
    in_j = np.concatenate([forth, corners_j])[np.concatenate([seen, seen_back])]
    of_i = np.arange(len(seen)) < len(corners_i)
    is_corner = np.concatenate([of_i, np.ones(len(seen_back), bool)])[np.concatenate([seen, seen_back])]

    def carry(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return warp_by_depth(xy, depth_i, depth_j, pack.K, T_j_i)

    source = Source((pack.image(i), pack.image(j)), (corners_i, corners_j), (in_i, in_j), is_corner, carry)
    return source, float(seen[of_i].mean()) if of_i.any() else 0.0


def listed_source(pack: Pack, rng: np.random.Generator) -> Source:
    """Two frames that a pair file names, its bins of overlap drawn evenly.

    Keypoints of either are those of both: own ones that the other frame sees, and the other's carried over. Where a
    frame has no trusted depth, or the other does not see it, nobody knows whether there is one.
    """
    rules = rules_of(pack)
    rows = rows_by_bin(pack.arrays["overlap"], rules.bins)
    chosen = rows[rng.integers(len(rows))]
    i, j = pack.arrays["pairs"][chosen[rng.integers(len(chosen))]]
    if rng.random() < 0.5:
        i, j = j, i
    depths = [trusted_depth(pack.depth(k), rules.near_m, rules.far_m, rules.edge) for k in (i, j)]
    motions = [np.linalg.inv(pack.poses[b]) @ pack.poses[a] for a, b in ((i, j), (j, i))]
    anywhere = rng.uniform((8, 8), (depths[0].shape[1] - 9, depths[0].shape[0] - 9), (150, 2))
    own = [pack.corners(i), pack.corners(j)]
    forth, seen, _ = carried_points(np.concatenate([own[0], anywhere]), *depths, pack.K, motions[0], rules)
    back, seen_back, _ = carried_points(own[1], *depths[::-1], pack.K, motions[1], rules)
    new = seen_back & apart_from(back, own[0], DOUBLE_PX)
    points = (
        np.concatenate([np.concatenate([own[0], anywhere])[seen], back[new]]),
        np.concatenate([forth[seen], own[1][new]]),
    )
    is_corner = np.concatenate([(np.arange(len(seen)) < len(own[0]))[seen], np.ones(int(new.sum()), bool)])
    known = warp_grid(*depths, pack.K, motions[0])[2], warp_grid(*depths[::-1], pack.K, motions[1])[2]
    corners = points[0][is_corner], points[1][is_corner]

    def carry(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return carried_points(xy, *depths, pack.K, motions[0], rules)[:2]

    return Source((pack.image(i), pack.image(j)), corners, points, is_corner, carry, known)


def apart_from(xy: np.ndarray, others: np.ndarray, distance: float) -> np.ndarray:
    """Which points (N, 2) have none of `others` (M, 2) nearer than `distance`."""
    if not len(others):
        return np.ones(len(xy), bool)
    return np.linalg.norm(xy[:, None] - others[None], axis=2).min(axis=1) >= distance


def known_cells(known: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cells (h, w) of a view of which at least half is known, from a map (H, W) of the source image."""
    seen = cv2.warpPerspective(known.astype(np.float32), matrix, size)
    return cv2.resize(seen, (size[0] // CELL, size[1] // CELL), interpolation=cv2.INTER_AREA) >= 0.5


def shape_source(rng: np.random.Generator) -> Source:
    """A drawn shape seen twice."""
    drawing = shapes.draw(rng)
    points = np.concatenate(
        [drawing.corners, rng.uniform((8, 8), (drawing.image.shape[1] - 9, drawing.image.shape[0] - 9), (100, 2))]
    )
    is_corner = np.arange(len(points)) < len(drawing.corners)
    return Source((drawing.image,) * 2, (drawing.corners,) * 2, (points, points), is_corner)


def carried_cells(source: Source, matrices: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Where the centres of the first view's cells lie in the second, float32 (h * w, 2), NaN where not known."""
    columns, rows = np.meshgrid(np.arange(size[0] // CELL), np.arange(size[1] // CELL))
    centres = np.stack([columns.ravel(), rows.ravel()], 1) * float(CELL) + (CELL - 1) / 2
    there, seen = source.carry(apply_homography(np.linalg.inv(matrices[0]), centres))
    return np.where(seen[:, None], apply_homography(matrices[1], there), np.nan).astype(np.float32)


def view_matrix(
    rng: np.random.Generator, middle: np.ndarray, shape: tuple[int, ...], config: PairConfig, strength: float
) -> np.ndarray:
    """From source pixels to view pixels: a window about `middle`, kept inside the image, then a random homography."""
    size = np.array([config.width, config.height])
    room = np.maximum((np.array(shape[1::-1]) - size) / 2, 0) + 8
    centre = np.array(shape[1::-1]) / 2 - 0.5
    aim = np.clip(middle + rng.uniform(-40, 40, 2), centre - room, centre + room)
    shift = np.eye(3)
    shift[:2, 2] = size / 2 - 0.5 - aim
    zoom = config.scale**strength
    change = random_homography(
        rng, tuple(size), config.angle_deg * strength, (max(1 / zoom, 0.8), zoom), config.perspective * strength, 0.0
    )
    return change @ shift


def valid_cells(matrix: np.ndarray, shape: tuple[int, ...], size: tuple[int, int], margin: float = 3.0) -> np.ndarray:
    """Cells (h, w) of a view that lie wholly inside the source image."""
    columns, rows = np.meshgrid(np.arange(size[0] // CELL + 1), np.arange(size[1] // CELL + 1))
    corners = np.stack([columns.ravel(), rows.ravel()], 1) * float(CELL) - 0.5
    x, y = apply_homography(np.linalg.inv(matrix), corners).T.reshape(2, *columns.shape)
    inside = (x > margin) & (y > margin) & (x < shape[1] - 1 - margin) & (y < shape[0] - 1 - margin)
    return inside[:-1, :-1] & inside[1:, :-1] & inside[:-1, 1:] & inside[1:, 1:]


def cell_targets(xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Target distribution of each cell, float32 (65, h, w), from keypoints (M, 2).

    A keypoint's unit of probability goes to its four neighbouring pixels in bilinear shares, so that the expected
    place is exact below a pixel; what a cell has left goes to 'none'.
    """
    width, height = size
    heat = np.zeros((height + 1, width + 1), np.float32)
    x0, y0 = np.floor(xy[:, 0]).astype(int), np.floor(xy[:, 1]).astype(int)
    inside = (x0 >= 0) & (y0 >= 0) & (x0 < width) & (y0 < height)
    x0, y0, fx, fy = x0[inside], y0[inside], (xy[:, 0] - x0[:])[inside], (xy[:, 1] - y0[:])[inside]
    for dx, dy, share in ((0, 0, (1 - fx) * (1 - fy)), (1, 0, fx * (1 - fy)), (0, 1, (1 - fx) * fy), (1, 1, fx * fy)):
        np.add.at(heat, (y0 + dy, x0 + dx), share)
    cells = heat[:height, :width].reshape(height // CELL, CELL, width // CELL, CELL).transpose(1, 3, 0, 2)
    places = cells.reshape(CELL * CELL, height // CELL, width // CELL)
    total = places.sum(axis=0, keepdims=True)
    return np.concatenate([places / np.maximum(total, 1), np.maximum(1 - total, 0)])


def choose_points(
    points: list[np.ndarray], is_corner: np.ndarray, masks: list[np.ndarray], count: int, rng: np.random.Generator
) -> np.ndarray:
    """Indices of at most `count` points that lie in valid cells of both views; corners before others."""
    good = np.ones(len(is_corner), bool)
    for xy, mask in zip(points, masks, strict=True):
        cell = np.floor((xy + 0.5) / CELL).astype(int)
        inside = (cell >= 0).all(1) & (cell[:, 0] < mask.shape[1]) & (cell[:, 1] < mask.shape[0])
        cell = np.where(inside[:, None], cell, 0)
        good &= inside & mask[cell[:, 1], cell[:, 0]]
    found = rng.permutation(np.flatnonzero(good))
    return found[np.argsort(~is_corner[found], kind="stable")][:count]
