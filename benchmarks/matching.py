"""Matching kernels beside OpenCV: `python -m benchmarks.matching [--json FILE]`.

Thread CPU milliseconds, medians: both nearest neighbours and the best back again between two sets, for 256 bits and
for 256 floats, beside the two nearest neighbours of `cv2.BFMatcher`; and the guided search of map points in a frame.
Descriptors are random, every second one of b a noisy copy of one of a.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from vslam.matching.brute import nearest
from vslam.matching.window import CELL, search_projected
from vslam.tracking.frame import fill_grid
from vslam.types import Camera

CAMERA = Camera(525.0, 525.0, 319.5, 239.5, 640, 480)
SIZES = (500, 1000, 2000)
MAP_POINTS = (1000, 5000)


def median_ms(function: Callable[[], object], repeats: int) -> float:
    """Median CPU time of this thread over calls, after one that compiles; ms."""
    function()
    times = []
    for _ in range(repeats):
        began = time.thread_time()
        function()
        times.append(1e3 * (time.thread_time() - began))
    return float(np.median(times))


def bits(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    a, b = (rng.integers(0, 256, (count, 32), np.uint8) for _ in range(2))
    flips = np.packbits(rng.random((len(b[::2]), 256)) < 0.1, axis=1)
    b[::2] = a[::2] ^ flips
    return a, b


def floats(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    a, b = (rng.normal(size=(count, 256)).astype(np.float32) for _ in range(2))
    b[::2] = a[::2] + 0.3 * b[::2]
    return tuple(values / np.linalg.norm(values, axis=1, keepdims=True) for values in (a, b))


def brute(count: int, repeats: int, rng: np.random.Generator) -> list[dict]:
    rows = []
    for name, make, norm in (("hamming", bits, cv2.NORM_HAMMING), ("float", floats, cv2.NORM_L2)):
        a, b = make(count, rng)
        peer = cv2.BFMatcher(norm)
        ours = median_ms(lambda a=a, b=b: nearest(a, b), repeats)
        theirs = median_ms(lambda a=a, b=b, peer=peer: peer.knnMatch(a, b, 2), repeats)
        rows.append({"what": f"{name} {count} x {count}", "ms": ours, "cv2_ms": theirs, "ratio": ours / theirs})
    return rows


def windowed(points: int, repeats: int, rng: np.random.Generator) -> dict:
    """Points of a map, all in view, among the 1000 keypoints of a frame."""
    xy = rng.uniform((0, 0), (640, 480), (points, 2))
    xyz = CAMERA.unproject(xy, rng.uniform(1, 5, points))
    words = rng.integers(0, 256, (points, 32), np.uint8)
    shown = rng.permutation(points)[:1000]
    n = len(shown)
    ones, zeros = np.ones(n, np.float32), np.zeros(n, np.float32)
    seen = (xy[shown] + rng.normal(0, 1, (n, 2))).astype(np.float32)
    columns, rows = 640 // CELL + 1, 480 // CELL + 1
    start, items = np.zeros(columns * rows + 1, np.int32), np.empty(n, np.int32)
    fill_grid(seen, columns, rows, start, items)
    match, distance, visible = np.empty(points, np.int32), np.empty(points, np.float32), np.empty(points, np.uint8)
    size, none = np.linalg.norm(xyz, axis=1).astype(np.float32), np.zeros((points, 3), np.float32)

    def search() -> int:
        return search_projected(
            np.eye(4), CAMERA.pinhole, 640, 480, xyz, none, size, np.zeros(points, np.float32), words.view(np.uint64),
            seen, ones, zeros, words[shown].view(np.uint64), np.ones(n, np.uint8), start, items, columns, rows, CELL,
            2.0, 6.0, 1.5, 0.0, np.float32(64), np.float32(0.9), match, distance, visible,
        )  # fmt: skip

    return {"what": f"guided, {points} points in {n}", "ms": median_ms(search, repeats), "found": int(search())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    rows = [row for count in SIZES for row in brute(count, arguments.repeats, rng)]
    rows += [windowed(points, arguments.repeats, rng) for points in MAP_POINTS]
    print(f"{'':30}{'ms':>8}{'cv2 ms':>9}{'ratio':>7}{'found':>7}")
    for row in rows:
        peer = f"{row['cv2_ms']:9.2f}{row['ratio']:7.2f}" if "cv2_ms" in row else " " * 16
        print(f"{row['what']:30}{row['ms']:8.2f}{peer}{row.get('found', ''):>7}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
