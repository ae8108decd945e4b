"""Keypoints and matches on pictures of planes, where a homography says what belongs to what (HPatches layout).

After Balntas et al. (CVPR 2017) and DeTone et al. (2018): repeatability and localisation error within 3 px, homography
accuracy by the mean error of the four warped corners, matching score. Both pictures are resized to one size first, and
the homography with them. A folder is a scene, `1.png` ... with `H_1_2` ..., or `img1.png` ... with `H1to2p` ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vslam.errors import VslamError
from vslam.evaluation.frontend import Contender, Rules, open_contender, resized
from vslam.evaluation.pictures import IMAGES, read_picture
from vslam.matching.matcher import MutualMatcher
from vslam.types import Features

WITHIN_PX = 3.0
ACCURACY_PX = (1, 3, 5)
NAMES = (("{k}", "H_1_{k}"), ("img{k}", "H1to{k}p"))
"""How layouts call picture k, and its homography from picture 1."""


@dataclass(frozen=True)
class PlanePair:
    """Picture 1 and picture k of a scene, (H, W) uint8 each, and the homography (3, 3) from 1 to k."""

    scene: str
    number: int
    images: tuple[np.ndarray, np.ndarray]
    homography: np.ndarray


def read_scenes(folder: Path, size: tuple[int, int]) -> list[PlanePair]:
    """All pairs of a scene, or of every scene below a folder, resized to `size` (width, height).

    Raises:
        VslamError: no scenes there, or one that is not whole.
    """
    if not folder.is_dir():
        raise VslamError(f"{folder}: no such folder; give a scene of HPatches layout, or the folder of several")
    scenes = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    pairs = [pair for scene in scenes for pair in _pairs(scene, size)]
    if not pairs:
        raise VslamError(f"{folder}: no scenes; one has 1.png, 2.png ... and H_1_2 ..., or img1.png ... and H1to2p ...")
    return pairs


def score_planes(pairs: list[PlanePair], chosen: list[Contender], rules: Rules) -> dict[str, Any]:
    """Means over all pairs, and the figures of each pair, by front end."""
    found = {}
    for contender in chosen:
        extractor, rows = open_contender(contender, rules), []
        first: dict[str, Features] = {}
        for pair in pairs:
            if pair.scene not in first:
                first[pair.scene] = extractor.extract(pair.images[0])
            second = extractor.extract(pair.images[1])
            shapes = pair.images[0].shape, pair.images[1].shape
            scores = score_plane(first[pair.scene], second, pair.homography, shapes)
            rows.append({"scene": pair.scene, "number": pair.number} | scores)
        keys = [key for key in rows[0] if key not in ("scene", "number")]
        means = {key: float(np.nanmean([row[key] for row in rows])) for key in keys}
        found[contender.label] = {"mean": means, "pairs": rows}
    return {"pairs": len(pairs), "frontends": found}


def score_plane(
    a: Features, b: Features, homography: np.ndarray, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> dict[str, float]:
    """Figures of one pair; keypoints that the other picture does not show are left out."""
    a_in_b, b_in_a = project(homography, a.xy), project(np.linalg.inv(homography), b.xy)
    shared_a, shared_b = _inside(a_in_b, shapes[1]), _inside(b_in_a, shapes[0])
    gaps = _nearest(a_in_b[shared_a], b.xy), _nearest(b_in_a[shared_b], a.xy)
    close = [gap[gap <= WITHIN_PX] for gap in gaps]
    shared = int(shared_a.sum() + shared_b.sum())
    both = np.concatenate(close)
    pairs = MutualMatcher().match(a, b).pairs
    error = np.linalg.norm(a_in_b[pairs[:, 0]] - b.xy[pairs[:, 1]], axis=1)
    right = int((error <= WITHIN_PX).sum())
    corner = corner_error(a.xy[pairs[:, 0]], b.xy[pairs[:, 1]], homography, shapes[0])
    return {
        "repeatability": len(both) / shared if shared else 0.0,
        "localisation_px": float(both.mean()) if len(both) else float("nan"),
        **{f"homography_{limit}px": float(corner <= limit) for limit in ACCURACY_PX},
        "matching_score": 2 * right / shared if shared else 0.0,
        "precision": right / len(pairs) if len(pairs) else 0.0,
        "keypoints": (len(a) + len(b)) / 2,
    }


def corner_error(xy_a: np.ndarray, xy_b: np.ndarray, homography: np.ndarray, shape: tuple[int, ...]) -> float:
    """Mean distance, px, of the four corners of the first picture under the homography that the matches (N, 2) give by
    RANSAC and under the true one; infinite where they give none."""
    if len(xy_a) < 4:
        return float("inf")
    cv2.setRNGSeed(0)
    estimate, _ = cv2.findHomography(xy_a, xy_b, cv2.RANSAC, 3.0)
    if estimate is None:
        return float("inf")
    height, width = shape[:2]
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], float)
    return float(np.linalg.norm(project(estimate, corners) - project(homography, corners), axis=1).mean())


def project(homography: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) under a homography, float64; what goes behind the plane at infinity is far outside."""
    mapped = np.asarray(xy, float) @ homography[:, :2].T + homography[:, 2]
    depth = np.where(mapped[:, 2] > 1e-9, mapped[:, 2], np.nan)
    return np.nan_to_num(mapped[:, :2] / depth[:, None], nan=-1e6)


