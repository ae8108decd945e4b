"""Trajectories as files: TUM, KITTI and EuRoC formats, read with checks, written atomically."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vslam.errors import VslamError
from vslam.types import Trajectory

Format = Literal["tum", "kitti", "euroc"]
FORMATS: tuple[Format, ...] = ("tum", "kitti", "euroc")
LAYOUTS = {
    "tum": "timestamp tx ty tz qx qy qz qw",
    "kitti": "the 12 numbers of a 3x4 matrix [R|t], row by row",
    "euroc": "timestamp[ns],px,py,pz,qw,qx,qy,qz[,...] with commas",
}
COLUMNS = {"tum": 8, "kitti": 12, "euroc": 8}

NS_FROM = 1e14
"""Time stamps from here on are nanoseconds: as seconds this would be 3 million years."""
NS_STEP_FROM = 1e5
"""So are those that rise by this much from pose to pose: as seconds more than a day, as nanoseconds 0.1 ms."""
SECONDS_UP_TO = 1e11
"""Between this (the year 5138) and `NS_FROM` a time stamp is in some other unit, such as milliseconds."""
UNIT_TOLERANCE = 0.01
"""A quaternion or a matrix row may be this far from unit length: six printed digits need 1e-6, sloppy files more."""


@dataclass(frozen=True)
class TrajectoryFile:
    """A trajectory with what its file looked like. `unit` is that of the time stamps in the file: s, ns or index."""

    path: Path
    format: Format
    unit: Literal["s", "ns", "index"]
    trajectory: Trajectory


def read_trajectory(path: str | Path, format: str = "auto", times: str | Path | None = None) -> Trajectory:
    """The poses of a file, time stamps in seconds; see `open_trajectory`."""
    return open_trajectory(path, format, times).trajectory


def open_trajectory(path: str | Path, format: str = "auto", times: str | Path | None = None) -> TrajectoryFile:
    """Read a trajectory file.

    Args:
        format: tum, kitti, euroc, or auto: commas mean euroc, 12 columns kitti, otherwise tum.
        times: for kitti, a file with one time in seconds a line; without it the time stamp is the line's index.

    Nanoseconds are recognised by their size. Quaternions are normalised; matrices are taken as they are.

    Raises:
        VslamError: no such file, no poses, wrong number of columns, not a number, nan or infinite, not a rotation,
            time stamps that do not rise.
    """
    file = Path(path)
    first = _first_line(file)
    found = _detect(first) if format == "auto" else format
    if found not in FORMATS:
        raise VslamError(f"unknown trajectory format '{format}'; known: auto, {', '.join(FORMATS)}")
    rows = _read_rows(file, found, is_comma="," in first)
    if found == "kitti":
        poses = _poses_of_matrices(file, rows)
        stamps = np.arange(len(rows), dtype=np.float64) if times is None else _read_times(Path(times), file, len(rows))
        return TrajectoryFile(file, found, "index" if times is None else "s", Trajectory(stamps, poses))
    order = [4, 5, 6, 7] if found == "tum" else [5, 6, 7, 4]
    poses = _poses_of_quaternions(file, rows[:, 1:4], rows[:, order])
    _check_rising(file, rows[:, 0])
    unit = time_unit(file, rows[:, 0])
    stamps = rows[:, 0] / 1e9 if unit == "ns" else rows[:, 0].copy()
    return TrajectoryFile(file, found, unit, Trajectory(stamps, poses))  # type: ignore[arg-type]


def time_unit(file: Path, stamps: np.ndarray) -> Literal["s", "ns"]:
    """Whether rising time stamps (N,) are seconds or nanoseconds, by their size and their steps.

    Raises:
        VslamError: neither fits, as with milliseconds.
    """
    largest = float(np.abs(stamps).max())
    step = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
    if largest >= NS_FROM or step >= NS_STEP_FROM:
        return "ns"
    if largest >= SECONDS_UP_TO:
        raise VslamError(f"{file}: time stamps such as {largest:.0f} are neither seconds nor nanoseconds; use seconds")
    return "s"


def write_tum(path: str | Path, trajectory: Trajectory) -> None:
    """Write `timestamp tx ty tz qx qy qz qw` lines: seconds exactly, positions to the nanometre; qw >= 0."""
    lines = ["# timestamp tx ty tz qx qy qz qw (camera to world)"]
    rows = _nine_digits(_position_and_quaternion(trajectory.poses), " ")
    lines += [f"{_decimal(stamp)} {row}" for stamp, row in zip(trajectory.timestamps, rows, strict=True)]
    write_atomically(path, "\n".join(lines) + "\n")


def write_kitti(path: str | Path, trajectory: Trajectory) -> None:
    """Write the 3x4 matrices, 12 numbers a line. The format has no time stamps: they are left out."""
    rows = _nine_digits(trajectory.poses[:, :3, :].reshape(-1, 12), " ")
    write_atomically(path, "".join(f"{row}\n" for row in rows))


def write_euroc(path: str | Path, trajectory: Trajectory) -> None:
    """Write `timestamp [ns],px,py,pz,qw,qx,qy,qz` lines."""
    lines = ["#timestamp [ns],p_x [m],p_y [m],p_z [m],q_w [],q_x [],q_y [],q_z []"]
    rows = _nine_digits(_position_and_quaternion(trajectory.poses)[:, [0, 1, 2, 6, 3, 4, 5]], ",")
    lines += [f"{round(stamp * 1e9)},{row}" for stamp, row in zip(trajectory.timestamps, rows, strict=True)]
    write_atomically(path, "\n".join(lines) + "\n")


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file so that it is seen under its name either complete or not at all.

    Raises:
        VslamError: the folder does not exist or cannot be written.
    """
    file = Path(path)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, file)
    except OSError as error:
        raise VslamError(f"{file}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _decimal(value: float) -> str:
    """The shortest decimal that reads back as `value`, never with an exponent."""
    return np.format_float_positional(value, trim="0")


def _nine_digits(rows: np.ndarray, separator: str) -> list[str]:
    """Rows (N, columns) as text with nine decimals, without negative zeros."""
    rounded = np.round(rows, 9) + 0.0
    return [separator.join([f"{value:.9f}" for value in row]) for row in rounded.tolist()]


def _position_and_quaternion(poses: np.ndarray) -> np.ndarray:
    """(N, 7) `tx ty tz qx qy qz qw` of poses (N, 4, 4)."""
    from scipy.spatial.transform import Rotation

    if not len(poses):
        return np.zeros((0, 7))
    return np.concatenate([poses[:, :3, 3], Rotation.from_matrix(poses[:, :3, :3]).as_quat(canonical=True)], axis=1)


def _first_line(file: Path) -> str:
    """The first line with data."""
    try:
        with open(file, encoding="utf-8-sig") as lines:
            first = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), None)
    except OSError as error:
        raise VslamError(f"{file}: cannot be read: {error.strerror}; expected a trajectory file") from None
    except UnicodeDecodeError:
        raise VslamError(f"{file}: not a text file; expected a trajectory in TUM, KITTI or EuRoC format") from None
    if first is None:
        raise VslamError(f"{file}: holds no poses; expected lines in TUM, KITTI or EuRoC format")
    return first


