"""Builds place packs from walks with depth and poses, from frames of videos, and from single photos."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from vslam.errors import VslamError
from vslam.train.data.build import EXTENSIONS, associated_rows, read_camera, read_rows
from vslam.train.data.pack import write_pack
from vslam.train.places.overlap import UNKNOWN, overlap_matrix

WIDTH = 320
"""Width of packed images; training cuts its views out of them."""

DEPTH_STEP = 4
"""Every n-th pixel of the depth is enough to tell what a view sees."""

NEAR_SECONDS = 1
"""Frames of a video so near show the same place; of those further apart in the same video nobody knows."""


def pack_places(folders: list[Path], file: Path, source: str, world: str = "", only: tuple[str, ...] = ()) -> int:
    """Pack one world; returns the number of images.

    A folder with `groundtruth.txt` is a walk in TUM layout with `camera.yaml`; several are the same walk under other
    light. A folder with `index.csv` (columns path, floor, video, frame, area) holds frames of videos, of which `only`
    chooses floors. Any other folder holds photos, each a place of its own.

    Raises:
        VslamError: nothing readable, or walks that are not the same.
    """
    if (folders[0] / "groundtruth.txt").is_file():
        arrays = read_walks(folders)
    elif (folders[0] / "index.csv").is_file():
        arrays = read_videos(folders[0], only)
    else:
        arrays = read_photos(folders)
    arrays["world"] = np.array(world or folders[0].name)
    write_pack(file, arrays, source)
    return len(arrays["images"])


def shrink_to_pack(image: np.ndarray) -> np.ndarray:
    """A grey image at the width of packed ones, in proportion."""
    height = round(WIDTH * image.shape[0] / image.shape[1])
    return cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA)


def read_grey(file: Path) -> np.ndarray:
    """One image, grey; VslamError when it cannot be read."""
    image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise VslamError(f"{file}: not a readable image")
    return image


def read_walks(folders: list[Path]) -> dict[str, np.ndarray]:
    """Arrays of one walk seen under the light of each folder; depth and poses are those of the first."""
    K, depth_scale = read_camera(folders[0])
    rows = associated_rows(folders[0])
    times = {name: float(time) for time, name in read_rows(folders[0] / "rgb.txt")}
    images = [shrink_to_pack(read_grey(row[0])) for row in rows]
    depths = np.stack([read_depth(row[1], depth_scale) for row in rows])
    poses = np.stack([row[2] for row in rows])
    for other in folders[1:]:
        again = associated_rows(other)
        if len(again) != len(rows) or not np.allclose([row[2] for row in again], poses, atol=1e-4):
            raise VslamError(f"{other}: not the walk of {folders[0]} (other poses); pack it apart")
        images += [shrink_to_pack(read_grey(row[0])) for row in again]
    coarse = np.diag([1 / DEPTH_STEP, 1 / DEPTH_STEP, 1.0]) @ K
    return {
        "images": stacked(images, folders[0]),
        "view": np.tile(np.arange(len(rows), dtype=np.int32), len(folders)),
        "overlap": overlap_matrix(depths, poses, coarse),
        "time": np.array([times[str(row[0].relative_to(folders[0]))] for row in rows]),
        "poses": poses,
        "reach": np.float64(np.median(depths[depths > 0])),
    }


def read_depth(file: Path, scale: float) -> np.ndarray:
    """Every `DEPTH_STEP`-th pixel of a 16-bit depth image, float32 metres."""
    depth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.dtype != np.uint16:
        raise VslamError(f"{file}: not a 16-bit depth image")
    return depth[::DEPTH_STEP, ::DEPTH_STEP].astype(np.float32) / np.float32(scale)


def read_videos(folder: Path, only: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of video frames listed in `index.csv`: neighbours in time are the same place.

    Frames of another floor and another area are different places; of the same floor, or of the same area of another
    floor (floors look alike), nobody knows.
    """
    rows = read_index(folder / "index.csv")
    floor, area, video, frame = (np.array([row[key] for row in rows]) for key in ("floor", "area", "video", "frame"))
    if only:
        chosen = np.isin(floor, only)
        if not chosen.any():
            raise VslamError(
                f"{folder}/index.csv: no frames of floors {', '.join(only)}; it has {', '.join(set(floor))}"
            )
        rows = [row for row, wanted in zip(rows, chosen, strict=True) if wanted]
        floor, area, video, frame = (values[chosen] for values in (floor, area, video, frame))
    images = [shrink_to_pack(read_grey(folder / row["path"])) for row in rows]
    unlike = (floor[:, None] != floor) & (area[:, None] != area)
    overlap = np.where(unlike, 0, UNKNOWN).astype(np.uint8)
    overlap[(video[:, None] == video) & (np.abs(frame[:, None] - frame) <= NEAR_SECONDS)] = 60
    np.fill_diagonal(overlap, 100)
    return {"images": stacked(images, folder), "view": np.arange(len(rows), dtype=np.int32), "overlap": overlap}


def read_index(file: Path) -> list[dict]:
    """Rows of an `index.csv`, `frame` as a number.

    Raises:
        VslamError: columns missing, a frame that is no number, no rows.
    """
    with open(file, newline="") as text:
        rows = list(csv.DictReader(text))
    try:
        found = [
            {key: row[key] for key in ("path", "floor", "area", "video")} | {"frame": int(row["frame"])} for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise VslamError(f"{file}: needs the columns path, floor, video, frame (a number), area ({error})") from None
    if not found:
        raise VslamError(f"{file}: has no rows")
    return found


def stacked(images: list[np.ndarray], folder: Path) -> np.ndarray:
    """Images (M, H, W); VslamError when they differ in shape."""
    if len({image.shape for image in images}) > 1:
        raise VslamError(f"{folder}: images of different shapes; pack each kind apart")
    return np.stack(images)


def read_photos(folders: list[Path]) -> dict[str, np.ndarray]:
    """Arrays of single photos, cut to 4:3; each shows a place of its own."""
    files = sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
    images = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]
    cut = [shrink_to_pack(cut_to_shape(image)) for image in images if image is not None]
    if not cut:
        raise VslamError(f"{folders[0]}: no readable images (jpg, png, bmp, webp)")
    count = len(cut)
    overlap = np.diag(np.full(count, 100, np.uint8))
    return {"images": np.stack(cut), "view": np.arange(count, dtype=np.int32), "overlap": overlap}


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The largest middle part of an image that has the shape of `size` (width, height), in that size."""
    return cv2.resize(cut_to_shape(image, size), size, interpolation=cv2.INTER_AREA)


def cut_to_shape(image: np.ndarray, shape: tuple[int, int] = (4, 3)) -> np.ndarray:
    """The largest middle part of an image whose sides are as `shape` (width, height)."""
    height, width = image.shape
    w, h = min(width, height * shape[0] // shape[1]), min(height, width * shape[1] // shape[0])
    x, y = (width - w) // 2, (height - h) // 2
    return image[y : y + h, x : x + w]
