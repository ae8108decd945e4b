"""Guided search: where should these points appear, and which keypoint there looks like them?"""

from __future__ import annotations

import math

import numpy as np

from vslam.kernels import inner, njit
from vslam.matching.distance import distance

CELL = 16
"""Side of a grid cell, pixels: about the usual search radius."""
NEAR_M = 0.05  # a point closer to the camera's plane than this is not projected


@njit(fastmath=True)
def search_projected(
    T_cw, pinhole, width, height, xyz, normal, size, angle, words,
    frame_xy, frame_sigma, frame_angle, frame_words, frame_free, start, items, columns, rows, cell,
    radius_px, radius_sigmas, scale_factor, max_turn, max_distance, ratio, match, match_distance, visible,
):  # fmt: skip
    """Match points (M, 3) seen through `T_cw` with the keypoints of a frame, one to one; returns the matches' number.

    A point is looked for within `radius_px + radius_sigmas * sigma` of its projection, sigma being what its `size`
    (M,) predicts at its distance. A keypoint is a candidate if `frame_free` (N,) uint8, its sigma is within
    `scale_factor` of the predicted one (0: any), and its angle within `max_turn` of `angle` (M,) (0: any). The best is
    accepted below `max_distance` and below `ratio` times the second best of about the same scale. `normal` (M, 3) are
    directions from point to cameras, all zero for unknown. `match` (M,) int32 gets keypoint indices or -1, `visible`
    (M,) uint8 which points lie in view.
    """
    n = len(frame_xy)
    owner = np.full(n, -1, np.int32)
    low, high = np.float32(1e9), np.float32(0.0)
    for j in range(n):
        low, high = min(low, frame_sigma[j]), max(high, frame_sigma[j])
    found = 0
    for i in range(len(xyz)):
        match[i], visible[i] = -1, 0
        px, py, pz = xyz[i, 0], xyz[i, 1], xyz[i, 2]
        z = T_cw[2, 0] * px + T_cw[2, 1] * py + T_cw[2, 2] * pz + T_cw[2, 3]
        if not z > NEAR_M:
            continue
        x = T_cw[0, 0] * px + T_cw[0, 1] * py + T_cw[0, 2] * pz + T_cw[0, 3]
        y = T_cw[1, 0] * px + T_cw[1, 1] * py + T_cw[1, 2] * pz + T_cw[1, 3]
        u, v = pinhole[0] * x / z + pinhole[2], pinhole[1] * y / z + pinhole[3]
        if u < 0.0 or v < 0.0 or u >= width or v >= height:
            continue
        reach = math.sqrt(x * x + y * y + z * z)
        if not _faces(T_cw, normal[i], x / reach, y / reach, z / reach):
            continue
        visible[i] = 1
        sigma = min(max(size[i] / reach, low), high)
        radius = radius_px + radius_sigmas * sigma
        best, second, at = max_distance, np.float32(1e9), -1
        first_row, last_row = max(int((v - radius) / cell), 0), min(int((v + radius) / cell), rows - 1)
        first_column, last_column = max(int((u - radius) / cell), 0), min(int((u + radius) / cell), columns - 1)
        for row in range(first_row, last_row + 1):
            here = row * columns
            for k in range(start[here + first_column], start[here + last_column + 1]):
                j = items[k]
                du, dv = frame_xy[j, 0] - u, frame_xy[j, 1] - v
                if du * du + dv * dv > radius * radius or not frame_free[j]:
                    continue
                if scale_factor > 0.0 and (
                    frame_sigma[j] > sigma * scale_factor or sigma > frame_sigma[j] * scale_factor
                ):
                    continue
                if max_turn > 0.0 and abs(_turn(frame_angle[j] - angle[i])) > max_turn:
                    continue
                d = distance(words, i, frame_words, j)
                if d < best:
                    second, best, at = best if at >= 0 else second, d, j
                elif d < second:
                    second = d
        if at < 0 or best > ratio * second:
            continue
        rival = owner[at]
        if rival >= 0:
            if match_distance[rival] <= best:
                continue
            match[rival] = -1
            found -= 1
        owner[at] = i
        match[i] = at
        match_distance[i] = best
        found += 1
    return found


@inner(fastmath=True)
def _turn(angle):
    """The angle's equivalent within +-pi, for differences of two angles within +-2 pi."""
    if angle > math.pi:
        return angle - 2.0 * math.pi
    if angle < -math.pi:
        return angle + 2.0 * math.pi
    return angle


@inner(fastmath=True)
def _faces(T_cw, normal, x, y, z):
    """Whether the view direction (x, y, z) is within 60 degrees of one from which the point has been seen."""
    nx, ny, nz = normal[0], normal[1], normal[2]
    if nx == 0.0 and ny == 0.0 and nz == 0.0:
        return True
    cx = T_cw[0, 0] * nx + T_cw[0, 1] * ny + T_cw[0, 2] * nz
    cy = T_cw[1, 0] * nx + T_cw[1, 1] * ny + T_cw[1, 2] * nz
    cz = T_cw[2, 0] * nx + T_cw[2, 1] * ny + T_cw[2, 2] * nz
    return -(cx * x + cy * y + cz * z) > 0.5