def _detect(line: str) -> Format:
    if "," in line:
        return "euroc"
    return "kitti" if len(line.split("#")[0].split()) == COLUMNS["kitti"] else "tum"


def _read_rows(file: Path, format: Format, is_comma: bool) -> np.ndarray:
    """The numbers of a file, (N, columns) float64, all finite."""
    delimiter = "," if is_comma else None
    columns = range(COLUMNS["euroc"]) if format == "euroc" else None
    try:
        rows = np.loadtxt(file, delimiter=delimiter, usecols=columns, ndmin=2, encoding="utf-8-sig")
    except (ValueError, UnicodeDecodeError):
        rows = None
    if rows is None or rows.shape[1] != COLUMNS[format] or not np.isfinite(rows).all():
        _blame_line(file, format, delimiter)
    return rows


def _blame_line(file: Path, format: Format, delimiter: str | None) -> None:
    """Find the line that the fast reader refused, and say what is wrong with it."""
    for number, line in _data_lines(file):
        words = line.split("#")[0].split(delimiter)
        is_short = len(words) < COLUMNS[format]
        if is_short or (format != "euroc" and len(words) > COLUMNS[format]):
            raise VslamError(f"{file}:{number}: {len(words)} columns; {format} needs {LAYOUTS[format]} (--format?)")
        for word in words[: COLUMNS[format]]:
            try:
                value = float(word)
            except ValueError:
                raise VslamError(f"{file}:{number}: '{word.strip()}' is not a number; correct the line") from None
            if not np.isfinite(value):
                raise VslamError(f"{file}:{number}: '{word.strip()}' is not a finite number; remove the line")
    raise VslamError(f"{file}: cannot be read as {format}: {LAYOUTS[format]}")


