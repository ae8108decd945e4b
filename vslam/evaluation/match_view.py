"""Two pictures side by side with their matches: those that fit the epipolar geometry green, the others red."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vslam.errors import VslamError
from vslam.evaluation.frontend import fits
from vslam.types import Features

FIT, MISFIT, UNMATCHED, PAPER = (90, 180, 60), (60, 60, 220), (200, 160, 90), (255, 255, 255)
"""Colours, BGR."""
REJECT_PX = 3.0
"""From the epipolar line, in a picture 640 pixels wide."""
GAP = 8
"""Pixels between the two pictures."""
BANNER = 22
FRAMES_PER_SECOND = 15.0
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class View:
    """A picture (H, W) uint8 and its features."""

    image: np.ndarray
    features: Features


def sort_matches(a: View, b: View, pairs: np.ndarray) -> np.ndarray:
    """Which index pairs (K, 2) fit one fundamental matrix, (K,) bool."""
    reject = REJECT_PX * max(a.image.shape[1], b.image.shape[1]) / 640
    return fits(a.features.xy[pairs[:, 0]], b.features.xy[pairs[:, 1]], reject)


def draw_matches(a: View, b: View, pairs: np.ndarray, good: np.ndarray, title: str = "") -> np.ndarray:
    """A BGR image of both pictures, their keypoints, and lines between matches (K, 2), coloured by `good` (K,)."""
    left, right = a.image.shape, b.image.shape
    canvas = np.full((BANNER + max(left[0], right[0]), left[1] + GAP + right[1], 3), PAPER, np.uint8)
    canvas[BANNER : BANNER + left[0], : left[1]] = a.image[..., None]
    canvas[BANNER : BANNER + right[0], left[1] + GAP :] = b.image[..., None]
    starts = np.array([[0, BANNER], [left[1] + GAP, BANNER]])
    moved = [a.features.xy + starts[0], b.features.xy + starts[1]]
    for xy in moved:
        for place in xy:
            cv2.circle(canvas, _fixed(place), 2 * 16, UNMATCHED, 1, cv2.LINE_AA, 4)
    for k in np.argsort(good, kind="stable"):  # those that fit lie on top
        colour = FIT if good[k] else MISFIT
        ends = [_fixed(xy[i]) for xy, i in zip(moved, pairs[k], strict=True)]
        cv2.line(canvas, *ends, colour, 1, cv2.LINE_AA, 4)
        for end in ends:
            cv2.circle(canvas, end, 2 * 16, colour, -1, cv2.LINE_AA, 4)
    cv2.putText(canvas, title, (6, BANNER - 7), FONT, 0.45, (40, 36, 31), 1, cv2.LINE_AA)
    return canvas


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a BGR image under its name.

    Raises:
        VslamError: unknown kind of file, or it cannot be written.
    """
    from vslam.datasets.trajectory import write_atomically

    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise VslamError(f"{path}: unknown picture format; use a name that ends in .png or .jpg")
    write_atomically(path, cv2.imencode(path.suffix, image)[1].tobytes())


def write_video(path: Path, images: Iterable[np.ndarray]) -> int:
    """Write BGR images of one size as a video (.mp4 or .avi); returns how many.

    Raises:
        VslamError: unknown kind of file, no images, or it cannot be written.
    """
    codes = {".mp4": "mp4v", ".avi": "MJPG"}
    if path.suffix.lower() not in codes:
        raise VslamError(f"{path}: unknown video format; use a name that ends in .mp4 or .avi")
    partial = path.with_name(f".{path.stem}.part{path.suffix}")
    count, writer = 0, None
    try:
        for image in images:
            if writer is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                code = cv2.VideoWriter_fourcc(*codes[path.suffix.lower()])
                writer = cv2.VideoWriter(str(partial), code, FRAMES_PER_SECOND, image.shape[1::-1])
                if not writer.isOpened():
                    raise VslamError(f"{path}: cannot be written; give another file")
            writer.write(image)
            count += 1
        if writer is None:
            raise VslamError(f"{path}: nothing to show: at least two pictures are needed")
        writer.release()
        partial.replace(path)
    except OSError as error:
        raise VslamError(f"{path}: cannot be written: {error.strerror}; give another file") from None
    finally:
        if writer is not None:
            writer.release()
        partial.unlink(missing_ok=True)
    return count


def matched_frames(images: Iterable[np.ndarray], extract, match) -> Iterator[tuple[View, View, np.ndarray, np.ndarray]]:
    """Each picture with the one before it: both views, index pairs (K, 2) and which of them fit."""
    before = None
    for image in images:
        view = View(image, extract(image))
        if before is not None:
            pairs = match(before.features, view.features).pairs
            yield before, view, pairs, sort_matches(before, view, pairs)
        before = view


def _fixed(place: np.ndarray) -> tuple[int, int]:
    """Pixels in the sixteenths that OpenCV draws by."""
    return round(float(place[0]) * 16), round(float(place[1]) * 16)
