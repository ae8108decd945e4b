"""Trajectories over the truth as a picture file: what `vslam eval --plot` writes."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from vslam.datasets.trajectory import TrajectoryFile, write_atomically
from vslam.errors import VslamError
from vslam.evaluation import charts, drawing, views
from vslam.evaluation.charts import Curve
from vslam.evaluation.comparison import Rules
from vslam.evaluation.drawing import Item, Label, Line, Picture

SUFFIXES = (".svg", ".html", ".png")
MARGIN = 16.0


def check_suffix(path: str | Path) -> None:
    """Refuse a picture format that is not known, before any work is done.

    Raises:
        VslamError: see above.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise VslamError(f"--plot {path}: unknown picture format; use a name that ends in {', '.join(SUFFIXES)}")


def write_plot(path: str | Path, estimates: list[TrajectoryFile], truth: TrajectoryFile, rules: Rules) -> None:
    """Draw the paths from above and from the side, and the error over time, to an .svg, .html or .png file."""
    check_suffix(path)
    picture = draw(estimates, truth, rules)
    suffix = Path(path).suffix.lower()
    if suffix == ".png":
        write_atomically(path, drawing.png_bytes(picture))
    elif suffix == ".svg":
        write_atomically(path, drawing.svg_file(picture))
    else:
        write_atomically(path, _page(drawing.svg_file(picture), f"{truth.path.name}: vslam eval"))


def draw(estimates: list[TrajectoryFile], truth: TrajectoryFile, rules: Rules) -> Picture:
    """One picture: legend, two views side by side, error over time."""
    overlays = [views.overlay(file.trajectory, truth.trajectory, rules.align, rules.max_gap) for file in estimates]
    begin = min(overlay.estimate.timestamps[0] for overlay in overlays)
    end = max(overlay.estimate.timestamps[-1] for overlay in overlays)
    colours = [drawing.SERIES[index % len(drawing.SERIES)] for index in range(len(overlays))]
    seen = views.clip_time(truth.trajectory, begin - rules.max_gap, end + rules.max_gap)
    names = [("ground truth", "truth"), *zip(_short_names(estimates), colours, strict=True)]
    parts = [
        _legend(names),
        _views(overlays, colours, seen),
        _errors(overlays, colours, begin, (0.0, end - begin), "frame" if truth.unit == "index" else "s"),
    ]
    whole = drawing.stack(parts)
    items = tuple(drawing.shifted(item, MARGIN, MARGIN) for item in whole.items)
    return Picture(whole.width + 2 * MARGIN, whole.height + 2 * MARGIN, items)


def _views(overlays: list[views.Overlay], colours: list[str], truth) -> Picture:
    axes = views.view_axes(overlays[0].estimate.poses)
    sides = [("From above", axes[[0, 1]]), ("From the side", axes[[0, 2]])]
    curves = [_paths(overlays, colours, truth, side) for _, side in sides]
    metre = max(map(charts.metres_per_pixel, curves))
    items: list[Item] = []
    height = 0.0
    for column, ((name, side), paths) in enumerate(zip(sides, curves, strict=True)):
        ends = overlays[0].estimate.poses[[0, -1], :3, 3] @ side.T
        picture, _, _ = charts.path_view(paths, np.zeros((0, 2)), np.zeros((0, 2)), ends, metre)
        left = column * (charts.CHART_WIDTH - picture.width)
        items.append(Label(left + charts.LEFT, 8, name, "ink", size=13))
        items += [drawing.shifted(item, left, 12) for item in picture.items]
        height = max(height, picture.height + 12)
    return Picture(charts.CHART_WIDTH, height, tuple(items))


def _paths(overlays: list[views.Overlay], colours: list[str], truth, side: np.ndarray) -> list[Curve]:
    paths = views.flat(truth, side, "truth", 1.5)
    for overlay, colour in zip(overlays, colours, strict=True):
        paths += views.flat(overlay.estimate, side, colour, 1.5)
    return paths


def _errors(overlays, colours: list[str], begin: float, span: tuple[float, float], unit: str) -> Picture:
    largest = max(float(overlay.errors.max()) for overlay in overlays)
    metres_name, factor = ("mm", 1000.0) if largest < 1.0 else ("m", 1.0)
    curves = [
        Curve(overlay.error_times - begin, overlay.errors * factor, colour, 1.4)
        for overlay, colour in zip(overlays, colours, strict=True)
    ]
    chart = charts.time_chart(curves, span, metres_name, max(largest * factor * 1.08, 1e-6), time_unit=unit)
    title = Label(charts.LEFT, 8, "Distance to the true position over time", "ink", size=13)
    items = (title, *(drawing.shifted(item, 0, 12) for item in chart.items))
    return Picture(chart.width, chart.height + 12, items)


def _legend(names: list[tuple[str, str]]) -> Picture:
    items: list[Item] = []
    left, top = charts.LEFT, 10.0
    for name, colour in names:
        width = 44 + 7.0 * len(name)
        if left + width > charts.CHART_WIDTH and left > charts.LEFT:
            left, top = charts.LEFT, top + 18
        items.append(Line(np.array([[left, top - 4], [left + 18, top - 4]]), colour, 3.0))
        items.append(Label(left + 25, top, name, "ink", size=12))
        left += width
    return Picture(charts.CHART_WIDTH, top + 4, tuple(items))


def _short_names(estimates: list[TrajectoryFile]) -> list[str]:
    """File names, with their folder where file names alone are not told apart."""
    names = [file.path.name for file in estimates]
    is_clear = len(set(names)) == len(names) and "trajectory.txt" not in names
    return names if is_clear else ["/".join(file.path.parts[-2:]) for file in estimates]


def _page(svg: str, title: str) -> str:
    style = "body{margin:24px auto;max-width:1200px;background:var(--paper)}svg{width:100%;height:auto}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
    return f"{head}<style>{drawing.palette_css()}{style}</style><body>{svg}</body></html>\n"
