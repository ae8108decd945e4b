"""Distance of two descriptors, one name for both kinds: bits for words of uint64, 2 - 2 cos for unit float vectors."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from vslam.kernels import njit, popcount


def searchable(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors as kernels take them: (N, D) uint8 become (N, D / 8) uint64, float32 stay; both contiguous."""
    if descriptors.dtype == np.uint8:
        return np.ascontiguousarray(descriptors).view(np.uint64)
    if descriptors.dtype == np.uint64:
        return np.ascontiguousarray(descriptors)
    return np.ascontiguousarray(descriptors, np.float32)


def distance(a, i, b, j):
    """Distance of rows `a[i]` and `b[j]`, float32 (a kernel's building block; the types choose the kind)."""
    raise TypeError("only callable from a kernel")


@njit(inline="always")
def _hamming(a, i, b, j):
    bits = np.uint64(0)
    for w in range(a.shape[1]):
        bits += popcount(a[i, w] ^ b[j, w])
    return np.float32(bits)


@njit(fastmath=True)
def _cosine(a, i, b, j):
    dot = np.float32(0.0)
    for d in range(a.shape[1]):
        dot += a[i, d] * b[j, d]
    return np.float32(2.0) - np.float32(2.0) * dot


@overload(distance, inline="always")
def _choose(a, i, b, j):
    if a.dtype == types.uint64:
        return lambda a, i, b, j: _hamming(a, i, b, j)
    return lambda a, i, b, j: _cosine(a, i, b, j)
