"""What a frame sees of a local map: points looked for where they should appear, and the pose fitted to those found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vslam.config import TrackingConfig
from vslam.matching.window import CELL, search_projected
from vslam.tracking.pose import refine_pose
from vslam.types import Camera, Frame, LocalMap

REFINE_ROUNDS = 4
VAGUE = math.sqrt(2.0)  # times sigma, of a point that only the last frame saw: its place there is as inexact again
AS_SEEN = np.ones(1, np.float32)
UNKNOWN = np.zeros(6)
"""Weight of an expected pose that is none."""


class Followed(NamedTuple):
    """Features (K,) that show points of the last frame, mapped or not, at `xyz` (K, 3) in the world."""

    feature: np.ndarray
    xyz: np.ndarray


@dataclass(frozen=True)
class MapView:
    """What the frame saw of the local map: per feature `point` (N,) int32 the index of its map point or -1, the number
    of matches and of inliers, `visible` (M,) which points lie in view, and how many times less exact than their sigma
    the keypoints are (`noise`)."""

    T_cw: np.ndarray
    point: np.ndarray
    matches: int
    inliers: int
    visible: np.ndarray
    noise: float

    @property
    def share(self) -> float:
        """Inliers among the points that lie in view."""
        return self.inliers / max(1, int(np.count_nonzero(self.visible)))


class Viewer:
    """Looks at maps with one camera and one kind of features."""

    def __init__(self, camera: Camera, extractor: Any, config: TrackingConfig):
        self._camera, self._extractor, self._config = camera, extractor, config
        self._pinhole = camera.pinhole

    def see(
        self,
        frame: Frame,
        local_map: LocalMap,
        T_cw: np.ndarray,
        expected: np.ndarray | None = None,
        weight: np.ndarray = UNKNOWN,
        radius_px: float | None = None,
        followed: Followed | None = None,
    ) -> MapView:
        """Look for every point of the local map around its projection through `T_cw`, then improve the pose.

        `expected` (4, 4) with `weight` (6,) is what the motion model says; `radius_px`, at 640 pixels width, replaces
        `map_search_px`. Where the map has few points, or points of keyframes that lie askew, features `followed` from
        the last frame that show none of them hold the pose; they count for less and are not among the inliers.
        """
        settings = self._config
        radius = settings.map_search_px if radius_px is None else radius_px
        match, visible = self.search(
            frame, T_cw, local_map.xyz, local_map.normal, local_map.size, np.zeros(len(local_map), np.float32),
            local_map.words, radius, settings.map_search_sigmas, 0.0, settings.map_ratio,
        )  # fmt: skip
        rows = np.flatnonzero(match >= 0)
        feature, xyz = match[rows], local_map.xyz[rows]
        if followed is not None:
            new = ~np.isin(followed.feature, feature)
            feature, xyz = np.append(feature, followed.feature[new]), np.append(xyz, followed.xyz[new], axis=0)
        T_cw = T_cw.copy()
        vague = np.where(np.arange(len(feature)) < len(rows), 1.0, VAGUE).astype(np.float32)
        inlier, noise = self.refine(T_cw, frame, xyz, feature, expected, weight, vague)[1:]
        inlier = inlier[: len(rows)]
        inliers = int(np.count_nonzero(inlier))
        point = np.full(len(frame), -1, np.int32)
        point[match[rows[inlier]]] = rows[inlier]
        return MapView(T_cw, point, len(rows), inliers, visible, noise)

    def search(self, frame, T_cw, xyz, normal, size, angle, words, radius_px, radius_sigmas, max_turn, ratio):
        """`search_projected` with the settings of the run; `match` (M,) int32 and `visible` (M,) uint8."""
        match, distance = np.empty(len(xyz), np.int32), np.empty(len(xyz), np.float32)
        visible = np.empty(len(xyz), np.uint8)
        grid = frame.grid
        scale_factor = self._config.scale_factor if self._extractor.scale_pyramid else 0.0
        search_projected(
            T_cw, self._pinhole, self._camera.width, self._camera.height, xyz, normal, size, angle, words,
            frame.xy, frame.features.sigma, frame.features.angle, frame.words, np.ones(len(frame), np.uint8),
            grid.start, grid.items, grid.columns, grid.rows, CELL, radius_px * self._camera.width / 640, radius_sigmas,
            scale_factor, max_turn, np.float32(self._extractor.max_distance), np.float32(ratio), match, distance,
            visible,
        )  # fmt: skip
        return match, visible

    def refine(
        self,
        T_cw: np.ndarray,
        frame: Frame,
        xyz: np.ndarray,
        feature: np.ndarray,
        expected: np.ndarray | None = None,
        weight: np.ndarray = UNKNOWN,
        vague: np.ndarray = AS_SEEN,
    ) -> tuple[int, np.ndarray, float]:
        """Improve `T_cw` in place by points (K, 3) seen at `feature` (K,): inliers' number, which ones, and noise.

        Sigmas are multiplied by `vague` (K,).
        """
        inlier = np.empty(len(xyz), np.uint8)
        sigma, disparity_sigma = frame.features.sigma[feature] * vague, frame.disparity_sigma[feature] * vague
        count, noise = refine_pose(
            T_cw, self._pinhole, xyz, frame.xy[feature], frame.disparity[feature], sigma, disparity_sigma,
            T_cw if expected is None else expected, weight, REFINE_ROUNDS, inlier,
        )  # fmt: skip
        return count, inlier.astype(bool), noise
