"""What a keyframe sees of the map, in its own camera frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vslam.mapping.map import Map
from vslam.types import Camera


@dataclass(frozen=True)
class Seen:
    """Points `xyz` (M, 3) in the camera frame, each seen at pixel and disparity `uvd` (M, 3) with deviations `sigma`
    (M, 3), disparity 0 and its deviation 1 where there was no depth; `words` (M, W) describe them."""

    xyz: np.ndarray
    uvd: np.ndarray
    sigma: np.ndarray
    words: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)

    def __getitem__(self, rows: np.ndarray) -> Seen:
        return Seen(self.xyz[rows], self.uvd[rows], self.sigma[rows], self.words[rows])


def seen_by(map_: Map, keyframe: int, camera: Camera | None = None) -> Seen:
    """The points of the map that a keyframe sees; none where it is no more.

    They are where the map has them, or with a `camera` where the keyframe's own depth says, if there is any.
    """
    keyframes, points, slot = map_.keyframes, map_.points, map_.slot_of.get(keyframe, 0)
    feature = np.flatnonzero((keyframes.point[slot] >= 0) & (keyframes.id[slot] == keyframe))
    row = keyframes.point[slot, feature]
    T_cw, pixel, disparity = keyframes.T_cw[slot], keyframes.sigma[slot, feature], keyframes.disparity[slot, feature]
    deviation = np.where(disparity > 0, keyframes.disparity_sigma[slot, feature], 1.0)
    xyz = points.xyz[row] @ T_cw[:3, :3].T + T_cw[:3, 3]
    if camera is not None:
        has = disparity > 0
        depth = camera.fx * camera.baseline / disparity[has]
        xyz[has] = camera.unproject(keyframes.xy[slot, feature[has]], depth)
    return Seen(
        xyz,
        np.column_stack([keyframes.xy[slot, feature], disparity]).astype(np.float64),
        np.column_stack([pixel, pixel, deviation]).astype(np.float64),
        points.words[row],
    )
