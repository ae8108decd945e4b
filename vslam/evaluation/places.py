"""How well places are recognised: Recall@N, precision over recall, on a matrix of similarities."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from vslam.errors import VslamError
from vslam.evaluation.places_images import ImageSet
from vslam.evaluation.places_truth import Truth
from vslam.places.sequence import sequence_scores

DEPTHS = (1, 5, 10)
"""The N of Recall@N."""
MAX_PAIRS = 100_000_000
"""Pairs of images that are compared at most: a matrix of 0.4 GB, and three times that for its order."""


@dataclass(frozen=True)
class PlaceScores:
    """What one way to compare images achieves.

    Attributes:
        found: (Q, 10) int64 the most similar database images, best first; -1 where there are no more.
        score: (Q,) float32 similarity of the best one; -inf where there is none.
        is_right: (Q,) the best one is right. has_match: (Q,) some database image would be.
        recalls: N -> share of the queries that have a match and find one among their N best.
        recall, precision: (K,) as the threshold on `score` falls; see `precision_recall`.
    """

    found: np.ndarray
    score: np.ndarray
    is_right: np.ndarray
    has_match: np.ndarray
    recalls: dict[int, float]
    recall: np.ndarray
    precision: np.ndarray

    @property
    def auc(self) -> float:
        """Area under precision over recall by trapezium, from recall 0 with the first precision."""
        recall = np.concatenate([[0.0], self.recall])
        precision = np.concatenate([self.precision[:1], self.precision])
        return float(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))

    @property
    def recall_at_full_precision(self) -> float:
        """The share of queries that is recognised before the first mistake."""
        return float(self.recall[self.precision == 1.0].max(initial=0.0))

    @property
    def precision_of_all(self) -> float:
        """Precision when every query is accepted: at the largest recall there is."""
        return float(self.precision[-1])

    def figures(self) -> dict[str, Any]:
        """The numbers, with stable names."""
        return {
            "queries": len(self.score),
            "queries_with_match": int(self.has_match.sum()),
            **{f"recall_at_{n}": value for n, value in self.recalls.items()},
            "auc": self.auc,
            "recall_at_full_precision": self.recall_at_full_precision,
            "precision_of_all": self.precision_of_all,
        }


def score_places(similarity: np.ndarray, right: np.ndarray) -> PlaceScores:
    """Score a way to compare images.

    Args:
        similarity: (Q, D) of queries to database; -inf where a pair cannot be found.
        right: (Q, D) bool, the database image shows the query's place and is to be found.

    Raises:
        VslamError: no query has a match.
    """
    has_match = right.any(axis=1)
    if not has_match.any():
        raise VslamError("no query has a match in the database; the truth does not fit the images, or is too strict")
    order = np.argsort(-similarity, axis=1, kind="stable")[:, : max(DEPTHS)]
    is_there = np.isfinite(np.take_along_axis(similarity, order, axis=1))
    hits = np.take_along_axis(right, order, axis=1) & is_there
    found = np.where(is_there, order, -1)
    score = np.take_along_axis(similarity, order[:, :1], axis=1)[:, 0].astype(np.float32)
    recalls = {n: float(hits[has_match, :n].any(axis=1).mean()) for n in DEPTHS}
    recall, precision = precision_recall(score, hits[:, 0], int(has_match.sum()))
    return PlaceScores(found, score, hits[:, 0], has_match, recalls, recall, precision)


def precision_recall(score: np.ndarray, is_right: np.ndarray, matches: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision (K,) for each distinct threshold, the highest first.

    A query is accepted when its best score (Q,) reaches the threshold. precision = right / accepted, where accepting a
    query that has no match is a mistake; recall = right / queries that have a match.
    """
    order = np.argsort(-score, kind="stable")
    order = order[np.isfinite(score[order])]
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)  # equal scores are accepted together
    right = np.cumsum(is_right[order])[ends]
    return right / matches, right / (ends + 1)


@dataclass(frozen=True)
class Comparison:
    """Queries against a database.

    Attributes:
        model: what the images were compared by.
        similarity: (Q', D') of the images that can be judged, `truth.queries` by `truth.places`.
        right: (Q', D') bool.
        scores: by way to compare: `image`, and `sequence of N` where asked for.
    """

    database: ImageSet
    queries: ImageSet
    truth: Truth
    model: str
    similarity: np.ndarray
    right: np.ndarray
    scores: dict[str, PlaceScores]

    def figures(self) -> dict[str, Any]:
        """What `vslam place eval --json` prints."""
        return {
            "database": self.database.where,
            "query": self.queries.where,
            "database_images": len(self.database),
            "query_images": len(self.queries),
            "judged_database": len(self.truth.places),
            "judged_query": len(self.truth.queries),
            "model": self.model,
            "rule": self.truth.rule,
            "scores": {name: scores.figures() for name, scores in self.scores.items()},
        }


def compare(
    database: ImageSet,
    queries: ImageSet,
    truth: Truth,
    model: str,
    similarity: np.ndarray,
    gap: Gap | None = None,
    sequence: int = 0,
) -> Comparison:
    """Score similarities (Q, D) of all images, and those of sequences of `sequence` images where that is over 1.

    Args:
        gap: queries and database are one set, and a query is compared only with images so long before it.
    """
    similarity = similarity[np.ix_(truth.queries, truth.places)]
    right = truth.right[np.ix_(truth.queries, truth.places)]
    if gap is not None:
        times = gap.times(queries)
        is_before = times[truth.queries][:, None] - times[truth.places] >= gap.value
        similarity, right = np.where(is_before, similarity, np.float32(-np.inf)), right & is_before
    scores = {"image": score_places(similarity, right)}
    if sequence > 1:
        scores[f"sequence of {sequence}"] = score_places(sequence_scores(similarity, sequence), right)
    return Comparison(database, queries, truth, model, similarity, right, scores)


@dataclass(frozen=True)
class Gap:
    """How long before a query an image of the same set must be: images, or seconds."""

    value: float
    unit: str

    @staticmethod
    def parse(text: str) -> Gap:
        """Of `100` or `10s`.

        Raises:
            VslamError: anything else.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|frames?|f)?", text.strip())
        if not match or (match[2] != "s" and "." in match[1]) or not float(match[1]):
            raise VslamError(f"--gap {text}: expected images such as 100, or seconds such as 10s")
        return Gap(float(match[1]), "s" if match[2] == "s" else "frames")

    def times(self, images: ImageSet) -> np.ndarray:
        """When the images (N,) were taken, in the gap's unit."""
        if self.unit == "frames":
            return np.arange(len(images), dtype=np.float64)
        if images.timestamps is None:
            raise VslamError(f"--gap {self.value:g}s: {images.where} has no time stamps (rgb.txt); give it in images")
        return images.timestamps


def check_sets(database: ImageSet, queries: ImageSet, gap: Gap | None) -> None:
    """Refuse a set against itself without a gap, where every image finds itself, a gap between two sets, and too much.

    Raises:
        VslamError: see above.
    """
    if len(database) * len(queries) > MAX_PAIRS:
        sizes = f"{len(database)} and {len(queries)} images"
        raise VslamError(f"--database, --query: {sizes} make over {MAX_PAIRS:,} pairs; take every n-th image")
    same = queries.where == database.where
    if same and gap is None:
        raise VslamError(f"--database and --query are both {queries.where}: give --gap, or every image finds itself")
    if gap is not None and not same:
        raise VslamError(f"--gap: {database.where} and {queries.where} are two sets; a gap is for one set with itself")
