"""Lists of time-stamped files (`rgb.txt`, `associations.txt`) and which colour image goes with which depth image."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vslam.errors import VslamError

MAX_GAP_S = 0.02  # colour and depth of a 30 Hz sensor are at most half a frame (17 ms) apart


class Entry(NamedTuple):
    """One line: its time stamp in seconds, the file it names, its line number."""

    timestamp: float
    file: str
    line: int


class Pairs(NamedTuple):
    """Colour and depth images that belong together: `timestamps` (N,) float64 s of the colour images, their paths, and
    the `delays` (N,) float64 s from colour to depth."""

    timestamps: np.ndarray
    images: list[Path]
    depths: list[Path]
    delays: np.ndarray


def read_list(path: Path) -> list[Entry]:
    """The lines `timestamp file` of a TUM list; comments (#) and empty lines are passed over.

    Raises:
        VslamError: no such file, no line, a line of another form, time stamps that do not strictly rise.
    """
    entries = []
    for line, words in _lines(path):
        if len(words) < 2:
            raise VslamError(f"{path}:{line}: '{' '.join(words)}' is not 'timestamp file'")
        entries.append(Entry(_timestamp(words[0], path, line), " ".join(words[1:]), line))
    return _checked(path, entries)


def read_associations(path: Path) -> tuple[list[Entry], list[Entry]]:
    """Colour and depth entries of a file with lines `timestamp file timestamp file`.

    Which pair is depth is told by the word "depth" in its file names (ICL-NUIM puts depth first, TUM's script colour).

    Raises:
        VslamError: as `read_list`.
    """
    first, second = [], []
    for line, words in _lines(path):
        if len(words) != 4:
            raise VslamError(
                f"{path}:{line}: {len(words)} columns; expected four: timestamp rgb/file timestamp depth/file"
            )
        first.append(Entry(_timestamp(words[0], path, line), words[1], line))
        second.append(Entry(_timestamp(words[2], path, line), words[3], line))
    if first and "depth" in first[0].file and "depth" not in second[0].file:
        first, second = second, first
    return _checked(path, first), second


def associate(a: np.ndarray, b: np.ndarray, max_gap: float = MAX_GAP_S) -> np.ndarray:
    """Pairs one to one, smallest gap first: indices (K, 2) int64 into the times `a` (N,) and `b` (M,), both rising.

    Gaps over `max_gap` seconds make no pair. The first of two equal gaps wins.
    """
    start = np.searchsorted(b, a - max_gap, side="left")
    stop = np.searchsorted(b, a + max_gap, side="right")
    count = stop - start
    i = np.repeat(np.arange(len(a)), count)
    j = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(start, count)
    free_a, free_b = np.ones(len(a), bool), np.ones(len(b), bool)
    pairs = []
    for k in np.argsort(np.abs(a[i] - b[j]), kind="stable"):
        if free_a[i[k]] and free_b[j[k]]:
            free_a[i[k]] = free_b[j[k]] = False
            pairs.append((i[k], j[k]))
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def pair_lists(rgb_list: Path, depth_list: Path) -> Pairs:
    """The colour images of one list with the depth images of another, both relative to their list's folder.

    Raises:
        VslamError: a list is missing or wrong, or no image has a partner in time.
    """
    colour, depth = read_list(rgb_list), read_list(depth_list)
    a, b = (np.array([entry.timestamp for entry in entries]) for entries in (colour, depth))
    pairs = associate(a, b)
    if not len(pairs):
        raise VslamError(
            f"{depth_list}: no depth image within {MAX_GAP_S} s of a colour image (depth {b[0]:.6f} to {b[-1]:.6f} s, "
            f"colour {a[0]:.6f} to {a[-1]:.6f} s); are both lists of the same recording?"
        )
    return _pairs(rgb_list.parent, [colour[i] for i, _ in pairs], [depth[j] for _, j in pairs])


def pair_associations(path: Path) -> Pairs:
    """The pairs that an associations file states.

    Raises:
        VslamError: the file is missing or wrong.
    """
    return _pairs(path.parent, *read_associations(path))


def _pairs(folder: Path, colour: list[Entry], depth: list[Entry]) -> Pairs:
    timestamps = np.array([entry.timestamp for entry in colour])
    delays = np.array([entry.timestamp for entry in depth]) - timestamps
    return Pairs(
        timestamps, [folder / entry.file for entry in colour], [folder / entry.file for entry in depth], delays
    )


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    try:
        text = path.read_text()
    except OSError as error:
        raise VslamError(f"{path}: cannot be read: {error.strerror}; see docs/datasets.md for the layout") from None
    except UnicodeDecodeError:
        raise VslamError(f"{path}: not a text file; expected lines 'timestamp file'") from None
    numbered = ((number, line.partition("#")[0].split()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, words) for number, words in numbered if words]


def _timestamp(word: str, path: Path, line: int) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise VslamError(f"{path}:{line}: '{word}' is not a time stamp in seconds")
    return value


def _checked(path: Path, entries: list[Entry]) -> list[Entry]:
    if not entries:
        raise VslamError(f"{path}: empty list; expected one line an image: timestamp file")
    for before, entry in pairwise(entries):
        if entry.timestamp <= before.timestamp:
            fault = "the same as" if entry.timestamp == before.timestamp else f"earlier than {before.timestamp:.6f} in"
            raise VslamError(
                f"{path}:{entry.line}: time stamp {entry.timestamp:.6f} is {fault} line {before.line}; "
                "time stamps must rise: sort the list and remove repeated lines"
            )
    return entries
