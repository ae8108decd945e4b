"""Places by stretches of images: pure functions on a matrix of similarities.

After SeqSLAM (Milford and Wyeth, ICRA 2012): who comes again sees the same places in the same order at about the same
speed, so the similarities along a straight line through the matrix say more than a single one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vslam.places.index import PlaceIndex

SPEEDS = (0.8, 0.9, 1.0, 1.1, 1.2)
"""Database images per query image that are tried, as in the paper."""
KEYFRAME_SPEEDS = (0.5, 0.7, 1.0, 1.4, 2.0, -0.5, -0.7, -1.0, -1.4, -2.0)
"""The same of keyframes, which are not evenly spaced, some of them removed since; a way may be gone backwards."""
MIN_SHARE = 0.5
"""A line counts when this part of it lies in the database."""


def sequence_scores(similarity: np.ndarray, length: int, speeds: Sequence[float] = SPEEDS) -> np.ndarray:
    """Mean similarity along the best line that ends at each cell.

    Args:
        similarity: (Q, D) of queries to database, both in the order in which they were seen; -inf where a pair is
            not to be compared. In SLAM: the rows of the last few keyframes.
        length: images of a line; the first queries, which have fewer before them, get shorter ones.
        speeds: database images per query image; negative ones drive the database backwards.

    Returns:
        (Q, D) float32; -inf where the pair is not to be compared, or less than half of every line is known.
    """
    similarity = np.asarray(similarity, np.float32)
    known = np.isfinite(similarity)
    values = np.where(known, similarity, np.float32(0))
    before = np.minimum(np.arange(len(similarity)) + 1, length)[:, None]
    best = np.full(similarity.shape, -np.inf, np.float32)
    for speed in speeds:
        total, count = np.zeros_like(values), np.zeros(values.shape, np.int32)
        for back in range(min(length, len(similarity))):
            to, of = _shifted(values.shape, back, round(speed * back))
            total[to] += values[of]
            count[to] += known[of]
        mean = np.where(count >= MIN_SHARE * before, total / np.maximum(count, 1), np.float32(-np.inf))
        np.maximum(best, mean, out=best)
    best[~known] = -np.inf
    return best


def _shifted(shape: tuple[int, ...], rows: int, columns: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The cells that have one `rows` above and `columns` to the left of them, and those."""
    width = max(shape[1] - abs(columns), 0)
    here, there = max(columns, 0), max(-columns, 0)
    to = slice(rows, None), slice(here, here + width)
    of = slice(0, shape[0] - rows), slice(there, there + width)
    return to, of


class Step(NamedTuple):
    """A keyframe on the way: its `vector` (D,), the time `before` which a place is old to it, and the places that it
    is linked with (`known`), which are not to be compared either."""

    vector: np.ndarray
    before: float
    known: frozenset[int]


class Stretch:
    """The last `length` keyframes, looked up together as a stretch of an older way."""

    def __init__(self, length: int):
        self._length = length
        self._steps: deque[Step] = deque(maxlen=length)

    def add(self, vector: np.ndarray, before: float, known: Iterable[int]) -> None:
        """Go on to a keyframe."""
        self._steps.append(Step(vector, before, frozenset(known)))

    def search(self, index: PlaceIndex, time: Mapping[int, float], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The `k` places at which the stretch most probably ends, best first; `time` by id.

        Returns:
            ids (k or fewer,) int64 and scores float32: mean similarities along the best line of each.
        """
        ids, vectors = index.content()
        similarity = np.stack([step.vector for step in self._steps]) @ vectors.T
        at = np.array([time[place] for place in ids.tolist()])
        for row, step in zip(similarity, self._steps, strict=True):
            row[(at > step.before) | np.isin(ids, list(step.known))] = -np.inf
        scores = sequence_scores(similarity, self._length, KEYFRAME_SPEEDS)[-1]
        best = np.argsort(-scores, kind="stable")[:k]
        best = best[np.isfinite(scores[best])]
        return ids[best], scores[best]
