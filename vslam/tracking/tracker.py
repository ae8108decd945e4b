"""The tracker: one frame in, one pose out. It reads the map through an immutable `LocalMap` and never waits for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from vslam.config import Config
from vslam.geometry import se3
from vslam.tracking.follow import Estimate, Follower
from vslam.tracking.frame import describe_frame
from vslam.tracking.keyframe_rule import KeyframeRule
from vslam.tracking.relocalise import Recogniser, locate
from vslam.tracking.shutter import straighten
from vslam.tracking.stages import StageClock
from vslam.tracking.surface import align, cell_centres
from vslam.tracking.view import MapView, Viewer
from vslam.types import Camera, Frame, KeyframeRequest, LocalMap, RawFrame, Reason, State, Tracked

ALIGN_ITERATIONS = 10
MAX_GAP_S = 0.5  # after a longer loss nothing is known of the motion


@dataclass(frozen=True)
class Anchor:
    """A tracked frame's place in the final trajectory: relative to a keyframe, whatever becomes of its pose; in the
    metres that the keyframe had in the map of that `epoch`."""

    timestamp: float
    reference: int
    T_frame_reference: np.ndarray
    epoch: int


@dataclass(frozen=True)
class Sight:
    """The best view of the map so far; `reason` says how it was found, or why there is none."""

    view: MapView | None
    reason: Reason


class Recall(Protocol):
    """What a lost tracker asks: where has this been seen?"""

    def places(self, image: np.ndarray) -> Iterator[LocalMap]:
        """Local maps of the places most like a grey image."""
        ...

    def turn_to(self, keyframe: int) -> None:
        """From now on the local map is the one around this keyframe."""
        ...


class Tracker:
    """Follows the camera from frame to frame and asks for keyframes.

    Args:
        camera: intrinsics of all frames.
        extractor: see `vslam.registry`.
        config: the whole tree.
        local_map: gives the newest local map, None before the first keyframe.
        submit: takes a keyframe request; must not block.
        recall: finds places again when lost; None to wait for the last one.
    """

    def __init__(
        self,
        camera: Camera,
        extractor: Any,
        config: Config,
        local_map: Callable[[], LocalMap | None],
        submit: Callable[[KeyframeRequest], None],
        recall: Recall | None = None,
    ):
        self._camera, self._extractor, self._config = camera, extractor, config
        self._local_map, self._submit = local_map, submit
        self._pinhole = camera.pinhole
        self._cells = cell_centres(camera)
        self._viewer = Viewer(camera, extractor, config.tracking)
        self._recall = recall
        self._recogniser = Recogniser(camera, extractor, self._viewer, config.recognition)
        self._follower = Follower(camera, extractor, self._viewer, config)
        self._keyframe_rule = KeyframeRule(config.tracking)
        self._visible: list[np.ndarray] = []
        self._found: list[np.ndarray] = []
        self._lost_since: float | None = None  # the time from which there was something to see
        self.anchors: list[Anchor] = []

    def track(self, raw: RawFrame, grey: np.ndarray, clock: StageClock | None = None) -> Tracked:
        """Estimate the pose of one frame, `grey` its image; a bad image gives a state and a reason, no exception.

        `clock` has been running since the image was in memory; None to begin now.
        """
        clock, self._image = clock or StageClock(), grey
        features = self._extractor.extract(grey)
        clock.mark("extract")
        motion = self._follower.motion
        T_depth_image = motion.predict(raw.depth_delay)
        frame = describe_frame(raw, features, self._camera, self._config.depth, self._cells, T_depth_image)
        frame = straighten(frame, self._camera, motion.rate)
        self._follower.look(grey, raw.depth)
        clock.mark("describe")
        local_map = self._local_map()
        if local_map is None:
            return self._start(frame, clock)
        sight = self._first_good_sight(frame, local_map, clock)
        if sight.view is not None and sight.view.inliers >= self._config.tracking.min_inliers:
            return self._tracked(frame, local_map, sight.view, State.OK, sight.reason, clock)
        found = self._from_places(frame)
        clock.mark("places")
        if found is not None:
            return self._tracked(frame, *found, State.OK, Reason.RELOCALISED, clock)
        view = self._from_depth(frame, local_map)
        clock.mark("surface")
        if view is not None:
            return self._tracked(frame, local_map, view, State.WEAK, Reason.FROM_DEPTH, clock)
        return self._lost(frame, sight.reason, sight.view.matches if sight.view else 0, clock)

    # -- the steps ----------------------------------------------------------------------------------------------

    def _first_good_sight(self, frame: Frame, local_map: LocalMap, clock: StageClock) -> Sight:
        """Try one guess after another until the map is seen about as well as in the last frame; else the best sight."""
        best = Sight(None, Reason.FEW_MATCHES)
        settings = self._config.tracking
        enough = max(settings.min_inliers, settings.enough_share * self._keyframe_rule.peak)
        follower = self._follower
        for guess in (follower.from_motion, follower.from_appearance, self._from_reference, self._from_keyframes):
            estimate = guess(frame, local_map)
            clock.mark("match")
            if estimate.T_cw is None:
                continue
            view = self._see_map(frame, local_map, estimate)
            clock.mark("map")
            if best.view is None or view.inliers > best.view.inliers:
                few = view.inliers < settings.min_inliers
                best = Sight(view, Reason.FEW_INLIERS if few else estimate.reason)
            if best.view.inliers >= (settings.min_inliers if estimate.is_sure else enough):
                break
        return best

    def _from_reference(self, frame: Frame, local_map: LocalMap) -> Estimate:
        """By appearance alone, from what the reference keyframe sees."""
        return self._by_appearance(frame, local_map, local_map.in_reference, Reason.FROM_REFERENCE)

    def _from_keyframes(self, frame: Frame, local_map: LocalMap) -> Estimate:
        """By appearance alone, from all points of the last keyframes."""
        return self._by_appearance(frame, local_map, np.ones(len(local_map), bool), Reason.FROM_KEYFRAMES)

    def _by_appearance(self, frame: Frame, local_map: LocalMap, among: np.ndarray, reason: Reason) -> Estimate:
        found = locate(
            frame, local_map.xyz[among], local_map.words[among], self._camera, self._extractor.max_distance,
            self._config.tracking.min_matches,
        )  # fmt: skip
        return Estimate(found.T_cw, Reason.FEW_MATCHES if found.T_cw is None else reason, found.matches)

    def _see_map(self, frame: Frame, local_map: LocalMap, estimate: Estimate) -> MapView:
        """Look for every point of the local map where it should appear, and fit the pose to all that are found."""
        settings = self._config.tracking
        view = self._viewer.see(
            frame, local_map, estimate.T_cw, estimate.expected, self._follower.weight(frame, estimate.expected),
            followed=estimate.followed,
        )  # fmt: skip
        if settings.min_inliers <= view.inliers < settings.surface_below:
            self._align(view.T_cw, frame, local_map, view.point, estimate.expected)
        return view

    def _from_places(self, frame: Frame) -> tuple[LocalMap, MapView] | None:
        """Lost: compare with the places that look like this one."""
        if self._recall is None or len(frame) < self._config.recognition.min_inliers:
            return None
        for place in self._recall.places(self._image):
            found = self._recogniser.recognise(frame, place)
            if found.view is not None:
                self._recall.turn_to(place.reference)
                self._follower.forget()
                return place, found.view
        return None

    def _from_depth(self, frame: Frame, local_map: LocalMap) -> MapView | None:
        """Where neither texture nor light is left: go on as the small images say, corrected by the scene's shape."""
        last, settings = self._follower.last_in(local_map), self._config.tracking
        if last is None:
            return None
        ahead, T_last_world = self._follower.predict(frame, last), last.T_cw(local_map)
        T_cw, expected = ahead.T_frame_last @ T_last_world, ahead.expected @ T_last_world
        nothing = np.full(len(frame), -1, np.int32)
        share, rms = self._align(T_cw, frame, local_map, nothing, expected)
        is_covered = share >= settings.surface_min_share or ahead.is_sure  # a new wall has no shape to fit yet
        if not is_covered or rms > settings.surface_max_rms_m:
            return None
        view = self._see_map(frame, local_map, Estimate(T_cw.copy(), Reason.FROM_DEPTH, 0, expected))
        if view.inliers >= settings.min_inliers // 2:
            self._align(T_cw, frame, local_map, view.point, expected)
        return replace(view, T_cw=T_cw)

    def _align(
        self, T_cw: np.ndarray, frame: Frame, local_map: LocalMap, point: np.ndarray, expected: np.ndarray | None
    ) -> tuple[float, float]:
        """Improve `T_cw` in place by the shapes that keyframes near saw; see `surface.align`."""
        others, settings, surface = local_map.surfaces, self._config.tracking, frame.surface
        if others is None or surface is None:
            return 0.0, 0.0
        seen, weight = np.flatnonzero(point >= 0), self._follower.weight(frame, expected)
        return align(
            T_cw, self._pinhole, local_map.xyz[point[seen]], frame.xy[seen], frame.disparity[seen],
            frame.features.sigma[seen], frame.disparity_sigma[seen], T_cw.copy() if expected is None else expected,
            weight, surface.xyz, surface.normal, surface.sigma, others.xyz, others.normal, others.T_cw,
            settings.surface_weight, settings.surface_reach_m, ALIGN_ITERATIONS,
        )  # fmt: skip

    # -- the ends -----------------------------------------------------------------------------------------------

    def _start(self, frame: Frame, clock: StageClock) -> Tracked:
        """The first frame with depth is the world's origin and the first keyframe."""
        if np.count_nonzero(frame.disparity) < self._config.tracking.min_inliers:
            return self._lost(frame, Reason.NO_DEPTH, 0, clock)
        self._keyframe_rule.begin(frame)
        none = np.full(len(frame), -1, np.int32)
        self._request(frame, -1, np.eye(4), none, none)
        self._remember(frame, 0, np.eye(4), np.eye(4), none)
        return self._answer(frame, State.OK, Reason.FIRST_FRAME, np.eye(4), 0, 0, True, clock)

    def _tracked(
        self, frame: Frame, local_map: LocalMap, view: MapView, state: State, reason: Reason, clock: StageClock
    ) -> Tracked:
        reference = local_map.reference
        T_frame_reference = view.T_cw @ se3.inverse(local_map.T_cw[reference])
        self._follower.learn_motion(frame, local_map, view.T_cw)
        self._remember(frame, reference, T_frame_reference, view.T_cw, view.point, local_map)
        seen = view.point[view.point >= 0]
        self._visible.append(local_map.row[np.flatnonzero(view.visible)])
        self._found.append(local_map.row[seen])
        keyframe = self._keyframe_rule.asks(frame, local_map, view, T_frame_reference)
        if keyframe:
            row, generation = np.full(len(frame), -1, np.int32), np.zeros(len(frame), np.int32)
            has = view.point >= 0
            row[has], generation[has] = local_map.row[view.point[has]], local_map.generation[view.point[has]]
            self._request(frame, reference, T_frame_reference, row, generation, view.noise, state is State.WEAK)
        clock.mark("decide")
        return self._answer(frame, state, reason, se3.inverse(view.T_cw), view.matches, view.inliers, keyframe, clock)

    def _lost(self, frame: Frame, reason: Reason, matches: int, clock: StageClock) -> Tracked:
        if self._follower.seconds_since(frame.timestamp) > MAX_GAP_S:
            self._follower.forget()
        if len(frame) < self._config.tracking.min_keypoints:
            reason = Reason.FEW_KEYPOINTS
        self._keyframe_rule.pass_over()
        return self._answer(frame, State.LOST, reason, None, matches, 0, False, clock)

    def _answer(self, frame, state, reason, T_wc, matches, inliers, keyframe, clock) -> Tracked:
        wall, cpu = clock.total()
        recovery = self._note_loss(frame, state, reason)
        return Tracked(frame.timestamp, state, reason, T_wc, matches, inliers, keyframe, clock.ms, wall, cpu, recovery)

    def _note_loss(self, frame: Frame, state: State, reason: Reason) -> float | None:
        """Seconds from when there was something to see again to this pose, the first after a loss; else None."""
        if state is State.LOST:
            blind = reason in (Reason.FEW_KEYPOINTS, Reason.NO_DEPTH)
            self._lost_since = math.inf if blind else min(frame.timestamp, self._lost_since or math.inf)
            return None
        since, self._lost_since = self._lost_since, None
        return None if since is None else max(0.0, frame.timestamp - since)

    # -- what is kept between frames ----------------------------------------------------------------------------

    def _remember(self, frame, reference, T_frame_reference, T_cw, point, local_map=None) -> None:
        self._follower.remember(frame, reference, T_frame_reference, T_cw, point, local_map)
        epoch = 0 if local_map is None else local_map.epoch
        self.anchors.append(Anchor(frame.timestamp, reference, T_frame_reference, epoch))

    def _request(self, frame, reference, T_frame_reference, row, generation, noise=1.0, weak=False) -> None:
        visible, found = (
            np.concatenate(parts) if parts else np.empty(0, np.int32) for parts in (self._visible, self._found)
        )
        self._submit(
            KeyframeRequest(
                frame, reference, T_frame_reference, row, generation, visible, found, noise, weak, self._image
            )
        )
        self._visible, self._found = [], []
