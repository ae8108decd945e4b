"""How much of one view another one sees, from depth and poses: the truth that place networks learn."""

from __future__ import annotations

import numpy as np

GRID = (20, 15)
"""Points of a view (columns, rows) that are looked for in the others."""

AGREE = 0.05
"""Share of the depth by which a point may miss the surface that the other view has there."""

UNKNOWN = 255
"""Overlap of two views of which nobody knows whether they show the same place."""


def overlap_matrix(depths: np.ndarray, poses: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Percent (V, V) uint8 of the points of view i, those with depth, that view j sees too.

    `depths` (V, H, W) metres, 0 = none; `poses` (V, 4, 4) T_world_camera; `K` of the depth images.
    """
    count, height, width = depths.shape
    x = ((np.arange(GRID[0]) + 0.5) * width / GRID[0]).astype(int)
    y = ((np.arange(GRID[1]) + 0.5) * height / GRID[1]).astype(int)
    columns, rows = (grid.ravel() for grid in np.meshgrid(x, y))
    rays = np.linalg.inv(K) @ np.stack([columns, rows, np.ones(columns.size)])
    z = depths[:, rows, columns]
    points = np.einsum("vij,jn,vn->vni", poses[:, :3, :3], rays, z) + poses[:, None, :3, 3]
    known = z > 0
    seen = np.zeros((count, count))
    for j in range(count):
        T_cw = np.linalg.inv(poses[j])
        local = points.reshape(-1, 3) @ T_cw[:3, :3].T + T_cw[:3, 3]
        seen[:, j] = (is_seen(local, depths[j], K).reshape(known.shape) & known).sum(axis=1)
    return np.round(100 * seen / np.maximum(known.sum(axis=1, keepdims=True), 1)).astype(np.uint8)


def is_seen(points: np.ndarray, depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Which points (N, 3) in camera coordinates lie in the image and on the surface of its depth (H, W)."""
    front = points[:, 2] > 0.1
    z = np.where(front, points[:, 2], 1.0)
    u = np.rint(K[0, 0] * points[:, 0] / z + K[0, 2])
    v = np.rint(K[1, 1] * points[:, 1] / z + K[1, 2])
    inside = front & (u >= 0) & (v >= 0) & (u < depth.shape[1]) & (v < depth.shape[0])
    surface = depth[np.where(inside, v, 0).astype(int), np.where(inside, u, 0).astype(int)]
    return inside & (np.abs(surface - z) < np.maximum(AGREE * z, 0.05))


def turn_between(poses: np.ndarray) -> np.ndarray:
    """Angle (V, V) in radians between the viewing directions of poses (V, 4, 4)."""
    forward = poses[:, :3, 2]
    return np.arccos(np.clip(forward @ forward.T, -1, 1))
