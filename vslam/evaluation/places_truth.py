"""Which database image shows the place of a query: by index, by a list of pairs, or by position."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vslam.datasets.lists import MAX_GAP_S, associate
from vslam.datasets.trajectory import open_trajectory
from vslam.errors import VslamError
from vslam.evaluation.places_images import ImageSet

MAX_TURN_DEG = 30.0
"""Views that are turned further apart share too little to be told."""
TRUTH_FILES = ("positions.csv", "groundtruth.txt", "poses.txt")
"""What `poses` looks for in a folder of images and beside it."""


@dataclass(frozen=True)
class Tolerance:
    """How far off a found place may be: in images of the database, or in metres."""

    value: float
    unit: str

    @staticmethod
    def parse(text: str) -> Tolerance:
        """Of `2`, `2frames` or `25m`.

        Raises:
            VslamError: anything else.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(m|frames?|f)?", text.strip())
        if not match or (match[2] != "m" and "." in match[1]):
            raise VslamError(f"--tolerance {text}: expected frames such as 2 or 10frames, or metres such as 25m")
        return Tolerance(float(match[1]), "m" if match[2] == "m" else "frames")

    def __str__(self) -> str:
        if self.unit == "m":
            return f"within {self.value:g} m"
        return f"within {self.value:g} frame{'s' if self.value != 1 else ''}"


@dataclass(frozen=True)
class Positions:
    """Where images were taken: `xyz` (N, 3) m, not a number where unknown; `facing` (N, 3) unit vectors if known."""

    xyz: np.ndarray
    facing: np.ndarray | None


@dataclass(frozen=True)
class Truth:
    """`right` (Q, D): the database image shows the query's place. Images without a true position are left out:
    `queries` (Q',) and `places` (D',) are the ones that can be judged, as indices. `rule` says it in words."""

    right: np.ndarray
    queries: np.ndarray
    places: np.ndarray
    rule: str


def open_truth(
    words: list[str], database: ImageSet, queries: ImageSet, tolerance: Tolerance, max_turn_deg: float = MAX_TURN_DEG
) -> Truth:
    """The truth that `--truth` names.

    Args:
        words: `frames` (image i shows place i in both sets), `poses` (a file beside each set), one CSV file of pairs
            `query,database`, or two files of positions: of the database, of the queries.

    Raises:
        VslamError: the truth does not fit the images or the tolerance's unit.
    """
    if words == ["frames"]:
        _need(tolerance, "frames", "frames")
        return by_index(database, queries, int(tolerance.value))
    if len(words) == 1 and words != ["poses"]:
        _need(tolerance, "frames", words[0])
        return by_pairs(Path(words[0]), database, queries, int(tolerance.value))
    if len(words) != 2 and words != ["poses"]:
        raise VslamError("--truth: expected frames, poses, one file of pairs, or two files of positions")
    files = [find_positions(each) for each in (database, queries)] if words == ["poses"] else [Path(w) for w in words]
    _need(tolerance, "m", "positions")
    where = [read_positions(file, each) for file, each in zip(files, (database, queries), strict=True)]
    return by_position(*where, tolerance, max_turn_deg, " and ".join(map(str, dict.fromkeys(files))))


def by_index(database: ImageSet, queries: ImageSet, tolerance: int) -> Truth:
    """Image i shows place i in both sets, as in Nordland and Gardens Point."""
    if len(database) != len(queries):
        raise VslamError(
            f"--truth frames: {database.where} has {len(database)} images, {queries.where} {len(queries)}; "
            "image i must show place i in both: give a file of pairs or positions"
        )
    rows = np.arange(len(queries))
    right = np.abs(rows[:, None] - rows) <= tolerance
    return Truth(right, rows, rows, f"{Tolerance(tolerance, 'frames')} of the query's index")


def by_pairs(file: Path, database: ImageSet, queries: ImageSet, tolerance: int) -> Truth:
    """A CSV file with the columns `query,database`: names or indices of images that show one place."""
    right = np.zeros((len(queries), len(database)), bool)
    columns = ("query", "database")
    for line, row in _read_csv(file, columns):
        q, d = (_find(row[name], each, file, line) for name, each in zip(columns, (queries, database), strict=True))
        right[q, max(d - tolerance, 0) : d + tolerance + 1] = True
    rule = f"{Tolerance(tolerance, 'frames')} of a pair of {file.name}"
    return Truth(right, np.arange(len(queries)), np.arange(len(database)), rule)


def by_position(
    database: Positions, queries: Positions, tolerance: Tolerance, max_turn_deg: float, source: str
) -> Truth:
    """Taken near each other, and facing alike where that is known."""
    from scipy.spatial.distance import cdist

    kept_d, kept_q = (np.flatnonzero(np.isfinite(each.xyz).all(axis=1)) for each in (database, queries))
    right = np.zeros((len(queries.xyz), len(database.xyz)), bool)
    near = cdist(queries.xyz[kept_q], database.xyz[kept_d]) <= tolerance.value
    rule = str(tolerance)
    if queries.facing is not None and database.facing is not None and max_turn_deg < 180:
        near &= queries.facing[kept_q] @ database.facing[kept_d].T >= np.cos(np.radians(max_turn_deg))
        rule += f" and {max_turn_deg:g} degrees"
    right[np.ix_(kept_q, kept_d)] = near
    if not near.any():
        raise VslamError(f"{source}: no query was taken {rule} of a database image; are they of one place and world?")
    return Truth(right, kept_q, kept_d, f"{rule} of the query")


