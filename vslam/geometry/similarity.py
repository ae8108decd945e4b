"""The similarity between two point sets when some of the pairs are wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vslam.geometry.alignment import umeyama

SAMPLE = 3
"""Pairs that fix a similarity."""


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The least-squares similarities `S` (..., 4, 4) with `target ~ S source` of point sets (..., N, 3), many at once.

    See `alignment.umeyama`; where all points of a source are one, `S` holds nan.
    """
    scale, R, t = umeyama(source, target, with_scale=True)
    S = np.zeros((*source.shape[:-2], 4, 4))
    S[..., :3, :3] = np.asarray(scale)[..., None, None] * R
    S[..., :3, 3], S[..., 3, 3] = t, 1.0
    return S


def ransac_similarity(
    source: np.ndarray,
    target: np.ndarray,
    fits: Callable[[np.ndarray], np.ndarray],
    rounds: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """The similarity of three pairs of points (N, 3) that most pairs agree with (RANSAC, Fischler and Bolles 1981).

    `fits` tells for similarities (H, 4, 4) which pairs agree, (H, N) bool; all `rounds` are tried at once.

    Returns:
        S (4, 4), and which pairs agree with it (N,) bool; none does if there are fewer than three.
    """
    if len(source) < SAMPLE:
        return np.eye(4), np.zeros(len(source), bool)
    chosen = rng.random((rounds, len(source))).argpartition(SAMPLE - 1, axis=1)[:, :SAMPLE]  # no pair twice
    tried = fit_similarity(source[chosen], target[chosen])
    tried = tried[np.isfinite(tried).all(axis=(1, 2))]
    tried = tried[np.linalg.det(tried[:, :3, :3]) > 0]
    if not len(tried):
        return np.eye(4), np.zeros(len(source), bool)
    agree = fits(tried)
    best = int(agree.sum(axis=1).argmax())
    return tried[best], agree[best]
