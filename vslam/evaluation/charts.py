"""Charts for the report and for `vslam eval --plot`: paths with equal axes, and values over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vslam.evaluation.drawing import Box, Dots, Item, Label, Line, Picture

MAX_POINTS = 3000
"""More points than this in a curve are not told apart on a screen; they only make the file large."""
LEFT, RIGHT, TOP, BOTTOM = 56.0, 16.0, 12.0, 24.0
VIEW_SIZE = (560.0, 460.0)
MIN_HEIGHT = 120.0
CHART_WIDTH, CHART_HEIGHT = 1140.0, 190.0
NARROW_WIDTH = VIEW_SIZE[0]
"""Of charts over time on a narrow screen, where letters of the wide ones would be too small to read."""
LIMIT_COLOUR = "muted"
GAP_FACTOR = 3.5
"""A curve is broken where the time from pose to pose is this many times its median."""


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, values: np.ndarray | float) -> np.ndarray | float:
        return self.start + (values - self.low) * ((self.end - self.start) / (self.high - self.low))

    def ticks(self, distance: float = 60.0) -> tuple[np.ndarray, int]:
        """Round values about `distance` pixels apart, and the decimals they need."""
        step = (self.high - self.low) / max(abs(self.end - self.start) / distance, 1.0)
        power = 10.0 ** np.floor(np.log10(step))
        step = power * min((factor for factor in (1, 2, 5, 10) if factor * power >= step * 0.999), default=10)
        first, last = np.ceil(self.low / step - 1e-9), np.floor(self.high / step + 1e-9)
        return np.arange(first, last + 1) * step + 0.0, max(0, int(-np.floor(np.log10(step) + 1e-9)))


@dataclass(frozen=True)
class Curve:
    """Values (N,) over time (N,), or points (N, 2) of a path; drawn in `colour`."""

    x: np.ndarray
    y: np.ndarray
    colour: str
    width: float = 1.5
    dashed: bool = False


def path_view(
    curves: list[Curve],
    points: np.ndarray,
    dots: np.ndarray,
    ends: np.ndarray,
    metre: float,
    size: tuple[float, float] = VIEW_SIZE,
) -> tuple[Picture, Scale, Scale]:
    """A path in metres with equal axes.

    Args:
        points: (P, 2) map points, drawn faintly where they are in view.
        dots: (K, 2) keyframes.
        ends: (0 or 2, 2) first and last position.
        metre: metres per pixel, see `metres_per_pixel`.

    Returns:
        The picture, and its horizontal and vertical scale.
    """
    x, y = _equal_scales(_places(curves), metre, *size)
    items: list[Item] = _grid(x, y, "m", "m")
    items += _points_in_view(points, x, y)
    items += [Line(_pixels(curve, x, y), curve.colour, curve.width, curve.dashed) for curve in curves]
    if len(dots):
        places = np.stack([x(dots[:, 0]), y(dots[:, 1])], axis=1)
        items += [Dots(places, "paper", 2.8), Dots(places, "estimate", 2.0)]
    items += _end_marks(ends, x, y)
    return Picture(size[0], y.start + BOTTOM, tuple(items)), x, y


def metres_per_pixel(curves: list[Curve], size: tuple[float, float] = VIEW_SIZE) -> float:
    """The scale at which a path just fits into a view."""
    extent = np.maximum(np.ptp(_places(curves), axis=0) * 1.12, 0.02)
    return float(max(extent[0] / (size[0] - LEFT - RIGHT), extent[1] / (size[1] - TOP - BOTTOM)))


def time_chart(
    curves: list[Curve],
    span: tuple[float, float],
    unit: str,
    high: float,
    limit: float | None = None,
    width: float = CHART_WIDTH,
    time_unit: str = "s",
) -> Picture:
    """Values from 0 to `high` over `span` seconds; `limit` is a dashed line."""
    x = time_scale(span, width)
    y = Scale(0.0, high, CHART_HEIGHT - BOTTOM, TOP)
    items: list[Item] = _grid(x, y, time_unit, unit, vertical_distance=34)
    for curve in curves:
        items += [Line(piece, curve.colour, curve.width) for piece in _pieces(curve, x, y)]
    if limit is not None and limit <= high:
        items.append(Line(np.array([[x.start, y(limit)], [x.end, y(limit)]]), LIMIT_COLOUR, 1.0, dashed=True))
    return Picture(width, CHART_HEIGHT, tuple(items))


def strip_chart(
    rows: list[tuple[str, list[tuple[float, float, str]]]], span: tuple[float, float], width: float = CHART_WIDTH
):
    """Rows of coloured stretches `(from s, to s, colour)` over time, each below its name."""
    x = time_scale(span, width)
    height = 28.0
    items: list[Item] = []
    for row, (name, stretches) in enumerate(rows):
        top = TOP + row * height
        items.append(Label(x.start, top + 4, name))
        items.append(Line(np.array([[x.start, top + 13.5], [x.end, top + 13.5]]), "grid", 1.0))
        for begin, end, colour in stretches:
            left = float(x(max(begin, span[0])))
            items.append(Box(left, top + 9, max(float(x(min(end, span[1]))) - left, 1.0), 9, colour))
    return Picture(width, TOP + len(rows) * height, tuple(items))


def time_scale(span: tuple[float, float], width: float) -> Scale:
    """The horizontal scale all charts over time share, so that they line up."""
    low, high = span
    return Scale(low, max(high, low + 1e-3), LEFT, width - RIGHT)


def breaks(times: np.ndarray) -> np.ndarray:
    """Where a curve over rising times (N,) is to be cut: the indices of the first samples after gaps."""
    steps = np.diff(times)
    return np.flatnonzero(steps > GAP_FACTOR * np.median(steps)) + 1 if len(steps) else np.zeros(0, np.int64)


def thin_out(count: int, keep: int = MAX_POINTS) -> np.ndarray:
    """Indices of at most about `keep` of `count` samples, evenly spread, the last one included."""
    if count <= keep:
        return np.arange(count)
    return np.unique(np.append(np.arange(0, count, -(-count // keep)), count - 1))


def _places(curves: list[Curve]) -> np.ndarray:
    places = [np.stack([curve.x, curve.y], axis=1) for curve in curves if len(curve.x)]
    return np.concatenate(places) if places else np.zeros((1, 2))


def _equal_scales(places: np.ndarray, metre: float, width: float, height: float) -> tuple[Scale, Scale]:
    """Scales of `metre` metres per pixel; the height shrinks to what a flat path needs."""
    low, high = places.min(axis=0), places.max(axis=0)
    middle, wide = (low + high) / 2, width - LEFT - RIGHT
    tall = float(np.clip((high - low)[1] * 1.12 / metre, MIN_HEIGHT, height - TOP - BOTTOM))
    x = Scale(middle[0] - metre * wide / 2, middle[0] + metre * wide / 2, LEFT, LEFT + wide)
    return x, Scale(middle[1] - metre * tall / 2, middle[1] + metre * tall / 2, TOP + tall, TOP)


def _grid(x: Scale, y: Scale, x_unit: str, y_unit: str, vertical_distance: float = 50.0) -> list[Item]:
    """Lines at round values; the last value of each axis carries the unit."""
    items: list[Item] = []
    for place, text in _tick_labels(x, x_unit, 80):
        items.append(Line(np.array([[place, y.start], [place, y.end]]), "grid", 1.0))
        items.append(Label(place, y.start + 16, text, "muted", "middle"))
    for place, text in _tick_labels(y, y_unit, vertical_distance):
        items.append(Line(np.array([[x.start, place], [x.end, place]]), "grid", 1.0))
        items.append(Label(x.start - 7, place + 4, text, "muted", "end"))
    return items


def _tick_labels(scale: Scale, unit: str, distance: float) -> list[tuple[float, str]]:
    ticks, decimals = scale.ticks(distance)
    texts = [f"{value:.{decimals}f}" for value in ticks]
    texts[-1:] = [f"{text} {unit}" for text in texts[-1:]]
    return [(float(scale(value)), text) for value, text in zip(ticks, texts, strict=True)]


def _points_in_view(points: np.ndarray, x: Scale, y: Scale) -> list[Item]:
    if not len(points):
        return []
    low, high = (x.low, y.low), (x.high, y.high)
    seen = points[((points > low) & (points < high)).all(axis=1)]
    seen = seen[thin_out(len(seen), 6000)]
    return [Dots(np.stack([x(seen[:, 0]), y(seen[:, 1])], axis=1), "points", 0.9)]


def _pixels(curve: Curve, x: Scale, y: Scale) -> np.ndarray:
    kept = thin_out(len(curve.x))
    return np.stack([x(curve.x[kept]), y(curve.y[kept])], axis=1)


def _pieces(curve: Curve, x: Scale, y: Scale) -> list[np.ndarray]:
    """The curve as polylines, cut at gaps; long ones keep the extremes of each short stretch."""
    values = np.minimum(curve.y, y.high)
    pieces = []
    for part in np.split(np.arange(len(curve.x)), breaks(curve.x)):
        if len(part) > MAX_POINTS:
            blocks = np.array_split(part, MAX_POINTS // 2)
            ends = [(block[np.argmin(values[block])], block[np.argmax(values[block])]) for block in blocks]
            part = np.unique(ends)
        if len(part) == 1:
            part = np.repeat(part, 2)  # a lone sample shows as a dot: round line ends
        pieces.append(np.stack([x(curve.x[part]), y(values[part])], axis=1))
    return [piece for piece in pieces if len(piece)]


def _end_marks(ends: np.ndarray, x: Scale, y: Scale) -> list[Item]:
    """Start and end (0 or 2, 2); their names one above the other where they would run into each other."""
    places = [(float(x(end[0])), float(y(end[1]))) for end in ends]
    crowded = len(places) == 2 and abs(places[0][0] - places[1][0]) < 60 and abs(places[0][1] - places[1][1]) < 14
    items: list[Item] = []
    for name, (left, top), shift in zip(("start", "end"), places, (-8, 8), strict=False):
        items += _end_mark(name, left, top, top + 4 + shift * crowded, x)
    return items


def _end_mark(name: str, left: float, top: float, baseline: float, x: Scale) -> list[Item]:
    place = np.array([[left, top]])
    on_right = left < (x.start + x.end) / 2
    label = Label(left + (9 if on_right else -9), baseline, name, "ink", "start" if on_right else "end", has_halo=True)
    inner = [Dots(place, "paper", 2.6)] if name == "start" else []
    return [Dots(place, "ink", 4.5), *inner, label]
