"""Drawn shapes whose corners are known: what a detector learns first (DeTone et al. 2018, "SuperPoint", section 4).

Nine classes, each an image and the places of its corners. Drawn at four times the size and shrunk, so that a corner
lies where its label says to a fifth of a pixel (OpenCV fills half a pixel beyond the outline). Lengths are shares of
the shorter side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

ZOOM = 4
"""Shapes are drawn so many times larger than the image that is returned."""
TEXEL = 24
"""Pixels of the large canvas from grey to grey in a textured polygon."""
CONTRAST = 50
"""Grey levels at least between a shape and what is around it."""
STRAIGHT_DEG = 120.0
"""A polygon's corner with a wider angle is none to look at."""
MARGIN = 2.0
"""Pixels from the border within which corners are not labelled."""


@dataclass(frozen=True)
class Drawing:
    """A grey image (H, W) uint8 and its corners (M, 2) float32 pixels."""

    kind: str
    image: np.ndarray
    corners: np.ndarray


class Canvas:
    """Where shapes are drawn; `grey` is the mean of the background. All places are pixels of the large canvas."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], plain: bool):
        self.rng, self.plain = rng, plain
        self.width, self.height = size[0] * ZOOM, size[1] * ZOOM
        self.side = min(self.width, self.height)
        self.image = self._plain() if plain else self._clouds(size)
        self.grey = int(self.image.mean())

    def _plain(self) -> np.ndarray:
        return np.full((self.height, self.width), int(self.rng.integers(0, 256)), np.uint8)

    def _clouds(self, size: tuple[int, int]) -> np.ndarray:
        """Noise cut at a random level, a hundred discs, and all of it smeared; soft, so made small and enlarged."""
        rng, longest = self.rng, max(size)
        image = np.where(rng.random(size[::-1]) < rng.random(), 255, 0).astype(np.uint8)
        for _ in range(100):
            centre = int(rng.integers(size[0])), int(rng.integers(size[1]))
            radius = rng.uniform(0.02, 0.031) * longest
            cv2.circle(image, centre, max(int(radius), 1), int(rng.integers(256)), -1)
        kernel = max(int(rng.uniform(0.12, 0.39) * longest), 3)
        return cv2.resize(cv2.blur(image, (kernel, kernel)), (self.width, self.height), interpolation=cv2.INTER_LINEAR)

    def colour(self, *others: int) -> int:
        """A grey that stands out from the background and from others."""
        avoided = np.array([self.grey, *others])
        free = [grey for grey in range(256) if np.abs(avoided - grey).min() >= CONTRAST]
        if not free:  # no grey is far from all: the one that is farthest
            return int(max(range(256), key=lambda grey: np.abs(avoided - grey).min()))
        return int(self.rng.choice(free))

    def polygon(self, corners: np.ndarray, colour: int) -> None:
        """Fill a polygon (N, 2)."""
        cv2.fillPoly(self.image, [np.round(corners).astype(np.int32)], colour)

    def line(self, a: np.ndarray, b: np.ndarray, colour: int, width: float) -> None:
        """A bar with square ends between two points."""
        along = (b - a) / max(np.linalg.norm(b - a), 1e-9)
        across = np.array([-along[1], along[0]]) * width / 2
        self.polygon(np.array([a + across, b + across, b - across, a - across]), colour)

    def ellipse(self, centre: np.ndarray, axes: np.ndarray, turn_deg: float, colour: int) -> None:
        """Fill an ellipse with half axes (2,)."""
        place, half = (np.round(v).astype(int).tolist() for v in (centre, axes))
        cv2.ellipse(self.image, place, half, turn_deg, 0, 360, colour, -1)

    def texture(self, corners: np.ndarray, colour: int) -> None:
        """Fill a polygon with soft clouds about a grey."""
        low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
        high = np.ceil(corners.max(axis=0)).astype(int) + 1
        part = self.image[low[1] : high[1], low[0] : high[0]]
        mask = np.zeros_like(part)
        cv2.fillPoly(mask, [np.round(corners - low).astype(np.int32)], 1)
        coarse = self.rng.normal(0, 0.5, (max(part.shape[0] // TEXEL, 2), max(part.shape[1] // TEXEL, 2)))
        clouds = cv2.resize(coarse, part.shape[::-1], interpolation=cv2.INTER_CUBIC)
        clouds = np.clip(colour + CONTRAST / 3 * np.clip(clouds, -1, 1), 0, 255)  # stays apart from what is around it
        part[mask > 0] = clouds[mask > 0].astype(np.uint8)

    def finish(self, kind: str, corners: np.ndarray) -> Drawing:
        """Shrink, and keep the corners that are inside."""
        size = self.width // ZOOM, self.height // ZOOM
        image = cv2.resize(self.image, size, interpolation=cv2.INTER_AREA)
        if not self.plain:
            image = cv2.GaussianBlur(image, (0, 0), self.rng.uniform(0.4, 1.2))
        xy = (np.asarray(corners, np.float64).reshape(-1, 2) + 0.5) / ZOOM - 0.5
        inside = (xy >= MARGIN).all(1) & (xy <= np.array(size) - 1 - MARGIN).all(1)
        return Drawing(kind, image, xy[inside].astype(np.float32))


def draw(
    rng: np.random.Generator, kind: str | None = None, size: tuple[int, int] = (320, 240), plain: bool = False
) -> Drawing:
    """A shape of a class (None: drawn by `SHARES`) in an image of `size` (width, height); `plain`: on one grey."""
    if kind is None:
        share = np.array(list(SHARES.values()))
        kind = str(rng.choice(list(SHARES), p=share / share.sum()))
    canvas = Canvas(rng, size, plain)
    return canvas.finish(kind, CLASSES[kind](canvas))


def lines(canvas: Canvas) -> np.ndarray:
    """Up to nine bars that do not cross; their ends."""
    rng, kept = canvas.rng, []
    for _ in range(int(rng.integers(1, 10))):
        a, b = rng.uniform(0, (canvas.width, canvas.height), (2, 2))
        width = rng.uniform(0.01, 0.02) * canvas.side
        if np.linalg.norm(b - a) > 4 * width and not any(_near(a, b, *other, 3 * width) for other in kept):
            canvas.line(a, b, canvas.colour(), width)
            kept.append((a, b))
    return np.array(kept).reshape(-1, 2)


def polygon(canvas: Canvas) -> np.ndarray:
    """One polygon of three to seven corners."""
    rng = canvas.rng
    radius = max(rng.random() * canvas.side / 2, canvas.side / 10)
    centre = rng.uniform(radius, np.array([canvas.width, canvas.height]) - radius)
    corners = _blob(rng, centre, radius)
    canvas.polygon(corners, canvas.colour())
    return clear_corners(corners, canvas.side)


def polygons(canvas: Canvas) -> np.ndarray:
    """Several polygons with soft texture that do not overlap."""
    rng, kept, found = canvas.rng, [], [np.zeros((0, 2))]
    for _ in range(30):
        radius = max(rng.random() * canvas.side / 4, canvas.side / 12)
        centre = rng.uniform(radius, np.array([canvas.width, canvas.height]) - radius)
        if any(np.linalg.norm(centre - c) < radius + r + 4 * ZOOM for c, r in kept):
            continue
        kept.append((centre, radius))
        corners = _blob(rng, centre, radius)
        (canvas.polygon if canvas.plain else canvas.texture)(corners, canvas.colour())
        found.append(clear_corners(corners, canvas.side))
    return np.concatenate(found)


def ellipses(canvas: Canvas) -> np.ndarray:
    """Up to twenty ellipses that do not overlap: no corners."""
    rng, kept = canvas.rng, []
    for _ in range(20):
        axes = np.maximum(rng.random(2) * canvas.side / 4, canvas.side / 20)
        centre = rng.uniform(axes.max(), np.array([canvas.width, canvas.height]) - axes.max())
        if not any(np.linalg.norm(centre - c) < axes.max() + r + 4 * ZOOM for c, r in kept):
            kept.append((centre, axes.max()))
            canvas.ellipse(centre, axes, rng.uniform(0, 180), canvas.colour())
    return np.zeros((0, 2))


def star(canvas: Canvas) -> np.ndarray:
    """Three to five bars from one point; that point and their tips."""
    rng = canvas.rng
    count, width = int(rng.integers(3, 6)), rng.uniform(0.01, 0.02) * canvas.side
    radius = max(rng.random() * canvas.side / 2, canvas.side / 8)
    centre = rng.uniform(radius, np.array([canvas.width, canvas.height]) - radius)
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(-0.3, 0.3, count) + rng.uniform(0, 6.3)
    reach = radius * np.maximum(rng.random(count), 0.4)
    tips = centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for tip in tips:
        canvas.line(centre, tip, canvas.colour(), width)
    return np.concatenate([centre[None], tips])


def checkerboard(canvas: Canvas) -> np.ndarray:
    """Three to six cells a side, warped; all crossings, and where cells meet the rim."""
    rng = canvas.rng
    rows, columns = rng.integers(3, 7, 2)
    y, x = np.mgrid[: rows + 1, : columns + 1]
    flat = np.stack([x.ravel() / columns, y.ravel() / rows], axis=1)
    grid = _warped(canvas, flat, rng.uniform(0.05, 0.2)).reshape(rows + 1, columns + 1, 2)
    greys = np.zeros((rows, columns), int)
    for i in range(rows):
        for j in range(columns):
            neighbours = [*greys[i - 1 : i, j], *greys[i, max(j - 1, 0) : j]]
            greys[i, j] = canvas.colour(*neighbours)
            cell = [grid[i, j], grid[i, j + 1], grid[i + 1, j + 1], grid[i + 1, j]]
            canvas.polygon(np.array(cell), int(greys[i, j]))
    return grid.reshape(-1, 2)


def stripes(canvas: Canvas) -> np.ndarray:
    """Five to twelve stripes, warped; the ends of their edges."""
    rng = canvas.rng
    count = int(rng.integers(5, 13))
    edges = np.concatenate([[0.0], np.cumsum(np.maximum(rng.dirichlet(np.ones(count)), 0.04))])
    edges /= edges[-1]
    flat = np.concatenate([np.stack([edges, np.full(count + 1, side)], axis=1) for side in (0.0, 1.0)])
    upper, lower = _warped(canvas, flat, rng.uniform(0.1, 0.2)).reshape(2, count + 1, 2)
    grey = canvas.grey
    for k in range(count):
        grey = canvas.colour(grey)
        canvas.polygon(np.array([upper[k], upper[k + 1], lower[k + 1], lower[k]]), grey)
    return np.concatenate([upper, lower])


def cube(canvas: Canvas) -> np.ndarray:
    """A box seen from a corner, without perspective; the seven corners that are seen."""
    rng, side = canvas.rng, canvas.side
    half = (0.2 * side + rng.random(3) * 2 / 3 * side) * rng.uniform(0.4, 1.0) / 2
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    turned = signs * half @ _turn(np.radians(rng.uniform(18, 72, 3))).T
    centre = rng.uniform(0.3, 0.7, 2) * (canvas.width, canvas.height)
    places = turned[:, :2] + centre
    grey = canvas.grey
    for axis in range(3):
        normal = np.where(turned[signs[:, axis] > 0, 2].mean() < turned[signs[:, axis] < 0, 2].mean(), 1, -1)
        face = np.flatnonzero(signs[:, axis] == normal)[[0, 1, 3, 2]]  # around, not across
        grey = canvas.colour(grey)
        canvas.polygon(places[face], grey)
    hidden = turned[:, 2].argmax()  # z points away from the viewer
    return np.delete(places, hidden, axis=0)


def noise(canvas: Canvas) -> np.ndarray:
    """Nothing but noise: no corners."""
    small = canvas.rng.integers(0, 256, (canvas.height // ZOOM, canvas.width // ZOOM)).astype(np.uint8)
    canvas.image[:] = cv2.resize(small, (canvas.width, canvas.height), interpolation=cv2.INTER_NEAREST)
    return np.zeros((0, 2))


CLASSES: dict[str, Callable[[Canvas], np.ndarray]] = {
    "lines": lines, "polygon": polygon, "polygons": polygons, "ellipses": ellipses, "star": star,
    "checkerboard": checkerboard, "stripes": stripes, "cube": cube, "noise": noise,
}  # fmt: skip
SHARES = {
    "lines": 1.0, "polygon": 1.0, "polygons": 1.0, "ellipses": 0.3, "star": 1.0, "checkerboard": 1.0, "stripes": 0.2,
    "cube": 1.0, "noise": 0.1,
}  # fmt: skip
"""How often each class is drawn, against the others."""


def clear_corners(corners: np.ndarray, side: float) -> np.ndarray:
    """The corners (N, 2) of a polygon that can be seen: not too wide an angle, not too near to the next."""
    before, after = np.roll(corners, 1, axis=0) - corners, np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
    cosine = (before * after).sum(axis=1) / np.maximum(lengths[0] * lengths[1], 1e-9)
    clear = (np.degrees(np.arccos(np.clip(cosine, -1, 1))) <= STRAIGHT_DEG) & (np.minimum(*lengths) > 0.01 * side)
    return corners[clear]


def _blob(rng: np.random.Generator, centre: np.ndarray, radius: float) -> np.ndarray:
    """Corners (N, 2) of a polygon about a centre, in order of their angle."""
    count = int(rng.integers(3, 8))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(-0.4, 0.4, count) * 2 * np.pi / count
    angles += rng.uniform(0, 2 * np.pi)
    reach = radius * np.maximum(rng.random(count), 0.4)
    return centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _warped(canvas: Canvas, flat: np.ndarray, strength: float) -> np.ndarray:
    """Points (N, 2) of the unit square under a random perspective and affine map, about the middle of the canvas."""
    from vslam.train.data.warp import apply_homography, four_point_homography

    rng, longest = canvas.rng, max(canvas.width, canvas.height)
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    target = (0.12 + 0.76 * square) * (canvas.width, canvas.height)
    target = target + rng.uniform(-strength, strength, (4, 2)) * longest * 0.6
    middle, turn, zoom = target.mean(axis=0), rng.uniform(-np.pi, np.pi), rng.uniform(0.6, 1.1)
    rotate = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    target = (target - middle) @ rotate.T + middle
    if _is_convex(target):
        return apply_homography(four_point_homography(square, target), flat)
    return flat * (canvas.width, canvas.height)


def _is_convex(corners: np.ndarray) -> bool:
    edges = np.roll(corners, -1, axis=0) - corners
    following = np.roll(edges, -1, axis=0)
    turns = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]
    return bool((turns > 0).all() or (turns < 0).all())


def _turn(angles: np.ndarray) -> np.ndarray:
    """Rotation matrix of turns about z, y and x."""
    (a, b, c), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    z = np.array([[a, -sa, 0], [sa, a, 0], [0, 0, 1]])
    y = np.array([[b, 0, sb], [0, 1, 0], [-sb, 0, b]])
    x = np.array([[1, 0, 0], [0, c, -sc], [0, sc, c]])
    return x @ y @ z


def _near(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, distance: float) -> bool:
    """Whether two segments cross, or come nearer than `distance`."""
    steps = np.linspace(0, 1, 40)[:, None]
    first, second = a + steps * (b - a), c + steps * (d - c)
    return bool(np.linalg.norm(first[:, None] - second[None], axis=2).min() < distance) or _cross(a, b, c, d)


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
