"""Sets of images for place recognition: a folder, a TUM sequence, an array of an .npz file, or one image."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vslam.datasets.lists import read_list
from vslam.errors import VslamError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
CHUNK = 64
"""Images in memory at a time."""

Progress = Callable[[Iterable[int], str], Iterable[int]]
"""Wraps a loop over image numbers, with what is being done, to show how far it is."""


@dataclass(frozen=True)
class ImageSet:
    """Images in the order in which they were taken.

    Attributes:
        where: what the user called it.
        names: of the images, relative to `folder`.
        folder: where the files are, or the .npz file.
        timestamps: (N,) float64 s, where a list states them.
        values: (N, H, W) uint8 grey, where the images are an array.
    """

    where: str
    names: tuple[str, ...]
    folder: Path
    timestamps: np.ndarray | None = None
    values: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def grey(self, row: int) -> np.ndarray:
        """Image `row` as grey uint8 (H, W).

        Raises:
            VslamError: it cannot be read.
        """
        return self._read(row, cv2.IMREAD_GRAYSCALE)

    def picture(self, row: int) -> np.ndarray:
        """Image `row` to look at: uint8 (H, W) or (H, W, 3) BGR."""
        return self._read(row, cv2.IMREAD_COLOR)

    def _read(self, row: int, flag: int) -> np.ndarray:
        if self.values is not None:
            return self.values[row]
        file = self.folder / self.names[row]
        try:
            data = np.fromfile(file, np.uint8)
        except OSError as error:
            raise VslamError(f"{file}: cannot be read: {error.strerror}") from None
        image = cv2.imdecode(data, flag) if len(data) else None
        if image is None:
            raise VslamError(f"{file}: not an image that can be read; remove it, or write it again as PNG or JPEG")
        return image


def open_images(where: str | Path) -> ImageSet:
    """The images that `where` names.

    A folder with `rgb.txt` is a TUM sequence; of any other folder all images below it are taken, sorted so that 2 comes
    before 10. `FILE.npz:KEY` is an array (N, H, W) uint8. A file is a set of one.

    Raises:
        VslamError: there is no such thing, or no image in it.
    """
    path = Path(where)
    if re.search(r"\.npz(:|$)", str(where)):
        return _open_array(str(where))
    if path.is_file():
        return ImageSet(str(where), (path.name,), path.parent)
    if not path.is_dir():
        raise VslamError(f"{where}: no such folder of images")
    if (path / "rgb.txt").is_file():
        entries = read_list(path / "rgb.txt")
        stamps = np.array([entry.timestamp for entry in entries])
        return ImageSet(str(where), tuple(entry.file for entry in entries), path, stamps)
    files = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    if not files:
        raise VslamError(f"{where}: no images in this folder (looked for {', '.join(SUFFIXES)})")
    return ImageSet(str(where), tuple(sorted((str(file.relative_to(path)) for file in files), key=in_order)), path)


def in_order(name: str) -> list[Any]:
    """A key that sorts numbers in names by their value."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def describe(place: Any, images: ImageSet, progress: Progress = lambda rows, _: rows) -> np.ndarray:
    """Vectors (N, dim) of all images by a place network; few images are in memory at a time."""
    parts, waiting = [], []
    for row in progress(range(len(images)), images.where):
        waiting.append(images.grey(row))
        if len(waiting) == CHUNK or row == len(images) - 1:
            parts.append(place.describe_many(waiting))
            waiting = []
    return np.concatenate(parts)


def _open_array(where: str) -> ImageSet:
    file, _, key = where.partition(".npz:") if ".npz:" in where else (where[: -len(".npz")], "", "")
    path = Path(f"{file}.npz")
    try:
        with np.load(path) as arrays:
            kinds = {name: arrays[name] for name in arrays.files if not key or name == key}
            known = arrays.files
    except OSError as error:
        raise VslamError(f"{path}: cannot be read: {error.strerror or 'not an .npz file'}") from None
    except Exception as error:  # zipfile's and numpy's kinds
        raise VslamError(f"{path}: not an .npz file ({' '.join(str(error).split())[:80]})") from None
    found = {name: values for name, values in kinds.items() if values.dtype == np.uint8 and values.ndim == 3}
    if len(found) != 1:
        listed = ", ".join(known)
        raise VslamError(f"{where}: name one array (N, H, W) uint8 as {path.name}:KEY; the file holds {listed}")
    name, values = found.popitem()
    return ImageSet(where, tuple(f"{name}:{row}" for row in range(len(values))), path, None, values)