def _data_lines(file: Path) -> list[tuple[int, str]]:
    """(number from 1, text) of the lines that hold data."""
    lines = file.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.split("#")[0].strip()]


def _where(file: Path, row: int) -> str:
    return f"{file}:{_data_lines(file)[row][0]}"


def _poses_of_quaternions(file: Path, positions: np.ndarray, quaternions: np.ndarray) -> np.ndarray:
    """Poses (N, 4, 4) of positions (N, 3) and quaternions (N, 4) `x y z w` of about unit length."""
    from scipy.spatial.transform import Rotation

    lengths = np.linalg.norm(quaternions, axis=1)
    off = np.abs(lengths - 1) > UNIT_TOLERANCE
    if off.any():
        row = int(np.argmax(off))
        raise VslamError(f"{_where(file, row)}: quaternion of length {lengths[row]:.4g}, not 1; check the column order")
    return _stack(Rotation.from_quat(quaternions).as_matrix(), positions)


def _poses_of_matrices(file: Path, rows: np.ndarray) -> np.ndarray:
    """Poses (N, 4, 4) of rows (N, 12), kept digit for digit."""
    matrices = rows.reshape(-1, 3, 4)
    R = matrices[:, :, :3]
    off = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) > 2 * UNIT_TOLERANCE
    off |= np.linalg.det(R) < 0
    if off.any():
        row = int(np.argmax(off))
        raise VslamError(f"{_where(file, row)}: the 3x3 part is not a rotation; kitti needs {LAYOUTS['kitti']}")
    return _stack(R, matrices[:, :, 3])


def _stack(R: np.ndarray, positions: np.ndarray) -> np.ndarray:
    poses = np.tile(np.eye(4), (len(R), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = R, positions
    return poses


def _check_rising(file: Path, stamps: np.ndarray) -> None:
    stuck = np.diff(stamps) <= 0
    if stuck.any():
        row = int(np.argmax(stuck)) + 1
        what = "repeats" if stamps[row] == stamps[row - 1] else "is before"
        text, last = _decimal(stamps[row]), _decimal(stamps[row - 1])
        raise VslamError(f"{_where(file, row)}: time stamp {text} {what} the one before it ({last}); sort the file")


def _read_times(times: Path, poses: Path, count: int) -> np.ndarray:
    _first_line(times)
    try:
        stamps = np.loadtxt(times, ndmin=1)
    except ValueError as error:
        raise VslamError(f"{times}: expected one time in seconds a line: {error}") from None
    if stamps.shape != (count,) or not np.isfinite(stamps).all():
        raise VslamError(f"{times}: expected {count} finite times, one for each line of {poses}, found {stamps.shape}")
    _check_rising(times, stamps)
    return stamps / 1e9 if time_unit(times, stamps) == "ns" else stamps
