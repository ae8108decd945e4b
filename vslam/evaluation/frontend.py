"""Scores of a front end on neighbouring pictures: how many keypoints match, how many matches fit, how long it takes.

The figures are those that learned front ends are published with, with an exact matcher in the place of a random one:
`match_prec` is matches under the ratio test over keypoints of the current picture; `outlier_prec` the share of matches
that a RANSAC fundamental matrix rejects, 1 below 8 matches. Few, easy keypoints can make both look good, hence the
numbers of keypoints and matches and the `coverage`. The first picture has no predecessor and is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import cv2
import numpy as np

from vslam.config import ExtractorConfig
from vslam.errors import VslamError
from vslam.evaluation.pictures import Picture
from vslam.frontend import make_extractor
from vslam.matching.brute import nearest
from vslam.registry import load
from vslam.types import Features

MIN_MATCHES = 8
"""Fewer do not determine a fundamental matrix."""
CELL = 16
"""Pixels a side of the cells that `coverage` counts."""
PEER_SIZE = (640, 480)
PEER_KEYPOINTS = 1000
"""The yardstick of time is `cv2.ORB_create(1000).detectAndCompute` at 640x480."""
FIGURES = ("match_prec", "outlier_prec", "num_kp", "matches", "inliers", "coverage", "total_ms", "extract_cpu_ms")


@dataclass(frozen=True)
class Rules:
    """How front ends are scored."""

    image_size: tuple[int, int] = (320, 240)  # width, height that pictures are resized to; (0, 0): as they are
    keypoints: int = 500
    ratio: float = 0.7  # of Euclidean distances, or of bit counts
    reject_px: float = 5.0  # from the epipolar line, in pixels of the resized picture


@dataclass(frozen=True)
class Contender:
    """One front end to be scored: a registered extractor and its options."""

    label: str
    extractor: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FrameScore:
    """One picture against its predecessor. Times in ms: wall by stage, and the extractor's CPU of all threads."""

    match_prec: float
    outlier_prec: float
    num_kp: int
    matches: int
    inliers: int
    coverage: float
    extract_cpu_ms: float
    stage_ms: dict[str, float]

    @property
    def total_ms(self) -> float:
        """What the published figure holds: read, resized, extracted; not matched."""
        return sum(value for stage, value in self.stage_ms.items() if stage in ("load", "resize", "extract"))


def contenders(extractors: list[str], backends: list[str], precisions: list[str]) -> list[Contender]:
    """One for each extractor, and for each back end and precision where it runs a network.

    Raises:
        VslamError: unknown extractor.
    """
    found = []
    for name in extractors:
        if "backend" not in _option_names(name):
            found.append(Contender(name, name))
            continue
        for backend in backends:
            for precision in precisions:
                words = [word for word in (backend, precision) if word != "auto"]
                label = f"{name} {' '.join(words)}".strip()
                found.append(Contender(label, name, {"backend": backend, "precision": precision}))
    return found


def open_contender(contender: Contender, rules: Rules) -> Any:
    """The extractor, told to take pictures as they come: they are resized as the rules say before.

    Raises:
        VslamError: unknown option, or a network that cannot be run.
    """
    options = dict(contender.options)
    names = _option_names(contender.extractor)
    if "image_size" in names:
        options["image_size"] = [0, 0]
    if "width" in names:
        options["width"] = rules.image_size[0] or 10**6
    return make_extractor(ExtractorConfig(contender.extractor, rules.keypoints, options))


