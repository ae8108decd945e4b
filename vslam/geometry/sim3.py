"""Similarities Sim(3): rigid motions with a scale, as matrices `S = [[s R, t], [0, 1]]` (..., 4, 4).

A map whose scale has drifted is bent by them: `S_cw` maps the mended world to what keyframe c itself takes for metres.
"""

from __future__ import annotations

import numpy as np

from vslam.geometry import se3

ROUNDING = 1e-9
"""A scale so near to 1 is that of a rigid motion."""


def compose(scale: np.ndarray | float, T: np.ndarray) -> np.ndarray:
    """The similarities (..., 4, 4) that come of rigid motions `T` (..., 4, 4) and then of `scale` (...)."""
    S = np.array(T, np.float64)
    S[..., :3, :] *= np.asarray(scale, np.float64)[..., None, None]
    return S


def split(S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The `scale` (...) and rigid `T` (..., 4, 4) that `compose` makes `S` (..., 4, 4) of; a rigid `S` itself.

    Of a camera's `S_cw`, `T` is the pose `T_cw` of the same centre and direction.
    """
    scale = np.cbrt(np.linalg.det(S[..., :3, :3]))
    scale = np.where(np.abs(scale - 1.0) < ROUNDING, 1.0, scale)
    T = np.array(S, np.float64)
    T[..., :3, :] /= scale[..., None, None]
    return scale, T


def inverse(S: np.ndarray) -> np.ndarray:
    """Inverse (..., 4, 4) of similarities."""
    scale, T = split(S)
    out = se3.inverse(T)
    out[..., :3, :3] /= scale[..., None, None]
    return out


def apply(S: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """Points (..., N, 3) after similarities or rigid motions `S` (..., 4, 4)."""
    return xyz @ np.swapaxes(S[..., :3, :3], -1, -2) + S[..., None, :3, 3]
