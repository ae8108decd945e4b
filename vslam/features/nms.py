"""Kernels that turn a score map into keypoints: greedy suppression, then the place below a pixel."""

from __future__ import annotations

import numpy as np

from vslam.kernels import njit


@njit
def find_peaks(score, threshold, border, rows, columns, values):
    """Pixels of `score` (H, W) above `threshold` that no neighbour of the eight exceeds; returns how many.

    Written to `rows`, `columns` (int32) and `values` (float32), which also bound their number; `border` pixels on
    every side are left out. Of equal neighbours the first in reading order is a peak.
    """
    height, width = score.shape
    first, inner = max(border, 1), width - 2 * max(border, 1)
    is_peak = np.zeros(max(inner, 0) + 8, np.uint8)  # of one row, without branches; read eight at a time
    eights = is_peak[: len(is_peak) // 8 * 8].view(np.uint64)
    count = 0
    for y in range(first, height - first):
        above, row, below = score[y - 1], score[y], score[y + 1]
        for x in range(inner):
            u = x + first
            value = row[u]
            is_peak[x] = (
                (value > threshold)
                & (above[u - 1] < value)
                & (above[u] < value)
                & (above[u + 1] < value)
                & (row[u - 1] < value)
                & (row[u + 1] <= value)
                & (below[u - 1] <= value)
                & (below[u] <= value)
                & (below[u + 1] <= value)
            )
        for w in range((inner + 7) // 8):
            if not eights[w]:
                continue
            for x in range(8 * w, min(8 * w + 8, inner)):
                if is_peak[x]:
                    if count == len(values):
                        return count
                    rows[count], columns[count], values[count] = y, x + first, row[x + first]
                    count += 1
    return count


@njit
def suppress(rows, columns, order, radius, taken, kept):
    """Greedy suppression: go through peaks in `order`, keep one unless a kept one is within `radius` (Chebyshev).

    `taken` (H, W) uint8 must be zero and is left dirty; indices go to `kept`; returns how many.
    """
    height, width = taken.shape
    count = 0
    for k in range(len(order)):
        i = order[k]
        y, x = rows[i], columns[i]
        if taken[y, x]:
            continue
        kept[count] = i
        count += 1
        for v in range(max(0, y - radius), min(height, y + radius + 1)):
            for u in range(max(0, x - radius), min(width, x + radius + 1)):
                taken[v, u] = 1
    return count


@njit
def refine(score, rows, columns, xy, spread):
    """Centre of mass of `score` (H, W) in the 5x5 pixels about each peak, and the variance about it.

    `rows`, `columns` (N,) are at least 2 pixels from the border; written to `xy` (N, 2) and `spread` (N,), px^2, the
    mean of both axes.
    """
    for i in range(len(rows)):
        total, sx, sy, sxx = 0.0, 0.0, 0.0, 0.0
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                weight = score[rows[i] + dy, columns[i] + dx]
                total += weight
                sx += weight * dx
                sy += weight * dy
                sxx += weight * (dx * dx + dy * dy)
        total = max(total, 1e-12)
        mx, my = sx / total, sy / total
        xy[i, 0] = columns[i] + mx
        xy[i, 1] = rows[i] + my
        spread[i] = 0.5 * max(sxx / total - mx * mx - my * my, 0.0)


@njit
def sharpen(response, xy, steps):
    """Move each place `xy` (N, 2) half way to the peak of `response` (H, W) beside it, which is `steps` (N,) px away.

    The peak is that of the quadric through the nine pixels about the best pixel of the nine about the place (least
    squares, at most a pixel from its middle). H and W are at least 5.
    """
    height, width = response.shape
    for i in range(len(xy)):
        x = min(max(int(xy[i, 0] + 0.5), 2), width - 3)
        y = min(max(int(xy[i, 1] + 0.5), 2), height - 3)
        x, y = _best_of_nine(response, x, y)
        upper, row, lower = response[y - 1], response[y], response[y + 1]
        left, middle = upper[x - 1] + row[x - 1] + lower[x - 1], upper[x] + row[x] + lower[x]
        right = upper[x + 1] + row[x + 1] + lower[x + 1]
        top, bottom = upper[x - 1] + upper[x] + upper[x + 1], lower[x - 1] + lower[x] + lower[x + 1]
        gx, gy = (right - left) / 6, (bottom - top) / 6
        hxx = (left + right - 2 * middle) / 3
        hyy = (top + bottom - 2 * (row[x - 1] + row[x] + row[x + 1])) / 3
        hxy = (upper[x - 1] + lower[x + 1] - upper[x + 1] - lower[x - 1]) / 4
        det = hxx * hyy - hxy * hxy
        px, py = float(x), float(y)
        if hxx < 0.0 and det > 0.0:
            px -= min(max((hyy * gx - hxy * gy) / det, -1.0), 1.0)
            py -= min(max((hxx * gy - hxy * gx) / det, -1.0), 1.0)
        dx, dy = px - xy[i, 0], py - xy[i, 1]
        steps[i] = np.sqrt(dx * dx + dy * dy)
        xy[i, 0] += 0.5 * dx
        xy[i, 1] += 0.5 * dy


@njit
def _best_of_nine(values, x, y):
    """The pixel of the largest value among (x, y) and its neighbours; of equals (x, y), then the first in order."""
    best, bx, by = values[y, x], x, y
    for v in range(y - 1, y + 2):
        for u in range(x - 1, x + 2):
            if values[v, u] > best:
                best, bx, by = values[v, u], u, v
    return bx, by


@njit
def weigh(score, xy, weights, stride, out):
    """`score` (N,) times the value of `weights` (h, w) in the cell of each keypoint `xy` (N, 2); to `out` (N,)."""
    height, width = weights.shape
    half, size = np.float32(0.5), np.float32(stride)
    for i in range(len(xy)):
        x = min(max(int((xy[i, 0] + half) / size), 0), width - 1)
        y = min(max(int((xy[i, 1] + half) / size), 0), height - 1)
        out[i] = score[i] * weights[y, x]


@njit
def sample_unit(maps, stride, xy, out):
    """Bilinear descriptors at `xy` (N, 2) pixels, divided by their norm: `maps` (h, w, D) to `out` (N, D) float32.

    Cell i of a map of this stride has its centre at pixel `stride * i + (stride - 1) / 2`.
    """
    height, width, size = maps.shape
    for i in range(len(xy)):
        x0, y0, fx, fy = _cell(xy[i, 0], xy[i, 1], stride, width, height)
        a, b = (1 - fx) * (1 - fy), fx * (1 - fy)
        c, d = (1 - fx) * fy, fx * fy
        total = np.float32(0.0)
        for k in range(size):
            value = (
                a * maps[y0, x0, k] + b * maps[y0, x0 + 1, k] + c * maps[y0 + 1, x0, k] + d * maps[y0 + 1, x0 + 1, k]
            )
            out[i, k] = value
            total += value * value
        inverse = np.float32(1.0) / max(np.sqrt(total), np.float32(1e-12))
        for k in range(size):
            out[i, k] *= inverse


@njit
def sample_bits(maps, stride, xy, out):
    """Bilinear values at `xy` (N, 2) pixels, one bit each for being positive: `maps` (h, w, D) to (N, D / 8) uint8.

    Value k is bit `7 - k % 8` of byte `k // 8`, as `numpy.packbits` orders them.
    """
    height, width, size = maps.shape
    values = np.empty(size, np.float32)  # blended first, packed then: the first loop runs many values at once
    for i in range(len(xy)):
        x0, y0, fx, fy = _cell(xy[i, 0], xy[i, 1], stride, width, height)
        a, b = (1 - fx) * (1 - fy), fx * (1 - fy)
        c, d = (1 - fx) * fy, fx * fy
        upper, right, lower, both = maps[y0, x0], maps[y0, x0 + 1], maps[y0 + 1, x0], maps[y0 + 1, x0 + 1]
        for k in range(size):
            values[k] = (a * upper[k] + b * right[k]) + (c * lower[k] + d * both[k])
        for byte in range(size // 8):
            bits = 0
            for j in range(8):
                bits = (bits << 1) | (values[8 * byte + j] > 0)
            out[i, byte] = bits


@njit
def _cell(x, y, stride, width, height):
    """The cell up and left of a pixel and the shares (float32) of its right and lower neighbours, kept inside."""
    u = min(max((x - (stride - 1) * 0.5) / stride, 0.0), width - 1.0)
    v = min(max((y - (stride - 1) * 0.5) / stride, 0.0), height - 1.0)
    x0 = min(int(u), max(width - 2, 0))
    y0 = min(int(v), max(height - 2, 0))
    return x0, y0, np.float32(u - x0), np.float32(v - y0)
