"""The furnished room: what stands where, painted and lit once, ready to be looked at."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np

from vslam.datasets.synthetic import paint
from vslam.datasets.synthetic.light import cosine_directions, illuminate
from vslam.datasets.synthetic.render import LEVELS, Scene

WIDTH, DEPTH, HEIGHT = (6.0, 4.8, 2.6)  # metres; the origin is in the middle of the floor, z points up
LIGHT_STEP_M = 0.07  # light is computed on this grid (at quality 1) and interpolated
LAMPS = ((-1.5, 0.3), (1.5, -0.3))
Painter = Callable[[paint.Canvas], np.ndarray]


@dataclass(frozen=True)
class Rectangle:
    """A painted rectangle: centre, normal towards the viewer, the direction that is down in its picture, size."""

    centre: np.ndarray
    normal: np.ndarray
    down: np.ndarray
    size: tuple[float, float]
    painter: Painter
    scale: float = 300.0  # texels per metre
    glows: bool = False
    shiny: bool = False


@dataclass
class Builder:
    """Collects rectangles, and boxes (centre, half sizes, cosine and sine of yaw) that throw shadows."""

    rectangles: list[Rectangle] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)

    def panel(self, centre, normal, size, painter, down=(0, 0, -1), **options) -> None:
        """A rectangle on its own."""
        vectors = [np.array(a, np.float64) for a in (centre, normal, down)]
        self.rectangles.append(Rectangle(*vectors, size, painter, **options))

    def box(self, centre, size, painter, yaw=0.0, front=None, top=None, scale=350.0, **front_options) -> None:
        """A box turned by `yaw` about the vertical; its front faces -y before it is turned."""
        c, s = np.cos(yaw), np.sin(yaw)
        x, y, z = np.array([c, s, 0]), np.array([-s, c, 0]), np.array([0, 0, 1.0])
        a, b, h = size
        centre = np.array(centre, np.float64)
        self.boxes.append(np.array([*centre, a / 2, b / 2, h / 2, c, s]))
        self.panel(centre - y * b / 2, -y, (a, h), front or painter, scale=scale, **front_options)
        self.panel(centre + y * b / 2, y, (a, h), painter, scale=scale)
        self.panel(centre + x * a / 2, x, (b, h), painter, scale=scale)
        self.panel(centre - x * a / 2, -x, (b, h), painter, scale=scale)
        self.panel(centre + z * h / 2, z, (a, b), top or painter, -y, scale=scale)
        if centre[2] - h / 2 > 0.3:
            self.panel(centre - z * h / 2, -z, (a, b), painter, y, scale=scale)

    def table(self, centre, size, painter, yaw=0.0) -> None:
        """A top of `size` (x, y) at the height of `centre`, on four legs."""
        self.box(centre, (*size, 0.045), painter, yaw)
        c, s = np.cos(yaw), np.sin(yaw)
        for sx, sy in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            x, y = sx * (size[0] / 2 - 0.06), sy * (size[1] / 2 - 0.06)
            tall = centre[2] - 0.025
            self.box((centre[0] + c * x - s * y, centre[1] + s * x + c * y, tall / 2), (0.06, 0.06, tall), painter, yaw)


def tinted(painter: Callable, *colour: float, **options) -> Painter:
    """A painter with its colour (BGR 0 to 255) chosen."""
    return partial(painter, colour=colour, **options)


def furnish() -> Builder:
    """The room of the sample."""
    room = Builder()
    _shell(room)
    _bookshelf(room)
    _round_the_walls(room)
    _desk(room)
    _middle(room)
    _pictures(room)
    return room


def _shell(room: Builder) -> None:
    w, d, h = WIDTH / 2, DEPTH / 2, HEIGHT
    room.panel((0, 0, 0), (0, 0, 1), (WIDTH, DEPTH), tinted(paint.wood, 62, 96, 138), (0, -1, 0))
    room.panel((0, 0, h), (0, 0, -1), (WIDTH, DEPTH), tinted(paint.plaster, 205, 212, 216), (0, 1, 0), scale=200.0)
    room.panel((w, 0, h / 2), (-1, 0, 0), (DEPTH, h), tinted(paint.plaster, 150, 190, 215))
    room.panel((0, d, h / 2), (0, -1, 0), (WIDTH, h), tinted(paint.stone, 128, 148, 166))
    room.panel((-w, 0, h / 2), (1, 0, 0), (DEPTH, h), tinted(paint.leaves, 165, 196, 190))
    room.panel((0, -d, h / 2), (0, 1, 0), (WIDTH, h), tinted(paint.plaster, 196, 180, 150))
    room.panel((0.1, 0, 0.008), (0, 0, 1), (3.2, 2.3), paint.carpet, (0, -1, 0), scale=350.0)
    for x, y in LAMPS:
        room.panel((x, y, h - 0.01), (0, 0, -1), (0.6, 0.6), paint.lamp, (0, 1, 0), glows=True)
    for x in (-2.3, 0.1, 2.4):
        room.box((x, 0, h - 0.1), (0.16, DEPTH, 0.2), tinted(paint.wood, 50, 78, 110))


def _bookshelf(room: Builder) -> None:
    left, width, deep, tall = -2.1, 1.6, 0.3, 2.05
    back = DEPTH / 2
    board = tinted(paint.wood, 70, 105, 150)
    for x in (left, left + width):
        room.box((x, back - deep / 2, tall / 2), (0.03, deep, tall), board)
    heights = (0.05, 0.44, 0.8, 1.2, 1.56, tall)
    for z in heights:
        room.box((left + width / 2, back - deep / 2, z), (width - 0.03, deep, 0.025), board)
    for k, (low, high) in enumerate(itertools.pairwise(heights)):
        recess = (0.05, 0.09, 0.03, 0.07, 0.06)[k]
        size = (width - 0.03, high - low - 0.025)
        room.panel(
            (left + width / 2, back - deep + recess, (low + high) / 2), (0, -1, 0), size, paint.books, scale=480.0
        )


def _round_the_walls(room: Builder) -> None:
    d = DEPTH / 2
    front = {"front": paint.drawers}
    room.box((1.2, d - 0.23, 0.46), (1.25, 0.46, 0.92), tinted(paint.wood, 90, 120, 130), **front)
    room.box(
        (1.2, d - 0.16, 1.25), (0.95, 0.06, 0.56), tinted(paint.fabric, 30, 30, 30), front=paint.screen, shiny=True
    )
    room.box((0.72, d - 0.26, 1.02), (0.2, 0.2, 0.2), paint.cardboard, 0.4)
    room.box((1.72, d - 0.22, 1.06), (0.13, 0.13, 0.28), tinted(paint.fabric, 60, 140, 90), 0.2)
    room.box((2.5, 1.95, 0.25), (0.5, 0.5, 0.5), paint.cardboard, 0.35)
    room.box((2.52, 1.93, 0.66), (0.38, 0.36, 0.32), paint.cardboard, -0.2)
    red = tinted(paint.fabric, 60, 60, 150)
    room.box((2.55, 0.1, 0.22), (0.8, 1.9, 0.44), red)
    room.box((2.84, 0.1, 0.62), (0.24, 1.9, 0.42), red)
    room.box((2.55, 1.1, 0.32), (0.85, 0.16, 0.64), red)
    room.box((2.55, -0.9, 0.32), (0.85, 0.16, 0.64), red)
    room.box((2.62, 0.7, 0.6), (0.16, 0.44, 0.4), paint.mosaic, 0.25)
    room.box((2.6, -0.45, 0.6), (0.16, 0.42, 0.38), tinted(paint.leaves, 90, 160, 190), -0.3)
    room.panel((-WIDTH / 2 + 0.004, 0.35, 1.5), (1, 0, 0), (1.5, 1.15), paint.window, glows=True)
    room.box(
        (-2.72, 0.35, 0.24), (0.5, 1.7, 0.48), tinted(paint.wood, 80, 120, 160), top=tinted(paint.fabric, 130, 110, 60)
    )
    room.box((-2.7, 0.8, 0.58), (0.3, 0.34, 0.2), paint.mosaic, 0.5)
    room.box((-2.62, -1.55, 0.3), (0.6, 0.6, 0.6), paint.cardboard, 0.15)
    room.box((-2.66, -1.5, 0.82), (0.46, 0.42, 0.44), paint.cardboard, -0.3)
    room.box((-2.05, -2.05, 0.2), (0.42, 0.5, 0.4), paint.cardboard, 0.7)
    room.box((2.0, -d + 0.03, 1.02), (0.95, 0.06, 2.04), tinted(paint.wood, 60, 100, 120), np.pi)


def _desk(room: Builder) -> None:
    back = -DEPTH / 2
    room.table((0.15, back + 0.36, 0.74), (1.6, 0.68), tinted(paint.wood, 110, 150, 185))
    room.box(
        (0.0, back + 0.2, 1.03), (0.62, 0.05, 0.38), tinted(paint.fabric, 35, 35, 35), np.pi, paint.screen, shiny=True
    )
    room.box((0.0, back + 0.2, 0.8), (0.1, 0.1, 0.1), tinted(paint.fabric, 50, 50, 50), scale=250.0)
    room.box((0.62, back + 0.3, 0.9), (0.24, 0.34, 0.28), paint.cardboard, 0.3)
    room.box((-0.5, back + 0.28, 0.83), (0.2, 0.28, 0.14), paint.books, 0.2)
    room.panel((0.3, back + 0.5, 0.766), (0, 0, 1), (0.21, 0.3), paint.page, (0.2, -0.98, 0), scale=500.0)
    room.box((0.25, back + 0.95, 0.45), (0.44, 0.44, 0.06), tinted(paint.fabric, 120, 80, 40), 0.5)
    room.box((0.35, back + 1.14, 0.75), (0.42, 0.05, 0.45), tinted(paint.fabric, 120, 80, 40), 0.5)
    room.box((0.25, back + 0.95, 0.21), (0.1, 0.1, 0.42), tinted(paint.fabric, 60, 60, 60), 0.5)


def _middle(room: Builder) -> None:
    room.table((0.0, 0.05, 0.6), (1.15, 0.68), tinted(paint.wood, 50, 84, 122), 0.16)
    room.box((-0.3, 0.12, 0.65), (0.3, 0.22, 0.05), paint.mosaic, 0.5)
    room.box((-0.29, 0.11, 0.695), (0.27, 0.2, 0.04), paint.page, 0.2)
    room.box((-0.31, 0.13, 0.73), (0.24, 0.18, 0.03), paint.discs, 0.75)
    room.box((0.22, 0.17, 0.74), (0.24, 0.2, 0.23), paint.cardboard, -0.35)
    room.box((0.42, -0.08, 0.675), (0.09, 0.09, 0.1), paint.mosaic, 0.3)
    room.box((0.02, 0.26, 0.76), (0.1, 0.1, 0.27), tinted(paint.leaves, 120, 150, 90), 0.6)
    for x, y, turn in ((0.05, -0.12, 0.3), (-0.13, -0.16, -0.5), (0.23, -0.1, 1.2)):
        down = (np.sin(turn), -np.cos(turn), 0)
        room.panel((x, y, 0.6235 + 0.0005 * x), (0, 0, 1), (0.15, 0.21), paint.page, down, scale=500.0)


def _pictures(room: Builder) -> None:
    w, d, thick = WIDTH / 2, DEPTH / 2, 0.025
    dark = tinted(paint.fabric, 40, 50, 60)
    walls = {  # wall: where a distance along it lies, the yaw of a box that faces the room
        "east": (lambda a: (w - thick / 2, a), -np.pi / 2),
        "west": (lambda a: (-w + thick / 2, a), np.pi / 2),
        "north": (lambda a: (a, d - thick / 2), 0.0),
        "south": (lambda a: (a, -d + thick / 2), np.pi),
    }
    hung = (
        ("east", -1.75, 1.5, 0.7, 0.9), ("east", -0.75, 1.75, 0.9, 0.6), ("east", 0.2, 1.55, 0.6, 0.75),
        ("east", 0.95, 1.8, 0.55, 0.4), ("east", 1.6, 1.45, 0.5, 0.7), ("east", 1.05, 1.25, 0.4, 0.35),
        ("west", -1.2, 1.7, 0.8, 0.6), ("west", -2.0, 1.55, 0.5, 0.65), ("west", 1.65, 1.5, 0.7, 0.85),
        ("west", -0.75, 1.1, 0.34, 0.4), ("north", 0.1, 1.6, 0.6, 0.8), ("north", 1.2, 1.95, 0.8, 0.5),
        ("north", 2.25, 1.6, 0.8, 0.7), ("north", 2.0, 1.0, 0.3, 0.35), ("north", -0.2, 0.85, 0.3, 0.4),
        ("south", -2.5, 1.7, 0.6, 0.7), ("south", -1.6, 1.65, 0.8, 0.95), ("south", -0.75, 1.6, 0.55, 0.7),
        ("south", 0.15, 1.75, 0.85, 0.55), ("south", 1.05, 1.65, 0.6, 0.75), ("south", 2.75, 1.5, 0.36, 0.5),
    )  # fmt: skip
    for wall, along, z, width, height in hung:
        place, yaw = walls[wall]
        room.box((*place(along), z), (width, thick, height), dark, yaw, paint.picture, scale=420.0)


def build_scene(seed: int, quality: float = 1.0, workers: int = 2) -> Scene:
    """Paint and light the room. `quality` scales the textures: 1 suits a camera of 640x480."""
    room = furnish()
    boxes, lamps, atlas = np.array(room.boxes), _lamps(), _atlas(room.rectangles, quality)
    texels = np.empty((atlas[-1, -1, 0] + atlas[-1, -1, 1:].prod(), 3), np.uint8)

    def paint_one(k: int) -> None:
        rng = np.random.default_rng((seed, k))
        _fill_pyramid(texels, atlas[k], _surface(room.rectangles[k], atlas[k, 0, 1:], boxes, lamps, quality, rng))

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(paint_one, range(len(room.rectangles))))
    return _scene(room.rectangles, atlas, texels, quality)


def _atlas(rectangles: list[Rectangle], quality: float) -> np.ndarray:
    """Where each texture's halvings lie in one long row of texels, (Q, LEVELS, 3): first texel, rows, columns."""
    scales = np.array([rectangle.scale * quality for rectangle in rectangles])
    shapes = np.array([rectangle.size[::-1] for rectangle in rectangles]) * scales[:, None]
    halved = [np.maximum(np.round(shapes).astype(np.int64), 2)]
    while len(halved) < LEVELS:
        halved.append(np.maximum(halved[-1] // 2, 1))
    levels = np.stack(halved, axis=1)
    counts = levels.prod(axis=2).ravel()
    first = (np.cumsum(counts) - counts).reshape(levels.shape[:2])
    return np.ascontiguousarray(np.concatenate([first[..., None], levels], axis=2))


def _lamps() -> np.ndarray:
    """Points that shine (L, 4): x y z power; panels of the ceiling, and the window."""
    grid = (-0.22, 0.0, 0.22)
    panels = [(x + a, y + b, HEIGHT - 0.03, 0.15) for x, y in LAMPS for a in grid for b in grid]
    outside = [(-WIDTH / 2 + 0.05, 0.35 + a, 1.5 + b, 0.16) for a in (-0.5, 0.0, 0.5) for b in (-0.35, 0.35)]
    return np.array(panels + outside)


def _axes(rectangle: Rectangle) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.cross(rectangle.normal, rectangle.down), rectangle.down, rectangle.normal


def _surface(rectangle: Rectangle, shape, boxes, lamps, quality: float, rng: np.random.Generator) -> np.ndarray:
    """The texture of a rectangle with its light, `shape` + (3,) uint8."""
    shape, scale = (int(shape[0]), int(shape[1])), rectangle.scale * quality
    image = np.asarray(rectangle.painter(paint.Canvas(shape, scale, rng)), np.float32)
    if not rectangle.glows:
        image = image * _light(rectangle, shape, boxes, lamps, LIGHT_STEP_M / quality)[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def _light(rectangle: Rectangle, shape: tuple[int, int], boxes, lamps, step: float) -> np.ndarray:
    """Brightness (rows, columns): the light on a coarse grid, as display values (gamma 2.2)."""
    u, v, n = _axes(rectangle)
    steps = [max(int(np.ceil(length / step)), 2) for length in rectangle.size]
    s, t = ((np.arange(k) + 0.5) / k - 0.5 for k in steps)
    across, along = (s[None, :, None] * rectangle.size[0] * u, t[:, None, None] * rectangle.size[1] * v)
    points = (rectangle.centre + across + along).reshape(-1, 3)
    light = np.empty(len(points))
    illuminate(points, u, v, n, boxes, lamps, cosine_directions(32), np.array([WIDTH / 2, DEPTH / 2, HEIGHT]), light)
    grid = light.reshape(len(t), len(s)).astype(np.float32) ** np.float32(1 / 2.2)
    return cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_LINEAR)


def _fill_pyramid(texels: np.ndarray, levels: np.ndarray, image: np.ndarray) -> None:
    """Put an image and its halvings where `levels` (LEVELS, 3) of the atlas says."""
    for first, rows, columns in levels.tolist():
        if image.shape[:2] != (rows, columns):
            image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
        texels[first : first + rows * columns] = image.reshape(-1, 3)


def _scene(rectangles: list[Rectangle], atlas: np.ndarray, texels: np.ndarray, quality: float) -> Scene:
    size = np.array([rectangle.size for rectangle in rectangles])
    u, v, n = (np.array(axis) for axis in zip(*map(_axes, rectangles), strict=True))
    corner = np.array([rectangle.centre for rectangle in rectangles]) - u * size[:, :1] / 2 - v * size[:, 1:] / 2
    scale = np.array([rectangle.scale * quality for rectangle in rectangles])
    shiny = np.array([rectangle.shiny for rectangle in rectangles])
    return Scene(corner, u, v, n, size, scale, atlas, texels, shiny)
