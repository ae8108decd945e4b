"""The front-end benchmark as a picture: curves over the pictures, and boxes of their spread."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from vslam.datasets.trajectory import write_atomically
from vslam.evaluation import charts, drawing
from vslam.evaluation.charts import Curve, Scale
from vslam.evaluation.drawing import Box, Item, Label, Line, Picture

CURVES = (
    ("match_prec", "match_prec: matches under the ratio test / keypoints", "", 1.0),
    ("outlier_prec", "outlier_prec: matches off the epipolar line / matches", "", None),
    ("num_kp", "Keypoints", "", None),
    ("inliers", "Matches that fit", "", None),
    ("extract_cpu_ms", "Extraction, CPU", "ms", None),
)
"""Figure, its title, its unit, and the top of its axis (None: from the values)."""
MARGIN = 16.0
ROW = 22.0
STYLE = (
    "body{margin:24px auto;max-width:1200px;background:var(--paper);color:var(--ink);font:14px system-ui,sans-serif}"
    "svg{width:100%;height:auto}table{border-collapse:collapse}td,th{padding:3px 12px;text-align:right}"
    "td:first-child,th:first-child{text-align:left}th{border-bottom:1px solid var(--muted)}"
)


def write_page(path: Path, found: dict[str, Any], title: str, table: list[list[str]]) -> None:
    """Write curves and boxes to an .svg, .html (with the table) or .png file."""
    picture = draw(found)
    suffix = path.suffix.lower()
    if suffix == ".png":
        write_atomically(path, drawing.png_bytes(picture))
    elif suffix == ".svg":
        write_atomically(path, drawing.svg_file(picture))
    else:
        write_atomically(path, _html(picture, title, table))


def draw(found: dict[str, Any]) -> Picture:
    """One picture for all front ends: a legend, and for each figure its curve and the boxes of its spread."""
    frontends = found["frontends"]
    colours = [drawing.SERIES[k % len(drawing.SERIES)] for k in range(len(frontends))]
    parts = [_legend(list(frontends), colours)]
    for name, title, unit, top in CURVES:
        values = [np.array(scores["curves"][name], float) for scores in frontends.values()]
        high = top or max(1e-3, 1.05 * float(np.percentile(np.concatenate(values), 99.5)))
        parts.append(_chart(title, values, colours, unit, high))
        parts.append(_boxes(values, colours, high))
    whole = drawing.stack(parts, gap=10.0)
    items = tuple(drawing.shifted(item, MARGIN, MARGIN) for item in whole.items)
    return Picture(whole.width + 2 * MARGIN, whole.height + 2 * MARGIN, items)


def _chart(title: str, values: list[np.ndarray], colours: list[str], unit: str, high: float) -> Picture:
    curves = [Curve(np.arange(1.0, len(v) + 1), v, colour, 1.2) for v, colour in zip(values, colours, strict=True)]
    span = (0.0, float(max(len(v) for v in values)))
    chart = charts.time_chart(curves, span, unit, high, time_unit="picture")
    heading = Label(charts.LEFT, 8, title, "ink", size=13)
    return Picture(chart.width, chart.height + 12, (heading, *(drawing.shifted(i, 0, 12) for i in chart.items)))


def _boxes(values: list[np.ndarray], colours: list[str], high: float) -> Picture:
    """A row a front end: 5th to 95th percentile as a line, the middle half as a box, the median across it."""
    x = Scale(0.0, high, charts.LEFT, charts.CHART_WIDTH - charts.RIGHT)
    items: list[Item] = []
    for row, (each, colour) in enumerate(zip(values, colours, strict=True)):
        low, first, middle, third, top = (
            float(x(v)) for v in np.minimum(np.percentile(each, (5, 25, 50, 75, 95)), high)
        )
        y = row * ROW + ROW / 2
        items.append(Line(np.array([[low, y], [top, y]]), colour, 1.5))
        items.append(Box(first, y - 5, max(third - first, 1.0), 10, colour))
        items.append(Line(np.array([[middle, y - 8], [middle, y + 8]]), "ink", 1.5))
        on_right = top < (x.start + x.end) * 0.8
        place = (top + 8, "start") if on_right else (low - 8, "end")
        items.append(Label(place[0], y + 4, f"{np.median(each):.3g}", "muted", place[1]))
    return Picture(charts.CHART_WIDTH, ROW * len(values) + 4, tuple(items))


def _legend(names: list[str], colours: list[str]) -> Picture:
    items: list[Item] = []
    left = charts.LEFT
    for name, colour in zip(names, colours, strict=True):
        items += [Box(left, 2, 18, 8, colour), Label(left + 24, 10, name, "ink", size=12)]
        left += 60 + 7.0 * len(name)
    return Picture(charts.CHART_WIDTH, 16.0, tuple(items))


def _html(picture: Picture, title: str, table: list[list[str]]) -> str:
    head, *rows = table
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{drawing.palette_css()}{STYLE}</style><body><h1>{escape(title)}</h1>"
        f"<table><tr>{cells}</tr>{body}</table>{drawing.svg_file(picture)}</body></html>\n"
    )
