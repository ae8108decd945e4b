"""Noise from integer hashes: the same on every machine, and it never repeats."""

from __future__ import annotations

import numpy as np

from vslam.kernels import njit


@njit
def hash_unit(x, y, seed):
    """A number in [0, 1) of the integers `x y seed`; the mixing is splitmix64's finaliser (Steele et al., 2014)."""
    h = np.uint64(x) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(y) * np.uint64(0xD1B54A32D192ED03) + np.uint64(seed)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    h = h ^ (h >> np.uint64(31))
    return np.float64(h >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit
def _add_octave(out, cell_x, cell_y, amplitude, seed):
    """Add smooth value noise on a lattice of `cell_x` by `cell_y` pixels to `out` (H, W) float32."""
    for row in range(out.shape[0]):
        y = row / cell_y
        j = int(np.floor(y))
        v = y - j
        v = v * v * (3.0 - 2.0 * v)
        last = -1
        a = 0.0
        b = 0.0
        for column in range(out.shape[1]):
            x = column / cell_x
            i = int(np.floor(x))
            if i != last:  # a new cell: the values of its left and right side at this height
                last = i
                a = hash_unit(i, j, seed) * (1.0 - v) + hash_unit(i, j + 1, seed) * v
                b = hash_unit(i + 1, j, seed) * (1.0 - v) + hash_unit(i + 1, j + 1, seed) * v
            u = x - i
            u = u * u * (3.0 - 2.0 * u)
            out[row, column] += amplitude * (a + (b - a) * u - 0.5)


@njit
def cellular(cell, seed, owner, edge):
    """Cells around points jittered on a lattice of `cell` pixels (Worley, SIGGRAPH 1996).

    Fills `owner` (H, W) float32 in [0, 1), one value a cell, and `edge` (H, W) float32: how much farther the second
    nearest point is than the nearest, in cells; 0 on the border between two.
    """
    for row in range(owner.shape[0]):
        for column in range(owner.shape[1]):
            x, y = column / cell, row / cell
            i0, j0 = int(np.floor(x)), int(np.floor(y))
            best, second, value = 1e9, 1e9, 0.0
            for j in range(j0 - 1, j0 + 2):
                for i in range(i0 - 1, i0 + 2):
                    dx = i + hash_unit(i, j, seed) - x
                    dy = j + hash_unit(i, j, seed + 1) - y
                    d = dx * dx + dy * dy
                    if d < best:
                        second = best
                        best = d
                        value = hash_unit(i, j, seed + 2)
                    elif d < second:
                        second = d
            owner[row, column] = value
            edge[row, column] = np.sqrt(second) - np.sqrt(best)


def fractal(shape: tuple[int, int], cell: tuple[float, float], seed: int, octaves: int = 6, gain: float = 0.6):
    """Noise (H, W) float32 around 0, about +-0.5: octaves of halved cells, each `gain` times the one before.

    `cell` is the first octave's (width, height) in pixels; octaves finer than a pixel are left out.
    """
    out = np.zeros(shape, np.float32)
    amplitude, total = 1.0, 0.0
    for octave in range(octaves):
        size = (cell[0] / 2**octave, cell[1] / 2**octave)
        if octave and max(size) < 1.0:
            break
        _add_octave(out, max(size[0], 1.0), max(size[1], 1.0), amplitude, seed + 101 * octave)
        total += amplitude
        amplitude *= gain
    return out / np.float32(total * 0.6)
