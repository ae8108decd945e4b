"""From a raw frame to what tracking works on: undistorted keypoints with disparity, in a lookup grid."""

from __future__ import annotations

import numpy as np

from vslam.config import DepthConfig
from vslam.geometry import se3
from vslam.kernels import njit
from vslam.matching.distance import searchable
from vslam.matching.window import CELL
from vslam.tracking.surface import build_surface
from vslam.types import Camera, Features, Frame, Grid, RawFrame

NOTHING_M = 1e9  # no depth is that far; some sensors give infinity, or what is not a number, for none


def describe_frame(
    raw: RawFrame, features: Features, camera: Camera, config: DepthConfig, cells: np.ndarray, T_depth_image: np.ndarray
) -> Frame:
    """Undistort, look up depth and colour, sort the features into a grid, and take the coarse shape of the scene.

    `cells` are the shape's grid, see `surface.cell_centres`; `T_depth_image` (4, 4) is the camera's motion from the
    moment of the image to that of the depth.
    """
    n = len(features)
    xy = camera.undistort(features.xy)
    disparity, sigma = np.zeros(n, np.float32), np.ones(n, np.float32)
    surface = None
    if raw.depth is not None:
        sample_disparity(
            raw.depth, features.xy, xy, camera.pinhole, T_depth_image, config.max_m, config.max_step, config.noise_m,
            config.noise_per_m2, config.noise_near_m, config.floor_px, disparity, sigma,
        )  # fmt: skip
        surface = build_surface(raw.depth, camera, config, cells, se3.inverse(T_depth_image))
    return Frame(
        raw.timestamp, features, xy, disparity, sigma, searchable(features.descriptors), lookup_grid(xy, camera),
        _colours(raw, features), surface,
    )  # fmt: skip


def lookup_grid(xy: np.ndarray, camera: Camera) -> Grid:
    """The features `xy` (N, 2) sorted by place."""
    columns, rows = camera.width // CELL + 1, camera.height // CELL + 1
    start, items = np.zeros(columns * rows + 1, np.int32), np.empty(len(xy), np.int32)
    fill_grid(xy, columns, rows, start, items)
    return Grid(start, items, columns, rows)


def _colours(raw: RawFrame, features: Features) -> np.ndarray:
    height, width = raw.image.shape[:2]
    columns = np.clip(np.rint(features.xy[:, 0]).astype(np.intp), 0, width - 1)
    rows = np.clip(np.rint(features.xy[:, 1]).astype(np.intp), 0, height - 1)
    picked = raw.image[rows, columns]
    return picked[:, ::-1].copy() if picked.ndim == 2 else np.repeat(picked[:, None], 3, axis=1)


@njit
def sample_disparity(
    depth, raw_xy, xy, pinhole, T_depth_image, max_m, max_step, noise_m, noise_per_m2, noise_near_m, floor_px,
    disparity, sigma,
):  # fmt: skip
    """Disparity of each keypoint from a depth image (H, W), 0 where the 3x3 neighbourhood there has a step.

    `raw_xy`, `xy` (N, 2) are the keypoints as seen and undistorted. The depth is looked up where the camera's motion
    `T_depth_image` between image and depth has carried them. 1 / z of a plane is linear in the pixel, so a
    least-squares line through nine values gives it below a pixel. The sensor's noise is
    `noise_m + noise_per_m2 (z - noise_near_m)^2` (Kinect: Nguyen et al., 3DIMPVT 2012).
    """
    height, width = depth.shape
    T, fx, fy, cx, cy, bf = T_depth_image, pinhole[0], pinhole[1], pinhole[2], pinhole[3], pinhole[4]
    for i in range(len(xy)):
        disparity[i] = 0.0
        u, v = int(raw_xy[i, 0] + 0.5), int(raw_xy[i, 1] + 0.5)
        if u < 0 or v < 0 or u >= width or v >= height:
            continue
        z = depth[v, u] if 0.0 < depth[v, u] < NOTHING_M else 2.0  # only the parallax of the shift depends on it
        rx, ry = (xy[i, 0] - cx) / fx, (xy[i, 1] - cy) / fy
        forward = T[2, 0] * rx + T[2, 1] * ry + T[2, 2]
        there = forward * z + T[2, 3]
        if there < 0.05:
            continue
        sx = fx * ((T[0, 0] * rx + T[0, 1] * ry + T[0, 2]) * z + T[0, 3]) / there + cx - xy[i, 0] + raw_xy[i, 0]
        sy = fy * ((T[1, 0] * rx + T[1, 1] * ry + T[1, 2]) * z + T[1, 3]) / there + cy - xy[i, 1] + raw_xy[i, 1]
        u, v = int(sx + 0.5), int(sy + 0.5)
        if u < 1 or v < 1 or u >= width - 1 or v >= height - 1:
            continue
        total, across, down, nearest, farthest, count = 0.0, 0.0, 0.0, NOTHING_M, 0.0, 0
        for dv in range(-1, 2):
            for du in range(-1, 2):
                z = depth[v + dv, u + du]
                if z > 0.0 and z < NOTHING_M:  # false for what is no number
                    nearest, farthest = min(nearest, z), max(farthest, z)
                    count += 1
                    total += 1.0 / z
                    across += du / z
                    down += dv / z
        z = depth[v, u]
        if count < 9 or z > max_m or farthest - nearest > max_step * nearest:
            continue
        inverse = total / 9.0 + across / 6.0 * (sx - u) + down / 6.0 * (sy - v)
        disparity[i] = bf * inverse * forward / (1.0 - inverse * T[2, 3])
        noise = noise_m + noise_per_m2 * (z - noise_near_m) ** 2
        sigma[i] = floor_px + bf * noise / (z * z)


@njit
def fill_grid(xy, columns, rows, start, items):
    """Counting sort of keypoints (N, 2) by grid cell; those outside the image go to the border cells."""
    cell = np.empty(len(xy), np.int32)
    for i in range(len(xy)):
        column = min(max(int(xy[i, 0] / CELL), 0), columns - 1)
        row = min(max(int(xy[i, 1] / CELL), 0), rows - 1)
        cell[i] = row * columns + column
        start[cell[i] + 1] += 1
    for c in range(columns * rows):
        start[c + 1] += start[c]
    place = start[:-1].copy()
    for i in range(len(xy)):
        items[place[cell[i]]] = i
        place[cell[i]] += 1
