"""A run as one self-contained HTML page: figures, path, error, states and times."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files as package_files
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from vslam.evaluation import charts, drawing, metrics, tables, views
from vslam.evaluation.charts import Curve
from vslam.evaluation.drawing import Picture
from vslam.types import Reason, State, Tracked, Trajectory

if TYPE_CHECKING:
    from vslam.evaluation.results import RunRecord

HOVER_SAMPLES = 1500
Loops = Sequence[tuple[float, float, bool]]


@dataclass(frozen=True)
class Story:
    """What all sections look at: times count from the first frame; everything lies in the world that is shown."""

    record: RunRecord
    start: float
    span: tuple[float, float]
    final: views.Overlay
    live: views.Overlay
    truth: Trajectory | None
    axes: np.ndarray
    loops: Loops

    @property
    def frames(self) -> tuple[Tracked, ...]:
        return self.record.frames

    @property
    def times(self) -> np.ndarray:
        """Time of each frame (N,) s."""
        return np.array([frame.timestamp for frame in self.frames]) - self.start


def report_html(record: RunRecord, figures: dict[str, Any], loops: Loops = ()) -> str:
    """The page; `figures` is what `compute_metrics` returned, `loops` what `views.loop_links` draws."""
    story = tell(record, loops)
    paths, places = path_section(story)
    sections = [
        tables.headline(figures),
        paths,
        error_section(story),
        state_section(story, figures),
        time_section(story),
        tables.mapping(record.mapping_ms),
        tables.settings(record, figures),
    ]
    title = f"{record.sequence} with {record.extractor}"
    page = Template(package_files("vslam.evaluation").joinpath("report_template.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=escape(f"{title}: vslam"),
        heading=escape(title),
        subtitle=tables.subtitle(record, story.span[1]),
        banner=tables.banner(record),
        palette=drawing.palette_css(),
        font=drawing.FONT,
        sections="\n".join(filter(None, sections)),
        samples=json.dumps(hover_samples(story, places), separators=(",", ":")).replace("</", "<\\/"),
    )


def tell(record: RunRecord, loops: Loops = ()) -> Story:
    """Align, clip the truth to the run, choose the point of view."""
    stamps = [frame.timestamp for frame in record.frames] or [0.0]
    start, end = stamps[0], stamps[-1]
    has_truth = record.truth is not None and len(record.truth) > 0
    truth = views.clip_time(record.truth, start - metrics.MAX_GAP_S, end + metrics.MAX_GAP_S) if has_truth else None
    final = views.overlay(record.final, record.truth, "se3", metrics.MAX_GAP_S)
    live = views.overlay(record.live, record.truth, "se3", metrics.MAX_GAP_S)
    seen = final.estimate if len(final.estimate) or truth is None else truth
    return Story(record, start, (0.0, end - start), final, live, truth, views.view_axes(seen.poses), loops)


def path_section(story: Story) -> tuple[str, list]:
    """The path from above and from the side; also, per view, its axes and scales."""
    estimate = story.final.estimate
    if not len(estimate) and not (story.truth is not None and len(story.truth)):
        return '<h2>Path</h2><p class="note">No frame was tracked.</p>', []
    keyframes = metrics.transform(story.record.keyframes.poses, *_motion(story))[:, :3, 3]
    points = story.record.points_xyz[charts.thin_out(len(story.record.points_xyz), 60000)]
    points = story.final.s * points @ story.final.R.T + story.final.t
    ends = estimate.poses[[0, -1], :3, 3] if len(estimate) > 1 else np.zeros((0, 3))
    sides = {name: story.axes[rows] for name, rows in (("From above", [0, 1]), ("From the side", [0, 2]))}
    curves = {name: _path_curves(story, axes) for name, axes in sides.items()}
    metre = max(map(charts.metres_per_pixel, curves.values()))
    shown, places = [], []
    for name, axes in sides.items():
        is_plan = name == "From above"
        faint = points @ axes.T if is_plan else np.zeros((0, 2))
        links = views.loop_links(estimate, axes, story.loops) if is_plan else []
        picture, x, y = charts.path_view(curves[name] + links, faint, keyframes @ axes.T, ends @ axes.T, metre)
        svg = drawing.svg_element(picture, 'class="view"')
        shown.append(f"<div><h3>{name}</h3>{svg}</div>")
        places.append((axes, x, y))
    body = _path_legend(story) + f'<div class="views">{"".join(shown)}</div>'
    return f'<h2>Path</h2><div class="panel">{body}</div>', places


def error_section(story: Story) -> str:
    """Distance to the truth over time, final and live."""
    if not len(story.final.errors):
        why = "fewer than three poses have a true one" if story.truth is not None else "there is no ground truth"
        return f'<h2>Error over time</h2><p class="note">Not known: {why}.</p>'
    curves = [
        Curve(overlay.error_times - story.start, overlay.errors * 1000, colour, width)
        for overlay, colour, width in ((story.live, "live", 1.2), (story.final, "estimate", 1.7))
    ]
    high = max(float(curve.y.max(initial=0.0)) for curve in curves) * 1.08
    keys = [("estimate", "", "after the last correction"), ("live", "", "live: as it came out")]
    note = "Distance between estimated and true position; each trajectory aligned to the truth as a rigid whole (SE3)."
    chart = _both_widths(lambda width: charts.time_chart(curves, story.span, "mm", max(high, 0.1), width=width))
    body = tables.legend(keys) + chart
    return f'<h2>Error over time</h2><p class="note">{note}</p><div class="panel">{body}</div>'


def state_section(story: Story, figures: dict[str, Any]) -> str:
    """What became of the frames, and why: a row for each reason, in the colours of the states it led to."""
    if not story.frames:
        return ""
    rows = [("state", _stretches(story, [frame.state.value for frame in story.frames]))]
    for reason, count in sorted(figures["reasons"].items(), key=lambda item: -item[1]):
        if reason != Reason.FIRST_FRAME:
            states = [frame.state.value if frame.reason == reason else "" for frame in story.frames]
            rows.append((f"{reason}: {tables.count(count, 'frame')}", _stretches(story, states)))
    keys = [(state, "block", f"{state} {number}") for state, number in figures["states"].items() if number]
    body = tables.legend(keys) + _both_widths(lambda width: charts.strip_chart(rows, story.span, width))
    return f'<h2>States and reasons</h2><div class="panel">{body}</div>'


def time_section(story: Story) -> str:
    """Tracking time of each frame against the camera's period, and the stages it is made of."""
    timed = np.array([frame.tracking_ms for frame in story.frames])
    has_time = timed > 0
    if not has_time.any():
        return ""
    period = 1000.0 / story.record.camera.fps
    high = max(period * 1.2, float(np.percentile(timed[has_time], 99)) * 1.3)
    above = int((timed > high).sum())
    curve = Curve(story.times[has_time], timed[has_time], "estimate", 1.2)
    keys = [(charts.LIMIT_COLOUR, "dash", f"{period:.0f} ms: {story.record.camera.fps:g} frames a second")]
    chart = _both_widths(lambda width: charts.time_chart([curve], story.span, "ms", high, period, width))
    note = "Wall time from the image in memory to the pose; decoding is not in it."
    note += f" {tables.count(above, 'frame')} above the chart, at most {timed.max():.0f} ms." if above else ""
    head = f'<h2>Tracking time</h2><p class="note">{note}</p>'
    return f'{head}<div class="panel">{tables.legend(keys)}{chart}{tables.stages(story.frames)}</div>'


