"""A pose without a guess: match the frame with map points by appearance, then PnP with RANSAC."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

from vslam.config import RecognitionConfig
from vslam.matching.brute import nearest
from vslam.tracking.view import MapView, Viewer
from vslam.types import Camera, Frame, LocalMap

RANSAC_ROUNDS = 300  # enough for 99.9 % at half outliers and four points
RANSAC_PX = 4.0  # reprojection error of an inlier: the noise of a coarse pyramid level


class Located(NamedTuple):
    """`T_cw` (4, 4) from the points' frame to the camera, None where too few agree on one; `matches` their number."""

    T_cw: np.ndarray | None
    matches: int


def locate(
    frame: Frame, xyz: np.ndarray, words: np.ndarray, camera: Camera, max_distance: float, min_inliers: int
) -> Located:
    """Match points (M, 3) described by `words` (M, W) with all features of a frame, mutually; solve for its pose."""
    index, distance, _, back = nearest(words, frame.words)
    if not len(back) or not len(index):
        return Located(None, 0)
    good = (distance < max_distance) & (back[index] == np.arange(len(xyz)))
    matches = int(good.sum())
    if matches < min_inliers:
        return Located(None, matches)
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        xyz[good], frame.xy[index[good]].astype(np.float64), camera.K, None,
        iterationsCount=RANSAC_ROUNDS, reprojectionError=RANSAC_PX, confidence=0.999, flags=cv2.SOLVEPNP_EPNP,
    )  # fmt: skip
    if not found or inliers is None or len(inliers) < min_inliers:
        return Located(None, matches)
    T_cw = np.eye(4)
    T_cw[:3, :3], T_cw[:3, 3] = cv2.Rodrigues(rotation)[0], translation.ravel()
    return Located(T_cw, matches)


class Recognised(NamedTuple):
    """`view` of the local map, None where the frame does not show that place, and `reason` why; `matches` by appearance
    and `inliers` of the best pose."""

    view: MapView | None
    matches: int
    inliers: int
    reason: str


class Recogniser:
    """Decides whether a frame shows a place of the map, and from where."""

    def __init__(self, camera: Camera, extractor: Any, viewer: Viewer, config: RecognitionConfig):
        self._camera, self._extractor, self._viewer, self._config = camera, extractor, viewer, config
        self.keyframes = config.keyframes

    def recognise(self, frame: Frame, place: LocalMap) -> Recognised:
        """Match the frame with what the place's reference keyframe sees, then look for all points of the place."""
        settings = self._config
        known = place.in_reference
        start = locate(
            frame, place.xyz[known], place.words[known], self._camera, self._extractor.max_distance,
            settings.min_matches,
        )  # fmt: skip
        if start.T_cw is None:
            few = start.matches < settings.min_matches
            return Recognised(None, start.matches, 0, "few matches" if few else "no pose")
        wide = self._viewer.see(frame, place, start.T_cw, radius_px=settings.search_px)
        view = self._viewer.see(frame, place, wide.T_cw)
        reason = "few inliers" if view.inliers < settings.min_inliers else ""
        reason = reason or ("looks different" if view.share < settings.min_share else "")
        return Recognised(None if reason else view, start.matches, view.inliers, reason)
