"""Choosing keypoints so that they cover the image: round after round the best of every cell."""

from __future__ import annotations

import numpy as np

from vslam.kernels import inner, njit

PER_CELL = 9  # points that a cell gives on average: fewer would take weak corners that are not found again


@njit
def spread_into(xy, score, start, stop, width, height, wanted, chosen):
    """Write indices of at most `wanted` evenly spread rows of `xy[start:stop]` to `chosen`; returns how many.

    The image is cut into square cells, PER_CELL wanted points each; each round takes the best remaining point of every
    cell, and the last round, where there are more than are still wanted, takes the strongest.
    `xy` (N, 2), `score` (N,).
    """
    count = stop - start
    if count <= wanted:
        for i in range(count):
            chosen[i] = start + i
        return count
    side = max(1.0, np.sqrt(PER_CELL * width * height / max(1, wanted)))
    columns = int(width / side) + 1
    rows = int(height / side) + 1
    best = np.empty(rows * columns, np.int32)
    taken = np.zeros(count, np.uint8)
    done = 0
    while done < wanted:
        best[:] = -1
        found = 0
        for i in range(count):
            if taken[i]:
                continue
            cell = int(xy[start + i, 1] / side) * columns + int(xy[start + i, 0] / side)
            rival = best[cell]
            if rival < 0:
                found += 1
            if rival < 0 or score[start + i] > score[start + rival]:
                best[cell] = i
        floor = _score_floor(score, start, best, wanted - done) if found > wanted - done else -np.inf
        for cell in range(len(best)):
            i = best[cell]
            if i >= 0 and done < wanted and score[start + i] >= floor:
                taken[i] = 1
                chosen[done] = start + i
                done += 1
    return done


@inner
def _score_floor(score, start, best, wanted):
    """The score that about `wanted` of the cells' best points reach, found by bisection."""
    low, high = np.inf, -np.inf
    for i in best:
        if i >= 0:
            low, high = min(low, score[start + i]), max(high, score[start + i])
    for _ in range(24):
        middle = 0.5 * (low + high)
        above = 0
        for i in best:
            above += i >= 0 and score[start + i] >= middle
        if above >= wanted:
            low = middle
        else:
            high = middle
    return low


def spread(xy: np.ndarray, score: np.ndarray, wanted: int, width: int, height: int) -> np.ndarray:
    """Indices (M,) int64 of at most `wanted` evenly spread points of `xy` (N, 2) in an image `width` x `height`."""
    chosen = np.empty(max(wanted, 0), np.int64)
    xy, score = np.ascontiguousarray(xy, np.float32), np.ascontiguousarray(score, np.float32)
    return chosen[: spread_into(xy, score, 0, len(xy), float(width), float(height), wanted, chosen)]