def hover_samples(story: Story, places: list) -> dict[str, Any]:
    """What the page shows under the pointer: per frame its time, a text, and its place in each view."""
    kept = charts.thin_out(len(story.frames), HOVER_SAMPLES) if story.frames else []
    scale = charts.time_scale(story.span, charts.CHART_WIDTH)
    ends = {"low": scale.low, "high": scale.high, "left": charts.LEFT, "right": charts.RIGHT}
    errors = dict(zip(story.final.error_times.tolist(), story.final.errors.tolist(), strict=True))
    rows = {stamp: row for row, stamp in enumerate(story.final.estimate.timestamps.tolist())}
    frames = [story.frames[index] for index in kept]
    found = [rows.get(frame.timestamp) for frame in frames]
    return {
        "scale": ends,
        "t": [round(frame.timestamp - story.start, 4) for frame in frames],
        "text": [_hover_text(frame, errors.get(frame.timestamp)) for frame in frames],
        "places": [_places(story.final.estimate, found, *view) for view in places],
    }


def _places(estimate: Trajectory, rows: list[int | None], axes: np.ndarray, x: charts.Scale, y: charts.Scale) -> list:
    flat = estimate.poses[:, :3, 3] @ axes.T
    return [None if row is None else [round(x(flat[row, 0]), 1), round(y(flat[row, 1]), 1)] for row in rows]


