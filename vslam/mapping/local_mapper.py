"""Local mapping: what happens to the map when a keyframe comes."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np

from vslam.config import MappingConfig
from vslam.geometry import se3
from vslam.mapping.cull import cull_keyframes, cull_points
from vslam.mapping.fuse import fuse_around
from vslam.mapping.local_map import build_local_map
from vslam.mapping.map import Map, covisible
from vslam.mapping.triangulate import triangulate_around
from vslam.mapping.window import adjust_window
from vslam.types import Camera, KeyframeRequest, LocalMap


class LocalMapper:
    """The only writer of the map. `local_map` is what the tracker reads: replaced as a whole, never changed."""

    def __init__(self, camera: Camera, extractor: Any, config: MappingConfig, max_keypoints: int):
        self._camera, self._extractor, self._config = camera, extractor, config
        self._max_keypoints = max_keypoints
        self.map = Map()
        self.local_map: LocalMap | None = None
        self.stage_ms: dict[str, list[float]] = defaultdict(list)
        self.stop_flag = np.zeros(1, np.uint8)  # set: the adjustment ends early

    def process(self, request: KeyframeRequest) -> None:
        """Take in one keyframe: new points, old points found again, adjustment, culling."""
        began = time.perf_counter()
        slot = self._insert(request)
        self._create_points_from_depth(slot)
        self._publish(slot)
        began = self._mark("insert", began)
        cull_points(self.map, int(self.map.keyframes.id[slot]))
        neighbours = covisible(self.map, slot)[0][: self._config.fuse_keyframes]
        fuse_around(self.map, slot, neighbours, self._camera, self._extractor)
        firm = neighbours[self.map.keyframes.weak[neighbours] == 0]
        if not request.weak:
            triangulate_around(self.map, slot, firm, self._camera, self._extractor)
        self._publish(slot)
        began = self._mark("fuse", began)
        settings = self._config
        adjust_window(
            self.map, slot, self._camera, settings.window, settings.fixed_window, settings.optimizer, self.stop_flag
        )
        began = self._mark("adjust", began)
        cull_keyframes(self.map, slot, settings.redundant_share, settings.local_keyframes)
        self._publish(slot)
        self._mark("cull", began)

    def _insert(self, request: KeyframeRequest) -> int:
        slot = self.map.insert(request, self._max_keypoints)
        points = self.map.points
        np.add.at(points.visible, request.visible_row, 1)
        np.add.at(points.found, request.found_row, 1)
        return slot

    def _create_points_from_depth(self, slot: int) -> None:
        """Every feature with depth that shows no known point becomes one."""
        keyframes = self.map.keyframes
        features = np.flatnonzero((keyframes.point[slot] < 0) & (keyframes.disparity[slot] > 0))
        features = features[features < keyframes.count[slot]]
        depth = self._camera.fx * self._camera.baseline / keyframes.disparity[slot, features]
        T_wc = se3.inverse(keyframes.T_cw[slot])
        xyz = self._camera.unproject(keyframes.xy[slot, features], depth) @ T_wc[:3, :3].T + T_wc[:3, 3]
        self.map.add_points(slot, features, xyz)

    def _publish(self, slot: int) -> None:
        self.local_map = build_local_map(self.map, slot, self._config.local_keyframes)

    def _mark(self, stage: str, began: float) -> float:
        now = time.perf_counter()
        self.stage_ms[stage].append(1e3 * (now - began))
        return now
