"""The scene's shape as a guide: point-to-plane alignment of coarse depth grids, where texture or light fails.

The alignment is that of Chen and Medioni (1991) with projective association (Blais and Levine, 1995), joined with the
residuals of points and of the motion model in one system of normal equations.
"""

from __future__ import annotations

import math

import numpy as np

from vslam.config import DepthConfig
from vslam.geometry.se3 import exp_kernel
from vslam.kernels import inner, njit
from vslam.tracking.pose import FAST, add_expected, add_point, add_row, between, move, solve6
from vslam.types import Camera, Surface

BLOCK = 8  # pixels a side of a grid cell
SAMPLE = 2  # every second pixel of a cell is read


def build_surface(
    depth: np.ndarray, camera: Camera, config: DepthConfig, centres: np.ndarray, T_image_depth: np.ndarray
) -> Surface:
    """The coarse shape of a depth image (H, W) float32 metres, in the camera frame at the moment of the image.

    `centres` (h, w, 2) are the undistorted positions of the cells' centres, see `cell_centres`.
    """
    rows, columns = centres.shape[:2]
    xyz, normal = np.zeros((rows, columns, 3), np.float32), np.zeros((rows, columns, 3), np.float32)
    sigma = np.zeros((rows, columns), np.float32)
    fill_surface(
        depth, centres, camera.pinhole, T_image_depth, config.max_m, config.max_step, config.noise_m,
        config.noise_per_m2, config.noise_near_m, xyz, normal, sigma,
    )  # fmt: skip
    return Surface(xyz, normal, sigma)


def cell_centres(camera: Camera) -> np.ndarray:
    """Undistorted pixel positions (h, w, 2) float32 of the centres of all grid cells."""
    rows, columns = camera.height // BLOCK, camera.width // BLOCK
    v, u = np.mgrid[0:rows, 0:columns]
    centres = np.stack([u, v], axis=-1) * BLOCK + (BLOCK - 1) / 2
    return camera.undistort(centres.reshape(-1, 2).astype(np.float32)).reshape(rows, columns, 2)


@njit(fastmath=FAST)
def fill_surface(depth, centres, pinhole, T, max_m, max_step, noise_m, noise_per_m2, noise_near_m, xyz, normal, sigma):
    """Write points, normals and sigmas of all cells; a cell with holes or a step stays empty."""
    rows, columns = sigma.shape
    half = (BLOCK - 1) / 2
    for r in range(rows):
        for c in range(columns):
            total, du, dv, count, missing = 0.0, 0.0, 0.0, 0, 0
            nearest, farthest = 1e9, 0.0
            for j in range(0, BLOCK, SAMPLE):
                for i in range(0, BLOCK, SAMPLE):
                    z = depth[r * BLOCK + j, c * BLOCK + i]
                    if not (z > 0.0 and z <= max_m):
                        missing += 1
                        continue
                    total += 1.0 / z
                    du += i
                    dv += j
                    count += 1
                    nearest, farthest = min(nearest, z), max(farthest, z)
            if count <= missing or farthest - nearest > 2.0 * max_step * nearest:
                continue
            z = count / total
            x = (centres[r, c, 0] + du / count - half - pinhole[2]) / pinhole[0] * z
            y = (centres[r, c, 1] + dv / count - half - pinhole[3]) / pinhole[1] * z
            for k in range(3):
                xyz[r, c, k] = T[k, 0] * x + T[k, 1] * y + T[k, 2] * z + T[k, 3]
            sigma[r, c] = noise_m + noise_per_m2 * (z - noise_near_m) ** 2
    for r in range(1, rows - 1):
        for c in range(1, columns - 1):
            cell_normal(xyz, r, c, 4.0 * max_step, normal[r, c])


@inner(fastmath=FAST)
def cell_normal(xyz, r, c, max_step, out):
    """Normal of a cell from its four neighbours, towards the camera; left at zero across a step."""
    z = xyz[r, c, 2]
    if z <= 0.0:
        return
    for dr, dc in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        if abs(xyz[r + dr, c + dc, 2] - z) > max_step * z:  # an empty neighbour is at 0
            return
    ax, ay, az = (
        xyz[r, c + 1, 0] - xyz[r, c - 1, 0], xyz[r, c + 1, 1] - xyz[r, c - 1, 1], xyz[r, c + 1, 2] - xyz[r, c - 1, 2],
    )  # fmt: skip
    bx, by, bz = (
        xyz[r + 1, c, 0] - xyz[r - 1, c, 0], xyz[r + 1, c, 1] - xyz[r - 1, c, 1], xyz[r + 1, c, 2] - xyz[r - 1, c, 2],
    )  # fmt: skip
    nx, ny, nz = by * az - bz * ay, bz * ax - bx * az, bx * ay - by * ax
    length = math.sqrt(nx * nx + ny * ny + nz * nz)
    if length > 0.0:
        out[0], out[1], out[2] = nx / length, ny / length, nz / length


