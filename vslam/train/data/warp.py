"""Where a point of one image lies in another: random homographies, and depth with poses."""

from __future__ import annotations

import numpy as np


def random_homography(
    rng: np.random.Generator,
    size: tuple[int, int],
    angle: float = 30.0,
    scale: tuple[float, float] = (0.7, 1.4),
    perspective: float = 0.15,
    shift: float = 0.1,
) -> np.ndarray:
    """A 3x3 matrix that maps pixels of an image of `size` (width, height) to pixels of the warped one.

    Rotation up to +-`angle` degrees about the centre, scale log-uniform in `scale`, corners pulled by up to
    `perspective` of half the side, moved by up to `shift` of the side.
    """
    width, height = size
    half = np.array([width, height]) / 2.0
    turn = np.radians(rng.uniform(-angle, angle))
    zoom = np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1])))
    rotate = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    pulled = corners + rng.uniform(-perspective, perspective, (4, 2)) * half
    moved = pulled @ rotate.T + rng.uniform(-shift, shift, 2) * (width, height)
    centre = half - 0.5
    return four_point_homography(corners + centre, moved + centre)


def four_point_homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The homography that maps four points (4, 2) onto four others (direct linear transform)."""
    rows, right = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(right)), 1.0).reshape(3, 3)


def apply_homography(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Map pixels (N, 2) by a 3x3 matrix; float64 (N, 2)."""
    mapped = xy @ matrix[:, :2].T + matrix[:, 2]
    return mapped[:, :2] / mapped[:, 2:3]


def sample_depth(depth: np.ndarray, xy: np.ndarray, edge: float = 0.05) -> np.ndarray:
    """Bilinear depth at pixels (N, 2), float64 (N,); 0 outside, where one of four neighbours has none, and at edges.

    At an edge (neighbours further apart than `edge` of the depth) a pixel belongs to either side.
    """
    height, width = depth.shape
    x0, y0 = np.floor(xy[:, 0]).astype(int), np.floor(xy[:, 1]).astype(int)
    inside = (x0 >= 0) & (y0 >= 0) & (x0 < width - 1) & (y0 < height - 1)
    x0, y0 = np.clip(x0, 0, width - 2), np.clip(y0, 0, height - 2)
    around = np.stack([depth[y0, x0], depth[y0, x0 + 1], depth[y0 + 1, x0], depth[y0 + 1, x0 + 1]]).astype(np.float64)
    fx, fy = xy[:, 0] - x0, xy[:, 1] - y0
    weights = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])
    low, high = around.min(axis=0), around.max(axis=0)
    good = inside & (low > 0) & (high - low <= edge * high)
    return np.where(good, (around * weights).sum(axis=0), 0.0)


def trusted_depth(depth: np.ndarray, near: float, far: float, edge: float = 0.05) -> np.ndarray:
    """Depth (H, W) in metres with 0 where it is not between `near` and `far`, or at an edge: where the 3x3 pixels about
    it differ by more than `edge` of the farthest, or one of them has none."""
    import cv2

    square = np.ones((3, 3), np.uint8)
    low, high = cv2.erode(depth, square), cv2.dilate(depth, square)
    good = (low > 0) & (high - low <= edge * high) & (depth >= near) & (depth <= far)
    return np.where(good, depth, 0).astype(np.float32)


def carry(xy: np.ndarray, depth: np.ndarray, K: np.ndarray, T_to_from: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) at depths (N,) seen from another pose: pixels (N, 2) and depths (N,), 0 where there is none."""
    rays = np.concatenate([xy, np.ones((len(xy), 1))], axis=1) @ np.linalg.inv(K).T
    points = (rays * depth[:, None]) @ T_to_from[:3, :3].T + T_to_from[:3, 3]
    seen = (depth > 0) & (points[:, 2] > 0.1)
    z = np.where(seen, points[:, 2], 1.0)
    return (points / z[:, None] @ K.T)[:, :2], np.where(seen, points[:, 2], 0.0)


def warp_by_depth(
    xy: np.ndarray,
    depth_a: np.ndarray,
    depth_b: np.ndarray,
    K: np.ndarray,
    T_b_a: np.ndarray,
    relative: float = 0.02,
    cycle_px: float = 1.0,
    absolute: float = 0.02,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) of image a in image b, and which of them (N,) are truly seen there.

    A point counts when its depth is known and not at an edge, when b's own depth there agrees within `absolute` metres
    or the share `relative` (occlusion), and when the way back ends within `cycle_px` of its start.
    """
    z = sample_depth(depth_a, xy)
    there, z_there = carry(xy, z, K, T_b_a)
    measured = sample_depth(depth_b, there)
    agrees = np.abs(z_there - measured) < np.maximum(absolute, relative * z_there)
    back, _ = carry(there, measured, K, np.linalg.inv(T_b_a))
    closes = np.linalg.norm(back - xy, axis=1) < cycle_px
    return there, (z_there > 0) & (measured > 0) & agrees & closes


def warp_grid(
    depth_a: np.ndarray, depth_b: np.ndarray, K: np.ndarray, T_b_a: np.ndarray, relative: float = 0.04
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where every pixel of image a lies in image b: x, y float32 (H, W), and where b truly sees it, bool (H, W).

    Coarser than `warp_by_depth` (b's depth is read at the nearest pixel) and much faster: for maps, not for points.
    """
    height, width = depth_a.shape
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    turn = (K @ T_b_a[:3, :3] @ np.linalg.inv(K)).astype(np.float32)
    move = (K @ T_b_a[:3, 3]).astype(np.float32)
    x, y, z = (depth_a * (turn[r, 0] * columns + turn[r, 1] * rows + turn[r, 2]) + move[r] for r in range(3))
    seen = (depth_a > 0) & (z > 0.1)
    inverse = 1.0 / np.where(seen, z, 1.0)
    x, y = x * inverse, y * inverse
    seen &= (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    column, row = (np.where(seen, np.rint(v), 0).astype(np.int32) for v in (x, y))
    seen &= np.abs(depth_b[row, column] - z) < relative * z
    return x, y, seen
