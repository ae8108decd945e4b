"""How the camera moved since the last frame, seen in small, blurry images before any feature is matched.

A camera that turns otherwise than before leaves the constant-velocity model wrong by many pixels, and features that
look alike are then found in the wrong place. Two images of some ten pixels a side tell a few tenths of a degree: the
idea of Klein and Murray (ECCV 2008), here with the last frame's depth for all six degrees of freedom (Steinbruecker et
al., ICCV workshop 2011).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from vslam.geometry import se3
from vslam.geometry.se3 import exp_kernel
from vslam.kernels import inner, njit
from vslam.tracking.pose import FAST, add_expected, add_row, move, solve6
from vslam.types import Camera

COLUMNS = (40, 20)  # of the images, fine and coarse
WINDOW = (7, 5)  # pixels of them in which brightness and contrast are made equal
FLAT = 4.0  # grey levels: what varies less is no picture but noise
ITERATIONS = 10
RESIDUAL = 0.3  # standard deviation, of the window's: noise, and what the last frame did not see
FREE = 1.0 / np.repeat([0.02, 0.25], 3) ** 2  # m, rad: how far a frame may be from where it was expected
TURN_ONLY = FREE * np.repeat([1e6, 1.0], 3)
PICTURE = 0.15  # mean of absolute values: the dark, a blank wall and the like have less, and agree with anything
ALIKE = 0.25  # residual: 99 of 100 pairs of neighbouring frames have less, and those aligned wrongly more
TURNS = np.radians([0.0, -14.0, -7.0, 7.0, 14.0])  # about the vertical, tried one after another where they have more
ENOUGH = 0.3  # of the pixels must be seen in both


class Level(NamedTuple):
    """One small image: `grey` (h, w) float32 of equal brightness and contrast everywhere, `xyz` (h, w, 3) float32
    points in the camera frame with z = 0 for none, and its `pinhole` (fx, fy, cx, cy)."""

    grey: np.ndarray
    xyz: np.ndarray
    pinhole: np.ndarray


class Small(NamedTuple):
    """A frame made small: the `fine` level, and of what the coarse one is made when it is needed."""

    fine: Level
    image: np.ndarray
    depth: np.ndarray | None


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a small image lie: `rays` (h, w, 3) float32 with z = 1, rounded full-size pixels `row` and
    `column` (h, w), and for lenses that distort the maps of `cv2.remap`."""

    rays: np.ndarray
    row: np.ndarray
    column: np.ndarray
    pinhole: np.ndarray
    maps: tuple[np.ndarray, np.ndarray] | None


