"""The similarity or rigid motion that brings one point set closest to another."""

from __future__ import annotations

import numpy as np


def umeyama(source: np.ndarray, target: np.ndarray, with_scale: bool = False) -> tuple[float, np.ndarray, np.ndarray]:
    """The least-squares `(s, R, t)` with `target ~ s * R @ source + t`, of one pair of point sets or of many at once.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991,
    eq. 34-42. Points on a line or fewer than three leave the rotation partly free; one minimiser is returned.

    Args:
        source, target: (..., N, 3) float64 corresponding points, N >= 1.
        with_scale: also estimate the scale; otherwise s = 1.

    Returns:
        s (...), R (..., 3, 3), t (..., 3). With scale and all source points equal, s is nan.
    """
    source_mean, target_mean = source.mean(axis=-2), target.mean(axis=-2)
    a, b = source - source_mean[..., None, :], target - target_mean[..., None, :]
    U, singular, Vt = np.linalg.svd(np.swapaxes(b, -1, -2) @ a / a.shape[-2])
    is_mirror = np.linalg.det(U) * np.linalg.det(Vt) < 0  # a rotation is wanted, be it a little worse
    signs = np.ones_like(singular)
    signs[..., 2] = np.where(is_mirror, -1.0, 1.0)
    R = (U * signs[..., None, :]) @ Vt
    s = np.ones(source.shape[:-2])
    if with_scale:
        variance = (a**2).sum(axis=(-1, -2)) / a.shape[-2]
        s = (singular * signs).sum(axis=-1) / np.where(variance > 0, variance, np.nan)
    return s[()], R, target_mean - s[..., None] * np.einsum("...ij,...j->...i", R, source_mean)
