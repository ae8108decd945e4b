"""Nearest neighbours between two whole sets of descriptors."""

from __future__ import annotations

import numpy as np

from vslam.kernels import njit, popcount
from vslam.matching.distance import searchable


def nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Best and second best of `b` (M, D) for every row of `a` (N, D), and the best of `a` for every row of `b`.

    Returns:
        index (N,) int32 into b (-1 if b is empty), distance (N,) and second (N,) float32 (inf where there is none),
        back (M,) int32 into a. Hamming distance in bits for uint8, 2 - 2 cos for unit float32 descriptors.
    """
    index, back = np.full(len(a), -1, np.int32), np.full(len(b), -1, np.int32)
    best, second = np.full(len(a), np.inf, np.float32), np.full(len(a), np.inf, np.float32)
    if len(a) and len(b):
        back_best = np.full(len(b), np.inf, np.float32)
        if a.dtype in (np.uint8, np.uint64):
            nearest_hamming(searchable(a), searchable(b), index, best, second, back, back_best)
        else:
            similarity = np.matmul(searchable(a), searchable(b).T)  # BLAS is five times faster than a loop of ours
            nearest_similar(similarity, index, best, second, back, back_best)
    return index, best, second, back


@njit
def nearest_hamming(a, b, index, best, second, back, back_best):
    """`nearest` for words (N, W), (M, W) uint64; the outputs come in as -1 and inf."""
    row = np.empty(len(b), np.uint16)
    for i in range(len(a)):
        for j in range(len(b)):
            bits = np.uint64(0)
            for w in range(a.shape[1]):
                bits += popcount(a[i, w] ^ b[j, w])
            row[j] = bits
        one, two, at = np.uint16(65535), np.uint16(65535), -1
        for j in range(len(b)):
            d = row[j]
            if d < two:
                if d < one:
                    two, one, at = one, d, j
                else:
                    two = d
            if d < back_best[j]:
                back_best[j] = d
                back[j] = i
        index[i] = at
        best[i] = one
        second[i] = two if two < 65535 else np.inf


@njit
def nearest_similar(similarity, index, best, second, back, back_best):
    """`nearest` from a matrix of cosines (N, M) float32."""
    for i in range(similarity.shape[0]):
        one, two, at = np.float32(np.inf), np.float32(np.inf), -1
        for j in range(similarity.shape[1]):
            d = np.float32(2.0) - np.float32(2.0) * similarity[i, j]
            if d < two:
                if d < one:
                    two, one, at = one, d, j
                else:
                    two = d
            if d < back_best[j]:
                back_best[j] = d
                back[j] = i
        index[i] = at
        best[i] = one
        second[i] = two
