"""Pictures in order, grey: a folder of images, the colour images of a sequence's folder, or a video."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vslam.datasets.dataset import Dataset
from vslam.errors import FrameError, VslamError

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm", ".tif", ".tiff"}
VIDEOS = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg"}
COLOUR_FOLDERS = ("rgb", "color", "image_0", "image_2", "mav0/cam0/data", "images")
"""Where known layouts keep the pictures of their first camera."""


@dataclass(frozen=True)
class Picture:
    """`image` (H, W) uint8, grey, and how long it took to read, s."""

    name: str
    image: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Pictures:
    """Pictures of one source; iterating reads them one by one and leaves out what does not decode."""

    source: Path | int
    files: tuple[Path, ...]  # empty: a video, or the camera of that number
    start: int = 0
    step: int = 1
    most: int | None = None

    def __len__(self) -> int:
        """How many there are at most; 0 where nobody knows."""
        count = len(self.files[self.start :: self.step])
        return min(count, self.most or count) if self.files else self.most or 0

    def __iter__(self) -> Iterator[Picture]:
        return itertools.islice(self._read_files() if self.files else self._read_video(), self.most)

    def _read_files(self) -> Iterator[Picture]:
        for file in self.files[self.start :: self.step]:
            began = time.perf_counter()
            image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
            if image is not None:
                yield Picture(file.name, image, time.perf_counter() - began)

    def _read_video(self) -> Iterator[Picture]:
        video = cv2.VideoCapture(self.source if isinstance(self.source, int) else str(self.source))
        try:
            if not video.isOpened() and isinstance(self.source, int):
                raise VslamError(f"camera {self.source}: cannot be opened; is it there, free, and yours to read?")
            if not video.isOpened():
                raise VslamError(
                    f"{self.source}: not a video that can be read; give another file, or a folder of images"
                )
            index = 0
            while True:
                began = time.perf_counter()
                good, image = video.read()
                if not good:
                    return
                if index >= self.start and (index - self.start) % self.step == 0:
                    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
                    yield Picture(f"{index:06}", grey, time.perf_counter() - began)
                index += 1
        finally:
            video.release()


@dataclass(frozen=True)
class DatasetPictures:
    """The pictures of a sequence that a layout reads; iterating leaves out what does not decode."""

    dataset: Dataset
    step: int = 1
    most: int | None = None

    def __len__(self) -> int:
        return min(len(range(0, len(self.dataset), self.step)), self.most or len(self.dataset))

    def __iter__(self) -> Iterator[Picture]:
        return itertools.islice(self._read(), self.most)

    def _read(self) -> Iterator[Picture]:
        for index in range(0, len(self.dataset), self.step):
            began = time.perf_counter()
            try:
                image = self.dataset.load(index).image
            except FrameError:
                continue
            grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            yield Picture(f"{index:06}", np.ascontiguousarray(grey), time.perf_counter() - began)


def open_pictures(path: Path, start: int = 0, step: int = 1, most: int | None = None) -> Pictures:
    """The pictures of a folder or a video: every `step`-th one from the `start`-th on, at most `most`.

    A folder's `rgb.txt` gives the order; else it is that of the names, with numbers counted as numbers.

    Raises:
        VslamError: nothing there, or nothing that can be read.
    """
    if not path.exists():
        raise VslamError(f"{path}: no such file or folder; give a folder of images, a sequence's folder, or a video")
    if path.is_file():
        if path.suffix.lower() in VIDEOS:
            return Pictures(path, (), start, step, most)
        known = ", ".join(sorted(VIDEOS))
        raise VslamError(f"{path}: not a video ({known}); give a folder of images, a sequence's folder, or a video")
    files = _listed(path) or _found(path)
    if len(files[start::step]) < 1:
        raise VslamError(f"{path}: {len(files)} images, none left from number {start} on")
    return Pictures(path, tuple(files), start, step, most)


def film(camera: int, step: int = 1, most: int | None = None) -> Pictures:
    """What a camera sees from now on, every `step`-th picture; opened when the first one is asked for."""
    return Pictures(camera, (), step=step, most=most)


def read_picture(path: Path) -> np.ndarray:
    """One grey image (H, W) uint8.

    Raises:
        VslamError: it cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
    if image is None:
        reason = "not an image that can be read" if path.is_file() else "no such image"
        raise VslamError(f"{path}: {reason}; give a png, jpg, bmp, webp, pgm or tif file")
    return image


def _listed(folder: Path) -> list[Path]:
    """The files that a TUM folder's `rgb.txt` names, in its order."""
    file = folder / "rgb.txt"
    if not file.is_file():
        return []
    lines = file.read_text(errors="replace").splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return [folder / row[1] for row in rows if len(row) > 1]


def _found(folder: Path) -> list[Path]:
    """Images in the folder, or in the first of the known sub-folders that has any."""
    for place in (folder, *(folder / name for name in COLOUR_FOLDERS)):
        found = [file for file in place.iterdir() if _is_picture(file)] if place.is_dir() else []
        if found:
            return sorted(found, key=_natural)
    raise VslamError(f"{folder}: no images here ({', '.join(sorted(IMAGES))}), nor in {', '.join(COLOUR_FOLDERS)}")


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in IMAGES and ".depth" not in file.name and not file.name.startswith(".")


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sorts 9 before 10."""
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
