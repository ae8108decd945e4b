"""Following the camera from the last frame to this one: what was seen there is looked for here, in the map or not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vslam.config import Config
from vslam.geometry import se3
from vslam.tracking.motion import ConstantVelocity
from vslam.tracking.relocalise import locate
from vslam.tracking.small_image import Small, SmallImages
from vslam.tracking.view import UNKNOWN, Followed, Viewer
from vslam.types import Camera, Frame, LocalMap, Reason


@dataclass(frozen=True)
class Posed:
    """The last tracked frame. `xyz` (N, 3) are its features' points in its own camera frame, `has_xyz` (N,) bool,
    `small` itself as a small image."""

    frame: Frame
    reference: int
    T_frame_reference: np.ndarray
    xyz: np.ndarray
    has_xyz: np.ndarray
    small: Small

    def T_cw(self, local_map: LocalMap) -> np.ndarray:
        """Its pose (4, 4) as the map is now."""
        return self.T_frame_reference @ local_map.T_cw[self.reference]


class Prediction(NamedTuple):
    """`T_frame_last` (4, 4): as the small images show it, and with the place the motion model `expected`. `is_sure`:
    the small images agree."""

    T_frame_last: np.ndarray
    expected: np.ndarray
    is_sure: bool


@dataclass(frozen=True)
class Estimate:
    """A pose on its way through the stages; None as `T_cw` means that the step failed."""

    T_cw: np.ndarray | None
    reason: Reason = Reason.NONE
    matches: int = 0
    expected: np.ndarray | None = None  # by the motion model
    followed: Followed | None = None
    is_sure: bool = False  # the small images say the same


class Follower:
    """Remembers the last tracked frame and how the camera moved."""

    def __init__(self, camera: Camera, extractor: Any, viewer: Viewer, config: Config):
        self._camera, self._extractor, self._viewer, self._settings = camera, extractor, viewer, config.tracking
        self._small_images = SmallImages(camera, config.depth.max_m)
        self._small: Small | None = None
        self._last: Posed | None = None
        self.motion = ConstantVelocity()

    def look(self, grey: np.ndarray, depth: np.ndarray | None) -> None:
        """A new frame: its image (H, W) and depth (H, W), None without."""
        self._small = self._small_images.make(grey, depth)

    def last_in(self, local_map: LocalMap) -> Posed | None:
        """The last tracked frame, if the local map still knows what it is relative to."""
        return self._last if self._last is not None and self._last.reference in local_map.T_cw else None

    def seconds_since(self, timestamp: float) -> float:
        """From the last tracked frame; infinity without one."""
        return math.inf if self._last is None else timestamp - self._last.frame.timestamp

    def predict(self, frame: Frame, last: Posed) -> Prediction:
        """The motion from the last frame to this one, before any feature is matched."""
        seconds = frame.timestamp - last.frame.timestamp
        T_frame_last, is_sure = self._small_images.align(self.motion.predict(seconds), last.small, self._small)
        return Prediction(T_frame_last, self.motion.turned(T_frame_last, seconds), is_sure)

    def weight(self, frame: Frame, expected: np.ndarray | None) -> np.ndarray:
        """How much the motion model's pose counts, (6,); zeros where there is none."""
        if expected is None or self._last is None:
            return UNKNOWN
        return self.motion.weight(frame.timestamp - self._last.frame.timestamp)

    # -- poses from the last frame ------------------------------------------------------------------------------

    def from_motion(self, frame: Frame, local_map: LocalMap) -> Estimate:
        """The last frame's points, each near where the prediction has it."""
        last = self.last_in(local_map)
        if last is None:
            return Estimate(None, Reason.FEW_MATCHES)
        ahead, wanted = self.predict(frame, last), self._settings.min_matches
        match = self._search(frame, last, ahead.T_frame_last)
        rows = np.flatnonzero(match >= 0)
        if len(rows) < wanted:
            return Estimate(None, Reason.FEW_MATCHES, len(rows))
        T_frame_last, T_last_world = ahead.T_frame_last.copy(), last.T_cw(local_map)
        inliers, inlier, _ = self._viewer.refine(
            T_frame_last, frame, last.xyz[rows], match[rows], ahead.expected, self.weight(frame, ahead.expected)
        )
        if inliers < wanted:
            return Estimate(None, Reason.FEW_MATCHES, len(rows))
        seen, T_world_last = rows[inlier], se3.inverse(T_last_world)
        followed = Followed(match[seen], last.xyz[seen] @ T_world_last[:3, :3].T + T_world_last[:3, 3])
        return Estimate(
            T_frame_last @ T_last_world, Reason.NONE, len(rows), ahead.expected @ T_last_world, followed, ahead.is_sure
        )

    def from_appearance(self, frame: Frame, local_map: LocalMap) -> Estimate:
        """The last frame's points by appearance alone: the motion was not as expected."""
        last = self.last_in(local_map)
        if last is None:
            return Estimate(None, Reason.FEW_MATCHES)
        known = np.flatnonzero(last.has_xyz)
        found = locate(
            frame, last.xyz[known], last.frame.words[known], self._camera, self._extractor.max_distance,
            self._settings.min_matches,
        )  # fmt: skip
        if found.T_cw is None:
            return Estimate(None, Reason.FEW_MATCHES, found.matches)
        return Estimate(found.T_cw @ last.T_cw(local_map), Reason.MOTION_TOO_LARGE, found.matches)

    def _search(self, frame: Frame, last: Posed, T_frame_last: np.ndarray) -> np.ndarray:
        """Which feature of this frame shows each of the last one's points; (N,), -1 for none."""
        settings = self._settings
        size = last.frame.features.sigma * np.linalg.norm(last.xyz, axis=1).astype(np.float32)
        known = np.flatnonzero(last.has_xyz)
        match = np.full(len(last.frame), -1, np.int32)
        match[known] = self._viewer.search(
            frame, T_frame_last, last.xyz[known], np.zeros((len(known), 3), np.float32), size[known],
            last.frame.features.angle[known], last.frame.words[known], settings.search_px, 0.0,
            math.radians(settings.max_turn_deg), 1.0,
        )[0]  # fmt: skip
        return match

    # -- what is kept between frames ----------------------------------------------------------------------------

    def forget(self) -> None:
        """Nothing is known of the camera's motion."""
        self._last = None
        self.motion.forget()

    def learn_motion(self, frame: Frame, local_map: LocalMap, T_cw: np.ndarray) -> None:
        """Learn how the camera came from the last frame to this one's pose (4, 4)."""
        last = self.last_in(local_map)
        if last is None:
            self.motion.forget()
            return
        self.motion.update(T_cw @ se3.inverse(last.T_cw(local_map)), frame.timestamp - last.frame.timestamp)

    def remember(
        self, frame: Frame, reference: int, T_frame_reference: np.ndarray, T_cw: np.ndarray, point: np.ndarray,
        local_map: LocalMap | None,
    ) -> None:  # fmt: skip
        """Keep this frame, posed, as the last one; its features show the map's points `point` (N,), -1 for none."""
        has = frame.disparity > 0
        depth = np.where(has, self._camera.pinhole[4] / np.where(has, frame.disparity, 1.0), 1.0)
        xyz = self._camera.unproject(frame.xy, depth)
        seen = np.flatnonzero(point >= 0)
        if local_map is not None and len(seen):
            xyz[seen] = local_map.xyz[point[seen]] @ T_cw[:3, :3].T + T_cw[:3, 3]
            has[seen] = True
        self._last = Posed(frame, reference, T_frame_reference, xyz, has, self._small)
