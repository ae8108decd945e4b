"""When the map needs another keyframe."""

from __future__ import annotations

import math

import numpy as np

from vslam.config import TrackingConfig
from vslam.geometry import se3
from vslam.tracking.view import MapView
from vslam.types import Frame, LocalMap

FOUND_AGAIN = 0.3  # of a frame's features with depth, in the next one: what to expect before anything is known


class KeyframeRule:
    """Many points seen after the last keyframe are gone, much with depth is not in the map, or it was long ago."""

    def __init__(self, config: TrackingConfig):
        self._config = config
        self._frames = 0  # since the last keyframe
        self._map: LocalMap | None = None
        self._peak = 0  # the most inliers in that map
        self._asked = (-1, 0)  # the newest keyframe when the last one was asked for, and the inliers then

    @property
    def peak(self) -> int:
        """The most points of the present local map that a frame has seen."""
        return self._peak

    def begin(self, frame: Frame) -> None:
        """The first keyframe."""
        self._peak = round(FOUND_AGAIN * np.count_nonzero(frame.disparity))

    def pass_over(self) -> None:
        """A frame without a pose."""
        self._frames += 1

    def asks(self, frame: Frame, local_map: LocalMap, view: MapView, T_frame_reference: np.ndarray) -> bool:
        """Whether this frame shall be a keyframe."""
        self._frames += 1
        if local_map is not self._map:  # one whose points are not merged yet has more of them
            self._map, self._peak = local_map, 0
        self._peak = max(self._peak, view.inliers)
        if not self._is_due(frame, local_map, view, T_frame_reference):
            return False
        self._asked, self._frames = (local_map.reference, view.inliers), 0
        return True

    def _is_due(self, frame: Frame, local_map: LocalMap, view: MapView, T_frame_reference: np.ndarray) -> bool:
        settings = self._config
        if self._frames < settings.keyframe_min_gap:
            return False
        asked_at, inliers_then = self._asked
        if asked_at == local_map.reference and view.inliers >= settings.keyframe_ratio * inliers_then:
            return False  # mapping has not come to the last request yet, and not much has changed since
        if view.inliers < settings.surface_below:
            motion = se3.log(T_frame_reference)
            moved = np.linalg.norm(motion[:3]) > settings.keyframe_move_m
            turned = np.linalg.norm(motion[3:]) > math.radians(settings.keyframe_turn_deg)
            return bool(moved or turned)
        few_left = view.inliers < settings.keyframe_ratio * self._peak
        near = frame.disparity > 0
        held = np.count_nonzero(near & (view.point >= 0))
        much_new = held < settings.keyframe_min_held and np.count_nonzero(near) - held > settings.keyframe_min_new
        return bool(few_left or much_new or self._frames >= settings.keyframe_max_gap)