@njit(fastmath=FAST)
def align(
    T_cw, pinhole, xyz, uv, disparity, sigma, disparity_sigma, expected, expected_weight,
    surface_xyz, surface_normal, surface_sigma, other_xyz, other_normal, T_other_world, weight, reach_m, iterations,
):  # fmt: skip
    """Improve `T_cw` (4, 4) in place from points, from the motion model and from surfaces seen by other keyframes.

    Points as in `refine_pose` (already judged inliers). `surface_*` (h, w, ...) is this frame's shape, `other_xyz`,
    `other_normal` (K, h, w, 3) those of keyframes at `T_other_world` (K, 4, 4). Cells farther apart than `reach_m`
    (which shrinks to a third) are not taken for the same. `weight` is below 1, as neighbouring cells err alike.

    Returns:
        the share of this frame's cells with a normal that found a partner, and their RMS distance in metres.
    """
    H, g, step, update = np.empty((6, 6)), np.empty(6), np.empty(6), np.empty((3, 4))
    share, rms, is_robust = 0.0, 0.0, iterations > 0
    for iteration in range(iterations):
        reach = reach_m * (1.0 - 0.667 * iteration / max(1, iterations - 1))
        H[:], g[:] = 0.0, 0.0
        for i in range(len(xyz)):
            add_point(T_cw, pinhole, xyz[i], uv[i], disparity[i], sigma[i], disparity_sigma[i], is_robust, H, g)
        add_expected(T_cw, expected, expected_weight, 1.0, H, g)
        share, rms = add_surface(
            T_cw, pinhole, surface_xyz, surface_normal, surface_sigma, other_xyz, other_normal, T_other_world, weight,
            reach, H, g,
        )  # fmt: skip
        if not solve6(H, g, step):
            break
        exp_kernel(step, update)
        move(update, T_cw)
    return share, rms


@inner(fastmath=FAST)
def add_surface(
    T_cw, pinhole, surface_xyz, surface_normal, surface_sigma, other_xyz, other_normal, T_other_world, weight, reach,
    H, g,
):  # fmt: skip
    """Add point-to-plane rows to the normal equations of a left increment of `T_cw`; returns share and RMS."""
    rows, columns = surface_sigma.shape
    T = np.empty((4, 4))
    total, found, squares = 0, 0, 0.0
    for k in range(len(other_xyz)):
        between(T_other_world[k], T_cw, T)
        total = 0
        for r in range(rows):
            for c in range(columns):
                nx, ny, nz = surface_normal[r, c, 0], surface_normal[r, c, 1], surface_normal[r, c, 2]
                if nx == 0.0 and ny == 0.0 and nz == 0.0:
                    continue
                total += 1
                # of add_row's type in pose.py, lest it be compiled twice; float() would leave them float32
                here = surface_xyz[r, c]
                x, y, z = np.float64(here[0]), np.float64(here[1]), np.float64(here[2])
                px = T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3]
                py = T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3]
                pz = T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3]
                if pz < 0.1:
                    continue
                u = int((pinhole[0] * px / pz + pinhole[2] + 0.5) / BLOCK)
                v = int((pinhole[1] * py / pz + pinhole[3] + 0.5) / BLOCK)
                if u < 0 or v < 0 or u >= columns or v >= rows:
                    continue
                mx, my, mz = other_normal[k, v, u, 0], other_normal[k, v, u, 1], other_normal[k, v, u, 2]
                ox, oy, oz = px - other_xyz[k, v, u, 0], py - other_xyz[k, v, u, 1], pz - other_xyz[k, v, u, 2]
                if mx == 0.0 and my == 0.0 and mz == 0.0:
                    continue
                away = mx * ox + my * oy + mz * oz
                if abs(away) > reach or ox * ox + oy * oy + oz * oz > (reach + 0.05 * pz) ** 2:
                    continue
                # the partner's normal in this camera's frame
                a = T[0, 0] * mx + T[1, 0] * my + T[2, 0] * mz
                b = T[0, 1] * mx + T[1, 1] * my + T[2, 1] * mz
                d = T[0, 2] * mx + T[1, 2] * my + T[2, 2] * mz
                if a * nx + b * ny + d * nz < 0.9:
                    continue
                noise = surface_sigma[r, c]
                robust = 1.0 / (1.0 + (away / (3.0 * noise)) ** 2)
                add_row(a, b, d, x, y, z, weight * robust / (2.0 * noise * noise), away, H, g)
                found += 1
                squares += away * away
    if found == 0:
        return 0.0, 0.0
    return found / max(1, total * len(other_xyz)), math.sqrt(squares / found)
