"""Local mapping: what happens to the map when a keyframe comes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from vslam.config import MappingConfig
from vslam.geometry import se3
from vslam.mapping.bundle import Solution
from vslam.mapping.correct import Poses, correct_map
from vslam.mapping.cull import cull_keyframes, cull_points
from vslam.mapping.essential import EssentialGraph, essential_graph
from vslam.mapping.fuse import add_observations, find_points, fuse_around
from vslam.mapping.local_map import build_local_map
from vslam.mapping.map import Map, count_seen, covisible
from vslam.mapping.triangulate import triangulate_around
from vslam.mapping.whole import WholeProblem, commit_whole, whole_problem
from vslam.mapping.window import adjust_window
from vslam.types import Camera, KeyframeRequest, LocalMap, NewKeyframe


@dataclass(frozen=True)
class Comparison:
    """A keyframe and a place it may show: both poses `T_cw` now, and the local map `place` around the other."""

    T_query: np.ndarray
    T_match: np.ndarray
    place: LocalMap


@dataclass(frozen=True)
class Sighting:
    """What keyframe `query` sees of the place around keyframe `match`: its `feature` (K,) show the points `row` (K,) of
    that `generation` (K,)."""

    query: int
    match: int
    feature: np.ndarray
    row: np.ndarray
    generation: np.ndarray


class LocalMapper:
    """The only writer of the map. `local_map` is what the tracker reads: replaced as a whole, never changed.

    All methods are called by the mapping side, one at a time. `near_s`: see `build_local_map`; older places are for
    loop closing to prove and to link.
    """

    def __init__(
        self, camera: Camera, extractor: Any, config: MappingConfig, max_keypoints: int, near_s: float = np.inf
    ):
        self.camera, self.extractor, self._config, self._near_s = camera, extractor, config, near_s
        self._max_keypoints = max_keypoints
        self.map = Map()
        self.local_map: LocalMap | None = None
        self.stage_ms: dict[str, list[float]] = defaultdict(list)
        self.stop_flag = np.zeros(1, np.uint8)  # set: the adjustment ends early

    def process(self, request: KeyframeRequest, when_new: Callable[[LocalMap], None] | None = None) -> NewKeyframe:
        """Take in one keyframe: new points, old points found again, adjustment, culling.

        `when_new` is given the local map as soon as the keyframe's own points are in it.
        """
        began = time.perf_counter()
        slot = self._insert(request)
        self._create_points_from_depth(slot)
        self._publish(slot)
        if when_new is not None:
            when_new(self.local_map)
        began = self._mark("insert", began)
        cull_points(self.map, int(self.map.keyframes.id[slot]))
        neighbours = covisible(self.map, slot)[0][: self._config.fuse_keyframes]
        fuse_around(self.map, slot, neighbours, self.camera, self.extractor)
        firm = neighbours[self.map.keyframes.weak[neighbours] == 0]
        if not request.weak:
            triangulate_around(self.map, slot, firm, self.camera, self.extractor)
        self._publish(slot)
        began = self._mark("fuse", began)
        settings = self._config
        adjust_window(
            self.map, slot, self.camera, settings.window, settings.fixed_window, settings.optimizer, self.stop_flag
        )
        began = self._mark("adjust", began)
        cull_keyframes(self.map, slot, settings.redundant_share, settings.local_keyframes)
        self._publish(slot)
        self._mark("cull", began)
        return self._described(slot, request)

    # -- for those who know places ------------------------------------------------------------------------------

    def around(self, keyframe: int, wanted: int | None = None, without: Collection[int] = ()) -> LocalMap | None:
        """The local map around a keyframe, None where it is no more; `without`: see `build_local_map`."""
        if keyframe not in self.map.slot_of:
            return None
        wanted = wanted or self._config.local_keyframes
        return build_local_map(self.map, self.map.slot_of[keyframe], wanted, self._near_s, without)

    def turn_to(self, keyframe: int) -> None:
        """Let the tracker read the local map around a keyframe: the camera is there."""
        self.local_map = self.around(keyframe) or self.local_map

    def follow(self, request: KeyframeRequest) -> None:
        """Let the tracker read the local map around the keyframe that sees most of what a frame sees; add nothing."""
        keyframes = self.map.keyframes
        seen = count_seen(self.map, np.arange(keyframes.capacity), request.row)
        self.turn_to(int(keyframes.id[np.argmax(np.where(keyframes.id >= 0, seen, -1))]))

    def compare(self, query: int, match: int, wanted: int, young: Collection[int] = ()) -> Comparison | None:
        """What it takes to recognise the place of keyframe `match` in `query`; None where either is no more.

        `young` are the keyframes of the way to `query`: what they have mapped lies where `query` thinks that it is, and
        has no part in the place, however near it may lie.
        """
        place = self.around(match, wanted, young) if query in self.map.slot_of else None
        if place is None:
            return None
        return Comparison(self.map.pose(query).copy(), self.map.pose(match).copy(), place)

    def essential_graph(self) -> EssentialGraph:
        """The strong links between all keyframes."""
        return essential_graph(self.map)

    def close_loop(self, sighting: Sighting, poses: Poses) -> None:
        """Move the keyframes to `poses`, then make one of what was mapped twice."""
        map_ = self.map
        correct_map(map_, poses)
        if sighting.query in map_.slot_of and sighting.match in map_.slot_of:
            here, there = map_.slot_of[sighting.query], map_.slot_of[sighting.match]
            self._merge_seen(here, sighting)
            self._fuse_places(here, there)
        self._publish_again()

    def whole_problem(self) -> WholeProblem | None:
        """The adjustment of all keyframes and points, copied."""
        return whole_problem(self.map, self.camera)

    def commit_whole(self, whole: WholeProblem, solution: Solution) -> None:
        """Write the result of `whole_problem`, if it is not out of date."""
        if commit_whole(self.map, whole, solution):
            self._publish_again()

    def _merge_seen(self, slot: int, sighting: Sighting) -> None:
        keyframes, points = self.map.keyframes, self.map.points
        same = (points.alive[sighting.row] > 0) & (points.generation[sighting.row] == sighting.generation)
        feature, row = sighting.feature[same], sighting.row[same]
        new = ~np.isin(row, keyframes.point[slot])
        add_observations(self.map, slot, feature[new], row[new])

    def _fuse_places(self, here: int, there: int) -> None:
        """Look for the points of the old place in the keyframes of the new one."""
        wanted = self._config.fuse_keyframes
        old = np.concatenate([[there], covisible(self.map, there)[0][:wanted]])
        for slot in [here, *covisible(self.map, here)[0][:wanted].tolist()]:
            if slot not in old:
                seen = self.map.keyframes.point[old]
                find_points(self.map, slot, np.unique(seen[seen >= 0]), self.camera, self.extractor)

    def _publish_again(self) -> None:
        """The tracker's local map as the map is now, around the same keyframe."""
        if self.local_map is not None:
            newest = max(self.map.slot_of)
            at = self.local_map.reference
            self._publish(self.map.slot_of[at if at in self.map.slot_of else newest])

    # -- the steps ----------------------------------------------------------------------------------------------

    def _described(self, slot: int, request: KeyframeRequest) -> NewKeyframe:
        keyframes = self.map.keyframes
        slots, shared = covisible(self.map, slot)
        ids = keyframes.id[slots].tolist()
        return NewKeyframe(
            int(keyframes.id[slot]), request.frame.timestamp, request.frame, request.image,
            keyframes.T_cw[slot].copy(), dict(zip(ids, shared.tolist(), strict=True)),
            {keyframe: self.map.timestamp_of[keyframe] for keyframe in ids},
        )  # fmt: skip

    @property
    def optimizer(self) -> str:
        """Who solves bundle adjustment."""
        return self._config.optimizer

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
        depth = self.camera.fx * self.camera.baseline / keyframes.disparity[slot, features]
        T_wc = se3.inverse(keyframes.T_cw[slot])
        xyz = self.camera.unproject(keyframes.xy[slot, features], depth) @ T_wc[:3, :3].T + T_wc[:3, 3]
        self.map.add_points(slot, features, xyz)

    def _publish(self, slot: int) -> None:
        self.local_map = self.around(int(self.map.keyframes.id[slot]))

    def _mark(self, stage: str, began: float) -> float:
        now = time.perf_counter()
        self.stage_ms[stage].append(1e3 * (now - began))
        return now