def _hover_text(frame: Tracked, error: float | None) -> str:
    parts = [frame.state.value + (f" ({frame.reason.value})" if frame.reason else "")]
    parts += [f"error {error * 1000:.1f} mm"] if error is not None else []
    parts += [f"tracking {frame.tracking_ms:.1f} ms"] if frame.tracking_ms > 0 else []
    return "   ".join([*parts, f"{frame.inliers} inliers"])


def _both_widths(draw: Callable[[float], Picture]) -> str:
    """A chart over time for wide and for narrow screens; the page shows one of them."""
    sizes = (("wide", charts.CHART_WIDTH), ("narrow", charts.NARROW_WIDTH))
    return "".join(drawing.svg_element(draw(width), f'class="time {name}"') for name, width in sizes)


def _motion(story: Story) -> tuple[float, np.ndarray, np.ndarray]:
    return story.final.s, story.final.R, story.final.t


def _path_legend(story: Story) -> str:
    states = {frame.state for frame in story.frames}
    keys = [
        ("estimate", "", "estimate, after the last correction", len(story.final.estimate)),
        ("estimate", "dot", "keyframes", len(story.record.keyframes)),
        ("truth", "", "ground truth", story.truth is not None),
        ("weak", "", "weak", State.WEAK in states),
        ("lost", "", "lost", State.LOST in states or State.UNREADABLE in states),
        ("points", "dot", "map points", len(story.record.points_xyz)),
        (views.LOOP_COLOUR, "", "closed loops", any(accepted for _, _, accepted in story.loops)),
        (views.REJECTED_COLOUR, "dash", "loops rejected", not all(accepted for _, _, accepted in story.loops)),
    ]
    return tables.legend([(colour, kind, text) for colour, kind, text, is_there in keys if is_there])


def _path_curves(story: Story, axes: np.ndarray) -> list[Curve]:
    """Truth below, estimate above it, weak and lost parts on top."""
    estimate, frames = story.final.estimate, story.frames
    curves = views.flat(story.truth, axes, "truth", 1.3) if story.truth is not None else []
    curves += views.flat(estimate, axes, "estimate", 1.7)
    for begin, end in views.stretches(frames, {State.WEAK}):
        weak = views.clip_time(estimate, frames[begin].timestamp, frames[end].timestamp)
        curves += views.flat(weak, axes, "weak", 2.6)
    for begin, end in views.stretches(frames, {State.LOST, State.UNREADABLE}):
        before, after = frames[max(begin - 1, 0)].timestamp, frames[min(end + 1, len(frames) - 1)].timestamp
        if story.truth is not None:
            curves += views.flat(views.clip_time(story.truth, before, after), axes, "lost", 2.2)
        else:
            ends = views.clip_time(estimate, before, after).poses[:, :3, 3] @ axes.T
            curves += [Curve(ends[:, 0], ends[:, 1], "lost", 1.5, dashed=True)] if len(ends) > 1 else []
    return curves


def _stretches(story: Story, colours: list[str]) -> list[tuple[float, float, str]]:
    """Neighbouring frames of one colour as `(from s, to s, colour)`; a frame lasts until the next one."""
    times = story.times
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    runs, first = [], 0
    for index in range(1, len(colours) + 1):
        if index == len(colours) or colours[index] != colours[first]:
            if colours[first]:
                end = times[index] if index < len(times) else times[-1] + step
                runs.append((float(times[first]), float(end), colours[first]))
            first = index
    return runs
