"""The plain files of an output folder as text or bytes: map, frame table, settings, figures."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from vslam.types import LoopCandidate, Tracked

FRAME_COLUMNS = (
    "timestamp", "state", "reason", "keyframe", "matches", "inliers", "recovery_s", "tracking_ms", "tracking_cpu_ms",
)  # fmt: skip


def ply_bytes(xyz: np.ndarray, rgb: np.ndarray) -> bytes:
    """A binary little-endian PLY file of coloured points: `xyz` (P, 3) metres, `rgb` (P, 3) uint8."""
    colours = ("red", "green", "blue")
    points = np.empty(len(xyz), [*((axis, "<f4") for axis in "xyz"), *((colour, "u1") for colour in colours)])
    for column, axis in enumerate("xyz"):
        points[axis] = xyz[:, column]
    for column, colour in enumerate(colours):
        points[colour] = rgb[:, column]
    header = ["ply", "format binary_little_endian 1.0", "comment metres, world of trajectory.txt"]
    header += [f"element vertex {len(points)}"]
    header += [f"property float {axis}" for axis in "xyz"] + [f"property uchar {colour}" for colour in colours]
    return "\n".join([*header, "end_header\n"]).encode() + points.tobytes()


def frames_csv(frames: Iterable[Tracked]) -> str:
    """One line a frame; the stages that occur in any frame follow as `<stage>_ms`, empty where a frame has none."""
    frames = tuple(frames)
    stages = stage_names(frames)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*FRAME_COLUMNS, *(f"{stage}_ms" for stage in stages)])
    for frame in frames:
        is_timed = frame.tracking_ms > 0
        times = [_ms(frame.tracking_ms), _ms(frame.tracking_cpu_ms)] if is_timed else ["", ""]
        recovery = "" if frame.recovery_s is None else f"{frame.recovery_s:.3f}"
        counts = [int(frame.keyframe), frame.matches, frame.inliers, recovery]
        stamp = np.format_float_positional(frame.timestamp, trim="0")
        stage_times = [_ms(frame.stage_ms[name]) if name in frame.stage_ms else "" for name in stages]
        table.writerow([stamp, frame.state.value, frame.reason.value, *counts, *times, *stage_times])
    return text.getvalue()


def loops_csv(audit: Iterable[LoopCandidate]) -> str:
    """One line for every place that was compared with a keyframe."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([column.name for column in dataclasses.fields(LoopCandidate)])
    for each in audit:
        times = [np.format_float_positional(t, trim="0") for t in (each.t_query, each.t_match)]
        score = f"{each.score:.4f}" if np.isfinite(each.score) else ""
        counts = [each.n_matches, each.n_inliers, int(each.accepted)]
        table.writerow([*times, each.kf_query, each.kf_match, score, *counts, each.reason])
    return text.getvalue()


def stage_names(frames: Iterable[Tracked]) -> list[str]:
    """All stages in the order in which they first occur."""
    return list(dict.fromkeys(name for frame in frames for name in frame.stage_ms))


def json_text(values: dict[str, Any]) -> str:
    """Strict JSON, indented: not a number becomes null."""
    return json.dumps(plain(values), indent=2, allow_nan=False) + "\n"


def yaml_text(values: dict[str, Any]) -> str:
    """YAML in the order of the dictionary."""
    import yaml

    return yaml.safe_dump(plain(values), sort_keys=False, allow_unicode=True)


def plain(value: Any) -> Any:
    """The same in dictionaries, lists, strings and numbers that JSON and YAML can hold."""
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _ms(value: float) -> str:
    return f"{value:.3f}"
