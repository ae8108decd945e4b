"""The parts of the report that are words and numbers, as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from vslam.evaluation.files import stage_names, yaml_text
from vslam.types import Tracked

if TYPE_CHECKING:
    from vslam.evaluation.results import RunRecord

STAGE_COLOURS = ("estimate", "series2", "series1", "series3", "series5", "series4", "live", "unreadable")


def subtitle(record: RunRecord, seconds: float) -> str:
    camera = record.camera
    parts = [f"{record.dataset} dataset", f"{camera.width} x {camera.height} pixels", f"{seconds:.1f} s"]
    return escape(" \u00b7 ".join([*parts, count(len(record.frames), "frame")]))


def banner(record: RunRecord) -> str:
    """What a reader must know before the numbers."""
    if record.interrupted:
        return '<p class="banner">The run was interrupted: this is what had been computed until then.</p>'
    return ""


def headline(figures: dict[str, Any]) -> str:
    """Four panels: accuracy, coverage, speed, map."""
    share = figures["coverage"] * 100
    accuracy = [
        ("live trajectory", length(figures["ate_live_rmse_m"])),
        ("drift in translation", number(figures["rpe_trans_m_per_s"], "mm/s", 1000, 1)),
        ("drift in rotation", number(figures["rpe_rot_deg_per_s"], "deg/s", 1, 2)),
        ("scale error", number(figures["scale_error"], "%", 100, 2, signed=True)),
    ]
    states = [(name, f"{figures[name]:,}") for name in ("frames", "tracked", "weak", "lost", "dropped")]
    speed = [
        ("95th percentile", number(figures["tracking_ms_p95"], "ms", 1, 1)),
        ("CPU time, median", number(figures["tracking_cpu_ms_median"], "ms", 1, 1)),
        ("frames a second", number(figures["fps"], "Hz", 1, 1)),
        ("whole run", f"{figures['wall_s']:.1f} s"),
        ("whole run, CPU", f"{figures['cpu_s']:.1f} s"),
    ]
    size = [
        ("keyframes", f"{figures['keyframes']:,}"),
        ("map points", f"{figures['map_points']:,}"),
        ("map", f"{figures['map_mb']:.0f} MB"),
    ]
    return (
        '<div class="figures">'
        + _figure("Trajectory error, ATE RMSE", length(figures["ate_rmse_m"]), accuracy)
        + _figure("Frames with a pose", f"{share:.4g} %", states)
        + _figure("Tracking time, median", number(figures["tracking_ms_median"], "ms", 1, 1), speed)
        + _figure("Peak memory", f"{figures['peak_rss_mb']:.0f} MB", size)
        + "</div>"
    )


def stages(frames: tuple[Tracked, ...]) -> str:
    """The median frame as a bar, and a table of its stages."""
    names = stage_names(frames)
    if not names:
        return ""
    times = {name: [frame.stage_ms[name] for frame in frames if name in frame.stage_ms] for name in names}
    medians = {name: float(np.median(values)) for name, values in times.items()}
    total = sum(medians.values()) or 1.0
    colours = dict(zip(names, STAGE_COLOURS * (len(names) // len(STAGE_COLOURS) + 1), strict=False))
    bar = "".join(
        f'<span style="width:{100 * medians[name] / total:.2f}%;background:var(--{colours[name]})"'
        f' title="{escape(name)} {medians[name]:.2f} ms"></span>'
        for name in names
    )
    rows = [(f'<i style="background:var(--{colours[name]})"></i>{escape(name)}', times[name]) for name in names]
    return (
        f'<h3 style="margin-top:18px">Stages, median</h3><div class="stack">{bar}</div>{_times_table(rows, "frames")}'
    )


def mapping(durations: dict[str, list[float]]) -> str:
    """The times of mapping, which runs beside tracking."""
    rows = [(escape(name), values) for name, values in durations.items() if values]
    if not rows:
        return ""
    note = '<p class="note">Runs beside tracking, once per keyframe or less often.</p>'
    return f'<h2>Mapping time</h2>{note}<div class="panel">{_times_table(rows, "calls")}</div>'


def settings(record: RunRecord, figures: dict[str, Any]) -> str:
    """Settings, camera and versions, folded."""
    camera = {name: getattr(record.camera, name) for name in record.camera.__dataclass_fields__}
    parts = {"Settings": record.config, "Camera": camera, "Versions": figures["versions"]}
    folded = (
        f"<details><summary>{name}</summary><pre>{escape(yaml_text(values))}</pre></details>"
        for name, values in parts.items()
        if values
    )
    return f"<h2>What it ran with</h2>{''.join(folded)}"


def legend(keys: list[tuple[str, str, str]]) -> str:
    """(colour, shape: "" line, dash, dot or block, text) in a row."""
    entries = (f'<span><i class="{kind}" style="color:var(--{c})"></i>{escape(text)}</span>' for c, kind, text in keys)
    return f'<div class="legend">{"".join(entries)}</div>'


def length(metres: float | None) -> str:
    """Millimetres below ten centimetres."""
    if metres is None:
        return "\u2013"
    return f"{metres * 1000:.1f} mm" if metres < 0.1 else f"{metres:.3f} m"


def number(value: float | None, unit: str, factor: float, decimals: int, signed: bool = False) -> str:
    """A value in a readable unit; a dash when it is not known."""
    if value is None:
        return "\u2013"
    return f"{value * factor:{'+' if signed else ''}.{decimals}f} {unit}".rstrip()


def count(how_many: int, what: str) -> str:
    return f"{how_many:,} {what}{'' if how_many == 1 else 's'}"


def _figure(name: str, value: str, others: list[tuple[str, str]]) -> str:
    figure, _, unit = value.partition(" ")
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in others)
    big = f'<p class="main-figure">{escape(figure)} <small>{escape(unit)}</small></p>'
    return f'<div class="panel"><h3>{escape(name)}</h3>{big}<dl>{rows}</dl></div>'


def _times_table(rows: list[tuple[str, list[float]]], what: str) -> str:
    head = f"<tr><th>stage</th><th>median, ms</th><th>95 %, ms</th><th>longest, ms</th><th>{what}</th></tr>"
    body = "".join(
        f"<tr><td>{name}</td><td>{np.median(values):.2f}</td><td>{np.percentile(values, 95):.2f}</td>"
        f"<td>{np.max(values):.1f}</td><td>{len(values):,}</td></tr>"
        for name, values in rows
    )
    return f"<table>{head}{body}</table>"