def find_positions(images: ImageSet) -> Path:
    """The file of positions in the folder of images, or beside it."""
    folders = [images.folder.resolve(), images.folder.resolve().parent]
    found = [folder / name for folder in folders for name in TRUTH_FILES if (folder / name).is_file()]
    if not found:
        raise VslamError(f"--truth poses: {images.where} has no {', '.join(TRUTH_FILES)}; name the files after --truth")
    return found[0]


def read_positions(file: Path, images: ImageSet) -> Positions:
    """Where the images were taken, of a CSV file `[image,]x,y[,z][,heading]` (m, degrees) or a trajectory file.

    Poses are matched by the images' time stamps, where a list or the file names state them, or else by their order.

    Raises:
        VslamError: not such a file, or not of these images.
    """
    if file.suffix.lower() == ".csv" and "x" in _header(file):
        return _positions_of_csv(file, images)
    trajectory = open_trajectory(file).trajectory
    stamps = images.timestamps if images.timestamps is not None else _stamps_of_names(images)
    if stamps is None and len(trajectory) != len(images):
        raise VslamError(
            f"{file}: {len(trajectory)} poses for the {len(images)} images of {images.where}, whose time stamps are "
            "not known: name the images by their time stamp, or give a pose for each"
        )
    poses = np.full((len(images), 4, 4), np.nan)
    rows = np.arange(len(images))
    pairs = np.stack([rows, rows], axis=1) if stamps is None else associate(stamps, trajectory.timestamps)
    if len(pairs) == 0:
        raise VslamError(
            f"{file}: no pose within {MAX_GAP_S} s of an image of {images.where}; are they of one recording?"
        )
    poses[pairs[:, 0]] = trajectory.poses[pairs[:, 1]]
    return Positions(poses[:, :3, 3], poses[:, :3, 2])


def _positions_of_csv(file: Path, images: ImageSet) -> Positions:
    header = _header(file)
    rows = _read_csv(file, ("x", "y"))
    if "image" not in header and len(rows) != len(images):
        raise VslamError(
            f"{file}: {len(rows)} positions for the {len(images)} images of {images.where}; "
            "one line an image, or a column 'image'"
        )
    xyz = np.full((len(images), 3), np.nan)
    facing = np.full((len(images), 3), np.nan) if "heading" in header else None
    for place, (line, row) in enumerate(rows):
        at = _find(row["image"], images, file, line) if "image" in header else place
        xyz[at] = [_number(row.get(axis, "0"), file, line) for axis in "xyz"]
        if facing is not None:
            heading = np.radians(_number(row["heading"], file, line))
            facing[at] = np.cos(heading), np.sin(heading), 0.0
    return Positions(xyz, facing)


def _stamps_of_names(images: ImageSet) -> np.ndarray | None:
    """Time stamps (N,) that the file names are, rising as TUM's are; None for names that are mere numbers."""
    stems = [Path(name).stem for name in images.names]
    if not all(re.fullmatch(r"\d+\.\d+", stem) for stem in stems):
        return None
    stamps = np.array(list(map(float, stems)))
    return stamps if (np.diff(stamps) > 0).all() else None


def _need(tolerance: Tolerance, unit: str, truth: str) -> None:
    if tolerance.unit != unit:
        expected = "metres, such as 25m" if unit == "m" else "frames, such as 2"
        raise VslamError(f"--tolerance {tolerance.value:g} {tolerance.unit}: --truth {truth} is judged in {expected}")


def _header(file: Path) -> list[str]:
    """Names of the columns in lower case; empty for a file that begins with numbers."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            first = next(csv.reader(lines), [])
    except OSError as error:
        raise VslamError(f"{file}: cannot be read: {error.strerror}; expected a file of true places") from None
    except UnicodeDecodeError:
        raise VslamError(f"{file}: not a text file; expected a CSV file") from None
    return [word.strip().lower() for word in first]


def _read_csv(file: Path, needed: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """(line from 1, values by column) of a CSV file with a header that has the `needed` columns."""
    header = _header(file)
    if not set(needed) <= set(header):
        raise VslamError(f"{file}: the first line is '{','.join(header)[:60]}'; need columns {','.join(needed)}")
    rows = []
    with open(file, encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines)
        next(reader)
        for words in reader:
            if not words:
                continue
            if len(words) != len(header):
                raise VslamError(f"{file}:{reader.line_num}: {len(words)} columns, the first line has {len(header)}")
            rows.append((reader.line_num, dict(zip(header, map(str.strip, words), strict=True))))
    if not rows:
        raise VslamError(f"{file}: no line below the header")
    return rows


def _find(word: str, images: ImageSet, file: Path, line: int) -> int:
    """The index of an image by its name, or the index itself."""
    if word in images.names:
        return images.names.index(word)
    if word.isdecimal() and int(word) < len(images):
        return int(word)
    raise VslamError(f"{file}:{line}: '{word}' is no image of {images.where} ({len(images)} images); correct the file")


def _number(word: str, file: Path, line: int) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise VslamError(f"{file}:{line}: '{word}' is not a finite number; correct or remove the line")
    return value