class SmallImages:
    """Makes the small images of one camera's frames, and lays one on the other."""

    def __init__(self, camera: Camera, max_m: float):
        self._max_m = max_m
        self._fine, self._coarse = (_grid(camera, columns) for columns in COLUMNS)

    def make(self, image: np.ndarray, depth: np.ndarray | None) -> Small:
        """A frame of a grey image (H, W) uint8 and its depth (H, W) in metres, made small."""
        image = cv2.resize(image, self._fine.row.shape[::-1], interpolation=cv2.INTER_AREA)
        return Small(self._level(self._fine, image, depth, WINDOW[0]), image, depth)

    def align(self, expected: np.ndarray, last: Small, this: Small) -> tuple[np.ndarray, bool]:
        """The last camera's pose (4, 4) in this one's frame, near `expected` (4, 4); whether the images agree too.

        It is `expected` itself where nothing near fits better, as in the dark. Where the finer images do not agree, the
        coarser ones are turned from several sides first.
        """
        fine = last.fine, this.fine
        before, after, T = _align(expected, *fine, FREE)
        if not after < ALIKE:
            coarse = self._make_coarse(last), self._make_coarse(this)
            turned = [_turned(turn) @ expected for turn in TURNS]
            start = min((_align(turn, *coarse, TURN_ONLY)[1:] for turn in turned), key=lambda found: found[0])[1]
            after, T = min((after, T), _align(start, *fine, FREE)[1:], key=lambda found: found[0])
        is_picture = np.abs(last.fine.grey).mean() > PICTURE
        return (T, is_picture and after < ALIKE) if after < before else (expected, is_picture and before < ALIKE)

    def _make_coarse(self, small: Small) -> Level:
        image = cv2.resize(small.image, self._coarse.row.shape[::-1], interpolation=cv2.INTER_AREA)
        return self._level(self._coarse, image, small.depth, WINDOW[1])

    def _level(self, grid: Grid, image: np.ndarray, depth: np.ndarray | None, window: int) -> Level:
        if grid.maps is not None:
            image = cv2.remap(image, *grid.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return Level(equalise(image, window), self._points(grid, depth), grid.pinhole)

    def _points(self, grid: Grid, depth: np.ndarray | None) -> np.ndarray:
        if depth is None:
            return np.zeros_like(grid.rays)
        z = depth[grid.row, grid.column]
        with np.errstate(invalid="ignore"):
            return np.where((z > 0) & (z < self._max_m), z, np.float32(0))[..., None] * grid.rays


def equalise(grey: np.ndarray, window: int) -> np.ndarray:
    """Grey values (h, w) as float32 less the mean around, divided by the deviation around: light drops out."""
    grey = grey.astype(np.float32)
    mean = cv2.blur(grey, (window, window))
    variance = cv2.blur(grey * grey, (window, window)) - mean * mean
    return (grey - mean) / np.sqrt(np.maximum(variance, 0) + FLAT * FLAT)


def _align(start: np.ndarray, last: Level, this: Level, weight: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The residual at `start`, that left in the end, and the pose there."""
    T = start.copy()
    before, after = align_image(T, start, weight, last.grey, last.xyz, this.grey, last.pinhole, ITERATIONS)
    return before, after, T


def _turned(angle: float) -> np.ndarray:
    return se3.exp(np.array([0.0, 0.0, 0.0, 0.0, angle, 0.0]))


@njit(fastmath=FAST)
def align_image(T, expected, weight, grey, xyz, other, pinhole, iterations):
    """Move `T` (4, 4) in place until `grey` (h, w), seen at the points `xyz` (h, w, 3), lies on `other` (h, w).

    `expected` (4, 4) counts with `weight` (6,). Returns the mean of the residuals' absolute values at the start and at
    the end, those above 3 RESIDUAL counted as that; infinity where too few pixels are seen in both.
    """
    H, g, step, update = np.empty((6, 6)), np.empty(6), np.empty(6), np.empty((3, 4))
    before, cost = np.inf, np.inf
    for iteration in range(iterations + 1):
        H[:], g[:] = 0.0, 0.0
        cost = add_image(T, grey, xyz, other, pinhole, H, g)
        if iteration == 0:
            before = cost
        if iteration == iterations or cost == np.inf:
            break
        add_expected(T, expected, weight, 0.0, H, g)
        if not solve6(H, g, step):
            break
        exp_kernel(step, update)
        move(update, T)
        size = 0.0
        for k in range(6):
            size += step[k] * step[k]
        if size < 1e-6:  # a millimetre
            break
    return before, cost


@inner(fastmath=FAST)
def add_image(T, grey, xyz, other, pinhole, H, g):
    """Add one row a pixel to the normal equations of a left increment of `T`; returns the cost, see `align_image`."""
    height, width = grey.shape
    fx, fy, cx, cy = pinhole[0], pinhole[1], pinhole[2], pinhole[3]
    total, count, known = 0.0, 0, 0
    for r in range(1, height - 1):
        for c in range(1, width - 1):
            p = xyz[r, c]
            if not p[2] > 0.0:
                continue
            known += 1
            x = T[0, 0] * p[0] + T[0, 1] * p[1] + T[0, 2] * p[2] + T[0, 3]
            y = T[1, 0] * p[0] + T[1, 1] * p[1] + T[1, 2] * p[2] + T[1, 3]
            z = T[2, 0] * p[0] + T[2, 1] * p[1] + T[2, 2] * p[2] + T[2, 3]
            if not z > 0.05:
                continue
            iz = 1.0 / z
            u, v = fx * x * iz + cx, fy * y * iz + cy
            if not (u >= 1.0 and v >= 1.0 and u < width - 2.0 and v < height - 2.0):
                continue
            i, j = int(u), int(v)
            a, b = u - i, v - j
            upper = other[j, i] + a * (other[j, i + 1] - other[j, i])
            lower = other[j + 1, i] + a * (other[j + 1, i + 1] - other[j + 1, i])
            left = other[j, i] + b * (other[j + 1, i] - other[j, i])
            right = other[j, i + 1] + b * (other[j + 1, i + 1] - other[j, i + 1])
            # the mean of both images' slopes converges from farther than either (Malis, ICRA 2004)
            du = 0.5 * (right - left) + 0.25 * (grey[r, c + 1] - grey[r, c - 1])
            dv = 0.5 * (lower - upper) + 0.25 * (grey[r + 1, c] - grey[r - 1, c])
            residual = grey[r, c] - (upper + b * (lower - upper))
            away = abs(residual)
            total += min(away, 3.0 * RESIDUAL)
            count += 1
            w = 1.0 / (RESIDUAL * RESIDUAL) * min(1.0, RESIDUAL / max(away, 1e-6))
            gx, gy = du * fx * iz, dv * fy * iz
            add_row(gx, gy, -(gx * x + gy * y) * iz, x, y, z, w, residual, H, g)
    return total / count if count > ENOUGH * known and count > 50 else np.inf


def _grid(camera: Camera, columns: int) -> Grid:
    block = camera.width / columns
    rows = max(1, round(camera.height / block))
    scale = np.array([columns / camera.width, rows / camera.height])
    fx, fy = np.array([camera.fx, camera.fy]) * scale
    cx, cy = (np.array([camera.cx, camera.cy]) + 0.5) * scale - 0.5
    v, u = np.mgrid[0:rows, 0:columns]
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u, np.float64)], axis=-1)
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    distortion = np.array(camera.distortion or (0.0,) * 5)
    x, y = cv2.initUndistortRectifyMap(camera.K, distortion, None, K, (columns, rows), cv2.CV_32FC1)
    maps = None
    if any(camera.distortion):
        maps = ((x + 0.5) * scale[0] - 0.5).astype(np.float32), ((y + 0.5) * scale[1] - 0.5).astype(np.float32)
    row = np.clip(np.rint(y), 0, camera.height - 1).astype(np.intp)
    column = np.clip(np.rint(x), 0, camera.width - 1).astype(np.intp)
    return Grid(rays.astype(np.float32), row, column, np.array([fx, fy, cx, cy]), maps)
