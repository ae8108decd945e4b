"""Synthetic worlds with known truth: a painted room seen through a pinhole, and bare points with descriptors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from inspect import signature

import cv2
import numpy as np

from vslam.config import DepthConfig
from vslam.geometry import se3
from vslam.mapping.local_map import build_local_map
from vslam.mapping.map import Map
from vslam.tracking.frame import describe_frame
from vslam.types import Camera, Features, Frame, KeyframeRequest, LocalMap, RawFrame

CAMERA = Camera(262.5, 262.5, 159.5, 119.5, 320, 240)
ROOM_M = np.array([2.2, 1.4, 2.6])
"""Half the room's sides along x, y (down), z."""
TEXELS_PER_M = 128
FPS = 30.0


@cache
def _paint(wall: int) -> np.ndarray:
    """A wall full of corners: rectangles of all sizes and greys, float32 (H, W)."""
    rng = np.random.default_rng(wall)
    sides = np.delete(ROOM_M, wall // 2) * 2 * TEXELS_PER_M
    height, width = int(sides[0]), int(sides[1])
    paint = np.full((height, width), 128.0, np.float32)
    for size in (160, 80, 40, 20, 10):
        for _ in range(int(1.5 * height * width / size**2)):
            row, column = rng.integers(-size // 2, height), rng.integers(-size // 2, width)
            tall, wide = rng.integers(size // 3, size, 2)
            paint[max(row, 0) : row + tall, max(column, 0) : column + wide] = rng.integers(20, 236)
    return cv2.GaussianBlur(paint, (0, 0), 0.8)


def render(T_wc: np.ndarray, camera: Camera = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    """What a camera in the room sees: grey image (H, W) uint8, exact depth (H, W) float32."""
    rays = _rays(camera) @ T_wc[:3, :3].T
    centre = T_wc[:3, 3]
    with np.errstate(divide="ignore"):
        reach = (np.where(rays > 0, ROOM_M, -ROOM_M) - centre) / rays  # to the wall of each axis, in depth
    axis = np.argmin(reach, axis=2)
    depth = np.take_along_axis(reach, axis[..., None], axis=2)[..., 0]
    hit = centre + depth[..., None] * rays
    image = np.zeros(depth.shape, np.float32)
    for k in range(6):
        here = (axis == k // 2) & ((rays[..., k // 2] > 0) == (k % 2))
        if here.any():
            place = (np.delete(hit + ROOM_M, k // 2, axis=2) * TEXELS_PER_M - 0.5).astype(np.float32)
            x, y = place[..., 1], place[..., 0]
            paint = cv2.remap(_paint(k), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            image[here] = paint[here]
    return np.rint(image).astype(np.uint8), depth.astype(np.float32)


@cache
def _rays(camera: Camera) -> np.ndarray:
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    xy = np.stack([x, y], axis=-1).reshape(-1, 2)
    return camera.unproject(xy, np.ones(len(xy))).reshape(camera.height, camera.width, 3)


def walk(frames: int) -> np.ndarray:
    """`T_wc` (N, 4, 4) of a hand-held camera: a slow round about the middle of the room, at the origin first."""
    t = np.arange(frames) / FPS
    sine = np.stack([np.sin(2 * np.pi * f * t) for f in (0.3, 0.4, 0.2, 0.35, 0.25, 0.45)], axis=1)
    return se3.exp(sine * (0.3, 0.15, 0.3, 0.12, 0.25, 0.1))


@cache
def filmed(frames: int, camera: Camera = CAMERA) -> tuple[RawFrame, ...]:
    """The walk as frames at 30 Hz; kept, so treat as read-only."""
    views = [render(T_wc, camera) for T_wc in walk(frames)]
    return tuple(RawFrame(k / FPS, image, depth) for k, (image, depth) in enumerate(views))


# -- bare points ------------------------------------------------------------------------------------------------


class ByNumber:
    """Stands for an extractor: what mapping and tracking ask of one, for descriptors of random bits."""

    metric = "hamming"
    scale_pyramid = False
    max_distance = 64.0


@dataclass(frozen=True)
class Points:
    """`xyz` (P, 3) world points, each with a descriptor (P, 32) uint8 of its own: random ones differ by 128 bits."""

    xyz: np.ndarray
    descriptors: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)


def scatter(count: int, seed: int = 0) -> Points:
    """Points in front of a camera at the origin, 1.5 to 4 m away, inside its picture and somewhat beside it."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform((-40, -40), (CAMERA.width + 40, CAMERA.height + 40), (count, 2))
    return Points(CAMERA.unproject(xy, rng.uniform(1.5, 4.0, count)), rng.integers(0, 256, (count, 32), np.uint8))


def make_features(xy: np.ndarray, descriptors: np.ndarray, sigma: np.ndarray | float = 1.0) -> Features:
    """Features at `xy` (N, 2) with what is not given left plain."""
    n = len(xy)
    zeros, sigma = np.zeros(n, np.float32), np.broadcast_to(np.float32(sigma), n).copy()
    return Features(np.ascontiguousarray(xy, np.float32), sigma, zeros + 1, np.zeros(n, np.uint8), zeros, descriptors)


def describe(raw: RawFrame, features: Features, camera: Camera = CAMERA) -> Frame:
    """`describe_frame` by the default settings, image and depth being of one moment."""
    options, known = {}, signature(describe_frame).parameters
    if "cells" in known:
        from vslam.tracking.surface import cell_centres

        options["cells"] = cell_centres(camera)
    if "T_depth_image" in known:
        options["T_depth_image"] = np.eye(4)
    return describe_frame(raw, features, camera, DepthConfig(), **options)


def make_frame(features: Features, timestamp: float = 0.0, disparity: np.ndarray | None = None, disparity_sigma=0.3):
    """A `Frame` of these features with disparities (N,) as given, none for None."""
    raw = RawFrame(timestamp, np.zeros((CAMERA.height, CAMERA.width), np.uint8))
    frame = describe(raw, features)
    if disparity is None:
        return frame
    sigma = np.full(len(frame), disparity_sigma, np.float32)
    return replace(frame, disparity=disparity.astype(np.float32), disparity_sigma=sigma)


def see(points: Points, T_cw: np.ndarray, timestamp: float = 0.0, noise_px: float = 0.0, seed: int = 0, depth=True):
    """What a camera sees of the points.

    Returns:
        Frame, and which point each of its features shows (N,).
    """
    rng = np.random.default_rng(seed)
    p = points.xyz @ T_cw[:3, :3].T + T_cw[:3, 3]
    uv = CAMERA.project(np.where(p[:, 2:] > 0.1, p, 1.0))
    inside = (p[:, 2] > 0.1) & (uv >= 0).all(axis=1) & (uv <= (CAMERA.width - 1, CAMERA.height - 1)).all(axis=1)
    shown = rng.permutation(np.flatnonzero(inside))
    n = len(shown)
    xy = uv[shown] + noise_px * rng.normal(size=(n, 2))
    disparity = CAMERA.pinhole[4] / p[shown, 2] + 0.3 * noise_px * rng.normal(size=n)
    return make_frame(make_features(xy, points.descriptors[shown]), timestamp, disparity if depth else None), shown


def make_local_map(points: Points, T_cw: np.ndarray | None = None) -> LocalMap:
    """The points, rows in their order, as keyframe 0 at `T_cw` (default: the origin) saw them all."""
    T_cw = np.eye(4) if T_cw is None else T_cw
    xy = CAMERA.project(points.xyz @ T_cw[:3, :3].T + T_cw[:3, 3])
    map_ = Map()
    slot = map_.insert(request(make_frame(make_features(xy, points.descriptors)), -1, T_cw), len(points))
    map_.add_points(slot, np.arange(len(points)), points.xyz)
    return build_local_map(map_, slot, 1)


def request(frame: Frame, reference: int, T_frame_reference: np.ndarray, row=None, generation=None) -> KeyframeRequest:
    """A keyframe request whose features show the map points `row` (N,), none for None."""
    none = np.full(len(frame), -1, np.int32)
    return KeyframeRequest(
        frame=frame,
        reference=reference,
        T_frame_reference=T_frame_reference,
        row=none if row is None else row.astype(np.int32),
        generation=np.zeros(len(frame), np.int32) if generation is None else generation.astype(np.int32),
        visible_row=np.empty(0, np.int32),
        found_row=np.empty(0, np.int32),
    )
