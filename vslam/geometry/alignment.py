"""The similarity or rigid motion that brings one point set closest to another."""

from __future__ import annotations

import numpy as np


def umeyama(source: np.ndarray, target: np.ndarray, with_scale: bool = False) -> tuple[float, np.ndarray, np.ndarray]:
    """The least-squares `(s, R, t)` with `target ~ s * R @ source + t`.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991,
    eq. 34-42. Points on a line or fewer than three leave the rotation partly free; one minimiser is returned.

    Args:
        source, target: (N, 3) float64 corresponding points, N >= 1.
        with_scale: also estimate the scale; otherwise s = 1.

    Returns:
        s, R (3, 3), t (3,). With scale and all source points equal, s is nan.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    U, singular, Vt = np.linalg.svd(b.T @ a / len(a))
    signs = np.ones(3)
    if np.linalg.det(U) * np.linalg.det(Vt) < 0:  # the best orthogonal matrix is a mirror: take the best rotation
        signs[2] = -1.0
    R = (U * signs) @ Vt
    s = 1.0
    if with_scale:
        variance = (a**2).sum() / len(a)
        s = float(singular @ signs / variance) if variance > 0 else float("nan")
    return s, R, target_mean - s * R @ source_mean
