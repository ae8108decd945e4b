"""A pose without a guess: match the frame with map points by appearance, then PnP with RANSAC."""

from __future__ import annotations

import cv2
import numpy as np

from vslam.matching.brute import nearest
from vslam.types import Camera, Frame, LocalMap

RANSAC_ROUNDS = 300  # enough for 99.9 % at half outliers and four points
RANSAC_PX = 4.0  # reprojection error of an inlier: the noise of a coarse pyramid level


def locate(
    frame: Frame, local_map: LocalMap, among: np.ndarray, camera: Camera, max_distance: float, min_inliers: int
) -> tuple[np.ndarray | None, int]:
    """`T_cw` (4, 4) from mutual nearest neighbours of the map points `among` (M,) bool, and the number of matches.

    The pose is None where fewer than `min_inliers` points agree on one.
    """
    rows = np.flatnonzero(among)
    index, distance, _, back = nearest(local_map.words[rows], frame.words)
    if not len(back):
        return None, 0
    good = (distance < max_distance) & (back[index] == np.arange(len(rows)))
    matches = int(good.sum())
    if matches < min_inliers:
        return None, matches
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        local_map.xyz[rows[good]], frame.xy[index[good]].astype(np.float64), camera.K, None,
        iterationsCount=RANSAC_ROUNDS, reprojectionError=RANSAC_PX, confidence=0.999, flags=cv2.SOLVEPNP_EPNP,
    )  # fmt: skip
    if not found or inliers is None or len(inliers) < min_inliers:
        return None, matches
    T_cw = np.eye(4)
    T_cw[:3, :3], T_cw[:3, 3] = cv2.Rodrigues(rotation)[0], translation.ravel()
    return T_cw, matches
