"""Casting rays at textured rectangles: which one a pixel sees, how far away, and in what colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vslam.kernels import njit
from vslam.types import Camera

NEAR_M = 0.02
LEVELS = 9  # a texture and its halvings


@dataclass(frozen=True)
class Scene:
    """Rectangles as arrays: `corner u v n` (Q, 3) float64 with unit axes in world coordinates (u right, v down as seen
    from the front, n towards the viewer), `size` (Q, 2) metres along u and v, `scale` (Q,) texels per metre,
    `atlas` (Q, LEVELS, 3) int64 (first texel, rows, columns), `texels` (T, 3) uint8 BGR, `shiny` (Q,) bool: gives
    no depth."""

    corner: np.ndarray
    u: np.ndarray
    v: np.ndarray
    n: np.ndarray
    size: np.ndarray
    scale: np.ndarray
    atlas: np.ndarray
    texels: np.ndarray
    shiny: np.ndarray

    def seen_from(self, T_world_camera: np.ndarray) -> Scene:
        """The same with `corner u v n` in the coordinates of a camera."""
        R, t = T_world_camera[:3, :3], T_world_camera[:3, 3]
        turned = [np.ascontiguousarray(a @ R) for a in (self.corner - t, self.u, self.v, self.n)]
        return Scene(*turned, self.size, self.scale, self.atlas, self.texels, self.shiny)


def render(scene: Scene, camera: Camera, T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What an ideal camera sees: image (H, W, 3) uint8 BGR, depth (H, W) float64 m (inf: nothing), and the rectangle
    of each pixel (H, W) int16 (-1: nothing)."""
    local = scene.seen_from(T_world_camera)
    shape = (camera.height, camera.width)
    depth, owner, image = (np.full(shape, np.inf), np.full(shape, -1, np.int16), np.zeros((*shape, 3), np.uint8))
    cast(local.corner, local.u, local.v, local.n, local.size, camera.pinhole, depth, owner)
    shade(local.corner, local.u, local.v, local.n, local.size, local.scale, local.atlas, local.texels,
          camera.pinhole, depth, owner, image)  # fmt: skip
    return image, depth, owner


@njit
def _screen_bounds(corner, u, v, size, pinhole, width, height):
    """Pixel range (x0, x1, y0, y1), ends excluded, of a rectangle cut off at the near plane; empty when behind."""
    low_x, high_x, low_y, high_y = 1e9, -1e9, 1e9, -1e9
    for k in range(4):
        ax = corner + u * (size[0] * ((k ^ (k >> 1)) & 1)) + v * (size[1] * (k >> 1))
        j = (k + 1) & 3
        bx = corner + u * (size[0] * ((j ^ (j >> 1)) & 1)) + v * (size[1] * (j >> 1))
        for end in range(2):  # the start of this side, and where the side crosses the near plane
            x, y, z = ax[0], ax[1], ax[2]
            if end == 1:
                if (ax[2] < NEAR_M) == (bx[2] < NEAR_M):
                    continue
                w = (NEAR_M - ax[2]) / (bx[2] - ax[2])
                x, y, z = (ax[0] + w * (bx[0] - ax[0]), ax[1] + w * (bx[1] - ax[1]), NEAR_M)
            if z >= NEAR_M:
                px, py = (pinhole[0] * x / z + pinhole[2], pinhole[1] * y / z + pinhole[3])
                low_x, high_x = min(low_x, px), max(high_x, px)
                low_y, high_y = min(low_y, py), max(high_y, py)
    if low_x > high_x:
        return 0, 0, 0, 0
    return (int(max(low_x, 0.0)), int(min(high_x + 2.0, width)), int(max(low_y, 0.0)), int(min(high_y + 2.0, height)))


@njit
def cast(corner, u, v, n, size, pinhole, depth, owner):
    """Nearest rectangle along each pixel's ray; all in camera coordinates, see `Scene`.

    Lowers `depth` (H, W) float64 and sets `owner` (H, W) int16.
    """
    height, width = depth.shape
    fx, fy, cx, cy = pinhole[0], pinhole[1], pinhole[2], pinhole[3]
    for q in range(len(corner)):
        away = n[q, 0] * corner[q, 0] + n[q, 1] * corner[q, 1] + n[q, 2] * corner[q, 2]
        if away >= 0.0:  # seen from behind
            continue
        x0, x1, y0, y1 = _screen_bounds(corner[q], u[q], v[q], size[q], pinhole, width, height)
        su = corner[q, 0] * u[q, 0] + corner[q, 1] * u[q, 1] + corner[q, 2] * u[q, 2]
        sv = corner[q, 0] * v[q, 0] + corner[q, 1] * v[q, 1] + corner[q, 2] * v[q, 2]
        for row in range(y0, y1):
            dy = (row - cy) / fy
            for column in range(x0, x1):
                dx = (column - cx) / fx
                slope = n[q, 0] * dx + n[q, 1] * dy + n[q, 2]
                if slope < 0.0:
                    z = away / slope
                    if z < depth[row, column]:
                        s = z * (u[q, 0] * dx + u[q, 1] * dy + u[q, 2]) - su
                        t = z * (v[q, 0] * dx + v[q, 1] * dy + v[q, 2]) - sv
                        if 0.0 <= s <= size[q, 0] and 0.0 <= t <= size[q, 1]:
                            depth[row, column] = z
                            owner[row, column] = q


