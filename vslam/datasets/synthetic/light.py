"""Light that is painted into the textures: lamps with soft shadows, and less ambient light in corners."""

from __future__ import annotations

import numpy as np

from vslam.kernels import njit

AMBIENT = 0.55  # of the light in the open room that has no direction
REACH_M = 0.9  # how far a wall or a piece of furniture takes ambient light away


@njit
def _is_blocked(px, py, pz, dx, dy, dz, reach, boxes):
    """Whether the ray p + t d meets a box for t in (1e-3, `reach`); slab test in each box's own turned axes."""
    for k in range(boxes.shape[0]):
        c, s = boxes[k, 6], boxes[k, 7]
        x, y = px - boxes[k, 0], py - boxes[k, 1]
        o = (x * c + y * s, -x * s + y * c, pz - boxes[k, 2])
        d = (dx * c + dy * s, -dx * s + dy * c, dz)
        near, far = 1e-3, reach
        for axis in range(3):
            half = boxes[k, 3 + axis]
            if abs(d[axis]) < 1e-9:
                if abs(o[axis]) > half:
                    far = -1.0
            else:
                a, b = (-half - o[axis]) / d[axis], (half - o[axis]) / d[axis]
                near, far = max(near, min(a, b)), min(far, max(a, b))
        if near < far:
            return True
    return False


@njit
def illuminate(points, u, v, n, boxes, lamps, directions, room, out):
    """Light at `points` (N, 3) of a surface with axes `u v n` (3,), into `out` (N,), about 1 in the open.

    `boxes` (B, 8): centre, half sizes, cosine and sine of the yaw. `lamps` (L, 4): points that shine, and their power.
    `directions` (M, 3): cosine-weighted, in the surface's axes. `room` (3,): half width, half depth, height.
    """
    for k in range(points.shape[0]):
        px, py, pz = (points[k, 0] + n[0] * 4e-3, points[k, 1] + n[1] * 4e-3, points[k, 2] + n[2] * 4e-3)
        direct = 0.0
        for lamp in range(lamps.shape[0]):
            dx, dy, dz = lamps[lamp, 0] - px, lamps[lamp, 1] - py, lamps[lamp, 2] - pz
            square = dx * dx + dy * dy + dz * dz + 0.3
            cosine = (dx * n[0] + dy * n[1] + dz * n[2]) / np.sqrt(square)
            if cosine > 0.0 and not _is_blocked(px, py, pz, dx, dy, dz, 1.0, boxes):
                direct += lamps[lamp, 3] * cosine / square
        free = 0.0
        for m in range(directions.shape[0]):
            a, b, c = directions[m, 0], directions[m, 1], directions[m, 2]
            dx = a * u[0] + b * v[0] + c * n[0]
            dy = a * u[1] + b * v[1] + c * n[1]
            dz = a * u[2] + b * v[2] + c * n[2]
            ex, ey, ez = px + dx * REACH_M, py + dy * REACH_M, pz + dz * REACH_M
            inside = abs(ex) < room[0] and abs(ey) < room[1] and 0.0 < ez < room[2]
            if not _is_blocked(px, py, pz, dx, dy, dz, REACH_M, boxes):
                free += 1.0 if inside else 0.55
        out[k] = direct + AMBIENT * free / directions.shape[0]


def cosine_directions(count: int) -> np.ndarray:
    """Directions (count, 3) around +z with a density of cos(angle) / pi: Vogel's sunflower disc, lifted (Malley)."""
    k = np.arange(count) + 0.5
    radius, angle = np.sqrt(k / count), k * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - radius**2)], axis=1)