def score_frontends(
    pictures: Iterable[Picture],
    chosen: list[Contender],
    rules: Rules = Rules(),
    on_picture: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Score front ends on the same pictures, in turn, so that all meet the same load.

    Returns:
        `pictures`, `image_size`, `rules`, `peer_cpu_ms` (OpenCV's ORB), and for each label in `frontends` the mean,
        median, 5th and 95th percentile of every figure, `stage_ms`, `ratio` to the peer, `few_matches` and `curves`.

    Raises:
        VslamError: unknown extractor or option, or fewer than two pictures.
    """
    runners = {c.label: _Runner(c, rules) for c in chosen}
    peer, peer_ms, count = cv2.ORB_create(PEER_KEYPOINTS), [], 0
    shape = (0, 0)
    for picture in pictures:
        image, resize_ms = resized(picture.image, rules.image_size)
        if count and image.shape != shape:
            raise VslamError(f"{picture.name}: is {image.shape[::-1]}, the pictures before it {shape[::-1]} pixels")
        shape = image.shape
        peer_ms.append(_peer_ms(peer, picture.image))
        for runner in runners.values():
            runner.add(image, {"load": 1e3 * picture.seconds, "resize": resize_ms})
        count += 1
        on_picture()
    if count < 2:
        raise VslamError(f"{count} pictures can be read; at least two are needed to match one with the next")
    peer_cpu = float(np.median(peer_ms))
    return {
        "pictures": count,
        "image_size": list(shape[::-1]),
        "rules": {"keypoints": rules.keypoints, "ratio": rules.ratio, "reject_px": rules.reject_px, "cell_px": CELL},
        "peer_cpu_ms": peer_cpu,
        "frontends": {label: summary(runner.scores, peer_cpu) for label, runner in runners.items()},
    }


def score_pair(previous: Features, current: Features, shape: tuple[int, ...], rules: Rules) -> dict[str, float]:
    """Figures of the current picture's features (in an image of `shape`) against the previous one's."""
    pairs = ratio_matches(current, previous, rules.ratio)
    inliers = int(fits(current.xy[pairs[:, 0]], previous.xy[pairs[:, 1]], rules.reject_px).sum())
    few = len(pairs) < MIN_MATCHES
    return {
        "match_prec": len(pairs) / len(current) if len(current) else 0.0,
        "outlier_prec": 1.0 if few else 1.0 - inliers / len(pairs),
        "num_kp": len(current),
        "matches": len(pairs),
        "inliers": inliers,
        "coverage": coverage(current.xy, shape),
    }


def ratio_matches(a: Features, b: Features, ratio: float) -> np.ndarray:
    """Index pairs (K, 2) of `a` and its nearest of `b` where the second nearest is clearly worse; one-sided."""
    if len(a) < 2 or len(b) < 2:
        return np.zeros((0, 2), np.int32)
    index, best, second, _ = nearest(a.descriptors, b.descriptors)
    limit = ratio if a.descriptors.dtype == np.uint8 else ratio**2  # float distances are squared
    rows = np.flatnonzero(best < limit * second).astype(np.int32)
    return np.stack([rows, index[rows]], axis=1)


def fits(xy_a: np.ndarray, xy_b: np.ndarray, reject_px: float) -> np.ndarray:
    """Which matches (N,) fit one fundamental matrix, by RANSAC; none below `MIN_MATCHES`, or where it fails."""
    if len(xy_a) < MIN_MATCHES:
        return np.zeros(len(xy_a), bool)
    cv2.setRNGSeed(0)
    points = (np.ascontiguousarray(xy, np.float64) for xy in (xy_a, xy_b))
    _, mask = cv2.findFundamentalMat(*points, cv2.FM_RANSAC, reject_px, 0.99)
    return np.zeros(len(xy_a), bool) if mask is None else mask.ravel().astype(bool)


def coverage(xy: np.ndarray, shape: tuple[int, ...]) -> float:
    """Share of the cells of 16x16 pixels of an image (H, W) that hold a keypoint (N, 2)."""
    rows, columns = -(-shape[0] // CELL), -(-shape[1] // CELL)
    cell = np.clip(np.floor((xy + 0.5) / CELL), 0, (columns - 1, rows - 1)).astype(int)
    return len(np.unique(cell[:, 1] * columns + cell[:, 0])) / (rows * columns)


def summary(scores: list[FrameScore], peer_cpu_ms: float) -> dict[str, Any]:
    """Spread of every figure, medians of the stages, ratio to the peer, and the curves."""
    curves = {name: [getattr(score, name) for score in scores] for name in FIGURES}
    stages = list(dict.fromkeys(stage for score in scores for stage in score.stage_ms))
    found: dict[str, Any] = {name: spread_of(values) for name, values in curves.items()}
    found["stage_ms"] = {s: float(np.median([score.stage_ms[s] for score in scores])) for s in stages}
    found["ratio"] = found["extract_cpu_ms"]["median"] / peer_cpu_ms
    found["few_matches"] = sum(score.matches < MIN_MATCHES for score in scores)
    return found | {"curves": curves}


def spread_of(values: list[float]) -> dict[str, float]:
    """Mean, median, 5th and 95th percentile."""
    low, middle, high = np.percentile(values, (5, 50, 95))
    return {"mean": float(np.mean(values)), "median": float(middle), "p5": float(low), "p95": float(high)}


class _Runner:
    """Runs one front end over the pictures and keeps its scores."""

    def __init__(self, contender: Contender, rules: Rules):
        self.extractor = open_contender(contender, rules)
        self.scores: list[FrameScore] = []
        self._rules, self._previous = rules, None
        self._is_warm = False

    def add(self, image: np.ndarray, stage_ms: dict[str, float]) -> None:
        """Extract, and score against the picture before."""
        if not self._is_warm:  # compiles kernels, plans the network
            self._warm_up(image)
        with _stopwatch() as extracting:
            current = self.extractor.extract(image)
        with _stopwatch() as matching:
            figures = None
            if self._previous is not None:
                figures = score_pair(self._previous, current, image.shape, self._rules)
        if figures is not None:
            stages = stage_ms | {"extract": extracting["wall"], "match": matching["wall"]}
            self.scores.append(FrameScore(**figures, extract_cpu_ms=extracting["cpu"], stage_ms=stages))
        self._previous = current

    def _warm_up(self, image: np.ndarray) -> None:
        features = self.extractor.extract(image)
        ratio_matches(features, features, self._rules.ratio)
        self._is_warm = True


@contextmanager
def _stopwatch() -> Iterator[dict[str, float]]:
    """Wall time, and CPU time of all threads (run-times may work in one of their own), in ms."""
    found: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    found |= {"wall": 1e3 * (time.perf_counter() - wall), "cpu": 1e3 * (time.process_time() - cpu)}


def resized(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """The image at a size (width, height; (0, 0): as it is), and the ms that took."""
    began = time.perf_counter()
    if any(size) and image.shape != size[::-1]:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image, 1e3 * (time.perf_counter() - began)


def _peer_ms(peer: cv2.ORB, image: np.ndarray) -> float:
    image, _ = resized(image, PEER_SIZE)
    with _stopwatch() as watch:
        peer.detectAndCompute(image, None)
    return watch["cpu"]


def _option_names(extractor: str) -> set[str]:
    return {option.name for option in fields(load("extractors", extractor).Config)}
