"""Pictures as lists of a few primitives, turned into SVG (themed by CSS) or PNG (drawn by OpenCV)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import Literal

import numpy as np

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2428",
    "muted": "#6b7178",
    "grid": "#e8e6e1",
    "truth": "#9a9fa6",
    "estimate": "#1f66b0",
    "live": "#8db9e6",
    "ok": "#4c9f87",
    "weak": "#d98a00",
    "lost": "#c9392e",
    "dropped": "#a6abb2",
    "unreadable": "#7d5ba6",
    "points": "#b8c1cb",
    "series1": "#c2571a",
    "series2": "#2f8a5b",
    "series3": "#8a4fb5",
    "series4": "#b3892b",
    "series5": "#3c8fa8",
}
DARK = {
    **LIGHT,
    "paper": "#1a1e22",
    "ink": "#e4e7ea",
    "muted": "#949ba3",
    "grid": "#2d3338",
    "truth": "#7f878f",
    "estimate": "#6fb0f2",
    "live": "#3d668f",
    "ok": "#4fae94",
    "weak": "#eeb04a",
    "lost": "#f0695d",
    "dropped": "#646b73",
    "points": "#4a535c",
    "series1": "#f09a62",
    "series2": "#63c793",
    "series3": "#c192e8",
}
SERIES = ("estimate", "series1", "series2", "series3", "series4", "series5")
FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif"
PNG_SCALE = 2
"""PNG pixels per unit, so that thin lines and small letters stay sharp."""


@dataclass(frozen=True)
class Line:
    """A polyline (N, 2) in `colour` (a name of the palette)."""

    points: np.ndarray
    colour: str
    width: float = 1.5
    dashed: bool = False


@dataclass(frozen=True)
class Dots:
    """Filled circles at (N, 2)."""

    points: np.ndarray
    colour: str
    radius: float = 1.0


@dataclass(frozen=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True)
class Label:
    """A line of text; `x` is its left end, middle or right end, `y` its base line. A halo keeps it legible on lines."""

    x: float
    y: float
    text: str
    colour: str = "muted"
    anchor: Literal["start", "middle", "end"] = "start"
    size: float = 11.0
    has_halo: bool = False


Item = Line | Dots | Box | Label


@dataclass(frozen=True)
class Picture:
    """Items in drawing order on a `width` x `height` canvas, y down."""

    width: float
    height: float
    items: tuple[Item, ...]


def stack(pictures: list[Picture], gap: float = 16.0) -> Picture:
    """One below the other."""
    items: list[Item] = []
    y = 0.0
    for picture in pictures:
        items += [shifted(item, 0.0, y) for item in picture.items]
        y += picture.height + gap
    return Picture(max(picture.width for picture in pictures), y - gap, tuple(items))


def shifted(item: Item, x: float, y: float) -> Item:
    """The item moved right and down."""
    if isinstance(item, Line | Dots):
        return replace(item, points=item.points + np.array([x, y]))
    return replace(item, x=item.x + x, y=item.y + y)


def palette_css() -> str:
    """The colours as CSS variables, light and dark."""

    def declare(colours: dict[str, str]) -> str:
        return ":root{" + ";".join(f"--{name}:{value}" for name, value in colours.items()) + "}"

    return declare(LIGHT) + "@media (prefers-color-scheme:dark){" + declare(DARK) + "}"


def svg_element(picture: Picture, attributes: str = "") -> str:
    """An `<svg>` element for a page that holds `palette_css()`."""
    body = "".join(map(_svg_item, picture.items))
    box = f"0 0 {picture.width:g} {picture.height:g}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img" {attributes}>{body}</svg>'


def svg_file(picture: Picture) -> str:
    """A file of its own, on paper."""
    style = f"<style>{palette_css()} text{{font-family:{FONT}}}</style>"
    paper = Picture(picture.width, picture.height, (Box(0, 0, picture.width, picture.height, "paper"), *picture.items))
    size = f'width="{picture.width:g}" height="{picture.height:g}"'
    return svg_element(paper, size).replace(">", f">{style}", 1) + "\n"


def png_bytes(picture: Picture) -> bytes:
    """A PNG image, light."""
    import cv2

    shape = (int(np.ceil(picture.height * PNG_SCALE)), int(np.ceil(picture.width * PNG_SCALE)), 3)
    image = np.full(shape, _bgr("paper"), np.uint8)
    for item in picture.items:
        _paint(cv2, image, item)
    return cv2.imencode(".png", image)[1].tobytes()


def _svg_item(item: Item) -> str:
    colour = f"var(--{item.colour})"
    if isinstance(item, Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in item.points.tolist())
        dash = ' stroke-dasharray="5 4"' if item.dashed else ""
        return (
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{item.width:g}"'
            f' stroke-linejoin="round" stroke-linecap="round"{dash}/>'
        )
    if isinstance(item, Dots):  # a path of zero-length strokes with round caps: a fifth of the bytes of circles
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in item.points.tolist())
        return f'<path d="{path}" stroke="{colour}" stroke-width="{2 * item.radius:g}" stroke-linecap="round"/>'
    if isinstance(item, Box):
        size = f'width="{item.width:.2f}" height="{item.height:.2f}"'
        return f'<rect x="{item.x:.2f}" y="{item.y:.2f}" {size} fill="{colour}"/>'
    place = f'x="{item.x:.1f}" y="{item.y:.1f}" text-anchor="{item.anchor}" font-size="{item.size:g}"'
    halo = (
        ' stroke="var(--paper)" stroke-width="4" paint-order="stroke" stroke-linejoin="round"' if item.has_halo else ""
    )
    return f'<text {place} fill="{colour}"{halo}>{escape(item.text)}</text>'


def _bgr(colour: str) -> tuple[int, int, int]:
    text = LIGHT[colour]
    return int(text[5:7], 16), int(text[3:5], 16), int(text[1:3], 16)


def _paint(cv2, image: np.ndarray, item: Item) -> None:
    colour = _bgr(item.colour)
    if isinstance(item, Line):
        _paint_line(cv2, image, item, colour)
    elif isinstance(item, Dots):
        for x, y in np.round(item.points * PNG_SCALE * 16).astype(int).tolist():
            cv2.circle(image, (x, y), round(item.radius * PNG_SCALE * 16), colour, -1, cv2.LINE_AA, 4)
    elif isinstance(item, Box):
        corner = np.round(np.array([item.x, item.y]) * PNG_SCALE).astype(int)
        size = np.maximum(np.round(np.array([item.width, item.height]) * PNG_SCALE).astype(int), 1)
        cv2.rectangle(image, corner.tolist(), (corner + size - 1).tolist(), colour, -1)
    else:
        _paint_text(cv2, image, item, colour)


def _paint_line(cv2, image: np.ndarray, item: Line, colour: tuple[int, int, int]) -> None:
    points = np.round(item.points * PNG_SCALE * 16).astype(np.int32)
    width = max(round(item.width * PNG_SCALE) - 1, 1)  # smoothing widens a line by about one pixel
    if item.dashed and len(points) == 2:
        parts = np.linspace(points[0], points[1], 2 * max(int(np.hypot(*(points[1] - points[0])) / 320), 1))
        strokes = list(np.round(parts).astype(np.int32).reshape(-1, 2, 2))
    else:
        strokes = [points]
    cv2.polylines(image, strokes, False, colour, width, cv2.LINE_AA, 4)


def _paint_text(cv2, image: np.ndarray, item: Label, colour: tuple[int, int, int]) -> None:
    scale = item.size * PNG_SCALE / 30  # Hershey Simplex capitals are 21 units high, letters of size s about 0.7 s
    face, text = cv2.FONT_HERSHEY_SIMPLEX, item.text.encode("ascii", "replace").decode()
    width = cv2.getTextSize(text, face, scale, 1)[0][0]
    x = item.x * PNG_SCALE - {"start": 0, "middle": width / 2, "end": width}[item.anchor]
    place = round(x), round(item.y * PNG_SCALE)
    if item.has_halo:
        cv2.putText(image, text, place, face, scale, _bgr("paper"), 8, cv2.LINE_AA)
    cv2.putText(image, text, place, face, scale, colour, 1, cv2.LINE_AA)
