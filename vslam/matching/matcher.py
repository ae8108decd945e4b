"""Matchers: two sets of features in, index pairs out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vslam.errors import VslamError
from vslam.matching.brute import nearest
from vslam.types import Features, Matches


@dataclass(frozen=True)
class MutualMatcher:
    """Pairs that are each other's nearest neighbour, closer than `max_distance` (None: any distance)."""

    max_distance: float | None = None

    def match(self, a: Features, b: Features) -> Matches:
        """Match two sets; thread-safe, fine with empty ones.

        Raises:
            VslamError: descriptors of different kinds or lengths.
        """
        check_alike(a, b)
        index, distance, _, back = nearest(a.descriptors, b.descriptors)
        return _accept(index, distance, _is_mutual(index, back), self.max_distance)


@dataclass(frozen=True)
class RatioMatcher:
    """Mutual pairs whose second-best neighbour is clearly worse (Lowe, IJCV 2004, section 7.1).

    `ratio` is of Euclidean distances, or of bit counts.
    """

    max_distance: float | None = None
    ratio: float = 0.8

    def match(self, a: Features, b: Features) -> Matches:
        """As `MutualMatcher.match`."""
        check_alike(a, b)
        index, distance, second, back = nearest(a.descriptors, b.descriptors)
        limit = self.ratio if a.descriptors.dtype == np.uint8 else self.ratio**2  # float distances are squared
        return _accept(index, distance, _is_mutual(index, back) & (distance < limit * second), self.max_distance)


def check_alike(a: Features, b: Features) -> None:
    """Raise VslamError unless the descriptors of `a` and `b` can be compared."""
    kinds = [f"{f.descriptors.dtype} of length {f.descriptors.shape[-1]}" for f in (a, b)]
    if len(a) and len(b) and kinds[0] != kinds[1]:
        raise VslamError(f"cannot match {kinds[0]} with {kinds[1]} descriptors: extract both with the same extractor")


def _is_mutual(index: np.ndarray, back: np.ndarray) -> np.ndarray:
    if not len(back):
        return np.zeros(len(index), bool)
    return back[index] == np.arange(len(index))


def _accept(index: np.ndarray, distance: np.ndarray, good: np.ndarray, max_distance: float | None) -> Matches:
    if max_distance is not None:
        good = good & (distance <= max_distance)
    rows = np.flatnonzero(good).astype(np.int32)
    return Matches(np.stack([rows, index[rows]], axis=1), distance[rows])
