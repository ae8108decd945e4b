"""Symmetric 6x6-block systems stored by rows from their first non-zero block on, and their Cholesky solution.

Keyframes in the order of time see the same points as their neighbours, so that the rows are short; a dense system is
the case of full rows. Factors keep the envelope (George and Liu 1981, "Computer Solution of Large Sparse Positive
Definite Systems", chapter 4).

Element (i, j), first[i] * 6 <= j, is `values[origin[i] + j]`; every row ends with its full diagonal block.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from vslam.kernels import inner

PIVOT_FLOOR = 1e-15
"""A pivot below this part of its diagonal element is rounding: the matrix is not positive definite."""


def allocate(first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zeroed `values` and `origin` (6 F,) int64 for rows of blocks that start at block `first` (F,)."""
    blocks = np.arange(len(first))
    lengths = np.repeat(6 * (blocks + 1 - first), 6)
    ends = np.cumsum(lengths)
    origin = ends - lengths - np.repeat(6 * first, 6)
    return np.zeros(int(ends[-1]) if len(ends) else 0), origin.astype(np.int64)


@inner(fastmath={"reassoc", "contract", "nsz"})
def _dot(x, y):
    total = 0.0
    for k in range(x.shape[0]):
        total += x[k] * y[k]
    return total


@inner
def factorise(values, origin, first):
    """Turn the matrix into its Cholesky factor L (rows, in place); False if it is not positive definite."""
    for i in range(origin.shape[0]):
        row, begin = origin[i], 6 * first[i // 6]
        for j in range(begin, i):
            column, start = origin[j], max(begin, 6 * first[j // 6])
            known = _dot(values[row + start : row + j], values[column + start : column + j])
            values[row + j] = (values[row + j] - known) / values[column + j]
        diagonal = values[row + i]
        done = values[row + begin : row + i]
        pivot = diagonal - _dot(done, done)
        if not pivot > PIVOT_FLOOR * abs(diagonal):
            return False
        values[row + i] = sqrt(pivot)
    return True


@inner
def substitute(values, origin, first, x):
    """Solve `L L^T x = b` in place, x (6 F,) holds b at first."""
    n = origin.shape[0]
    for i in range(n):
        row = origin[i]
        total = x[i]
        for k in range(6 * first[i // 6], i):
            total -= values[row + k] * x[k]
        x[i] = total / values[row + i]
    for i in range(n - 1, -1, -1):
        row = origin[i]
        x[i] /= values[row + i]
        for k in range(6 * first[i // 6], i):
            x[k] -= values[row + k] * x[i]