@njit
def _add_texel(texels, first, rows, columns, y, x, weight, colour):
    """Add `weight` times the bilinear value at texel coordinates (y, x) to `colour` (3,)."""
    y = min(max(y, 0.0), rows - 1.0)
    x = min(max(x, 0.0), columns - 1.0)
    i, j = int(y), int(x)
    b, a = weight * (y - i), x - j
    top = weight - b
    at = first + i * columns + j
    below = at + columns if i + 1 < rows else at
    right = 1 if j + 1 < columns else 0
    w00, w01, w10, w11 = top * (1.0 - a), top * a, b * (1.0 - a), b * a
    for c in range(3):
        colour[c] += w00 * texels[at, c] + w01 * texels[at + right, c] + w10 * texels[below, c]
        colour[c] += w11 * texels[below + right, c]


@njit
def _add_colour(q, corner, u, v, n, scale, atlas, texels, focal, dx, dy, z, weight, colour):
    """Add the colour of rectangle `q` at the ray (dx, dy, 1) and depth z: trilinear in the texture's pyramid."""
    x, y, h = z * dx - corner[q, 0], z * dy - corner[q, 1], z - corner[q, 2]
    s = (x * u[q, 0] + y * u[q, 1] + h * u[q, 2]) * scale[q]
    t = (x * v[q, 0] + y * v[q, 1] + h * v[q, 2]) * scale[q]
    cosine = -(n[q, 0] * dx + n[q, 1] * dy + n[q, 2]) / np.sqrt(dx * dx + dy * dy + 1.0)
    footprint = z / focal * scale[q] / np.sqrt(max(cosine, 0.05))  # texels under a pixel; the mean of both directions
    level = min(max(np.log2(footprint), 0.0), LEVELS - 1.001)
    base = int(level)
    for k in range(base, base + 2):
        rows, columns = atlas[q, k, 1], atlas[q, k, 2]
        part = level - base if k > base else 1.0 - (level - base)
        row, column = (t * rows / atlas[q, 0, 1] - 0.5, s * columns / atlas[q, 0, 2] - 0.5)
        _add_texel(texels, atlas[q, k, 0], rows, columns, row, column, weight * part, colour)


@njit
def _nearest(owner, row, column, corner, u, v, n, size, dx, dy):
    """The first rectangle along the ray (dx, dy, 1) among those of the 3x3 pixels around, and its depth; -1 if none."""
    best, z_best = -1, np.inf
    for i in range(max(row - 1, 0), min(row + 2, owner.shape[0])):
        for j in range(max(column - 1, 0), min(column + 2, owner.shape[1])):
            q = owner[i, j]
            if q < 0 or q == best:
                continue
            slope = n[q, 0] * dx + n[q, 1] * dy + n[q, 2]
            if slope >= 0.0:
                continue
            z = (n[q, 0] * corner[q, 0] + n[q, 1] * corner[q, 1] + n[q, 2] * corner[q, 2]) / slope
            if z < z_best:
                x, y, h = z * dx - corner[q, 0], z * dy - corner[q, 1], z - corner[q, 2]
                s = x * u[q, 0] + y * u[q, 1] + h * u[q, 2]
                t = x * v[q, 0] + y * v[q, 1] + h * v[q, 2]
                if 0.0 <= s <= size[q, 0] and 0.0 <= t <= size[q, 1]:
                    best, z_best = q, z
    return best, z_best


@njit
def shade(corner, u, v, n, size, scale, atlas, texels, pinhole, depth, owner, image):
    """Fill `image` (H, W, 3) uint8; pixels on a border between rectangles are the mean of four rays."""
    height, width = owner.shape
    colour = np.zeros(3)
    for row in range(height):
        for column in range(width):
            q = owner[row, column]
            border = False
            for k in range(-1, 2, 2):
                border |= owner[min(max(row + k, 0), height - 1), column] != q
                border |= owner[row, min(max(column + k, 0), width - 1)] != q
            dx, dy = (column - pinhole[2]) / pinhole[0], (row - pinhole[3]) / pinhole[1]
            colour[:] = 0.5
            if border:
                for k in range(4):
                    ex, ey = (dx + ((k & 1) - 0.5) * 0.5 / pinhole[0], dy + ((k >> 1) - 0.5) * 0.5 / pinhole[1])
                    p, z = _nearest(owner, row, column, corner, u, v, n, size, ex, ey)
                    if p < 0:
                        p, z = q, depth[row, column]
                    if p >= 0:
                        _add_colour(p, corner, u, v, n, scale, atlas, texels, pinhole[0], ex, ey, z, 0.25, colour)
            elif q >= 0:
                z = depth[row, column]
                _add_colour(q, corner, u, v, n, scale, atlas, texels, pinhole[0], dx, dy, z, 1.0, colour)
            for c in range(3):
                image[row, column, c] = np.uint8(min(colour[c], 255.0))