def scaled_homography(homography: np.ndarray, from_sizes: list[tuple[int, ...]], size: tuple[int, int]) -> np.ndarray:
    """A homography between pictures of two shapes (H, W) after both are resized to `size` (width, height)."""
    first, second = (_resize_matrix(shape, size) for shape in from_sizes)
    return second @ homography @ np.linalg.inv(first)


def _resize_matrix(shape: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """From pixels of a picture to those of it resized: centres at whole numbers, hence the halves."""
    sx, sy = size[0] / shape[1], size[1] / shape[0]
    return np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1]])


def _pairs(scene: Path, size: tuple[int, int]) -> Iterator[PlanePair]:
    for image_name, matrix_name in NAMES:
        first = _image(scene, image_name.format(k=1))
        if first is None:
            continue
        numbers = [k for k in range(2, 100) if (scene / matrix_name.format(k=k)).is_file()]
        for k in numbers:
            image = _image(scene, image_name.format(k=k))
            if image is None:
                raise VslamError(f"{scene}: has {matrix_name.format(k=k)} but no picture {image_name.format(k=k)}")
            images = read_picture(first), read_picture(image)
            matrix = _read_matrix(scene / matrix_name.format(k=k))
            wanted = size if any(size) else images[0].shape[::-1]
            small = tuple(resized(picture, wanted)[0] for picture in images)
            yield PlanePair(scene.name, k, small, scaled_homography(matrix, [i.shape for i in images], wanted))


def _image(scene: Path, stem: str) -> Path | None:
    return next((scene / f"{stem}{suffix}" for suffix in sorted(IMAGES) if (scene / f"{stem}{suffix}").is_file()), None)


def _read_matrix(file: Path) -> np.ndarray:
    try:
        matrix = np.loadtxt(file)
    except ValueError as error:
        raise VslamError(f"{file}: not a homography ({error})") from None
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise VslamError(f"{file}: not a homography: three rows of three numbers, of full rank, are needed")
    return matrix


def _inside(xy: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return (xy >= 0).all(axis=1) & (xy <= np.array(shape[1::-1]) - 1).all(axis=1)


def _nearest(xy: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance (N,) of each point to the nearest of others (M, 2); infinite without any."""
    if not len(others) or not len(xy):
        return np.full(len(xy), np.inf)
    return np.linalg.norm(xy[:, None] - others[None], axis=2).min(axis=1)
