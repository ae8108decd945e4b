"""The tracker: one frame in, one pose out. It reads the map through an immutable `LocalMap` and never waits for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from vslam.config import Config
from vslam.geometry import se3
from vslam.tracking.frame import describe_frame
from vslam.tracking.motion import ConstantVelocity
from vslam.tracking.relocalise import Recogniser, locate
from vslam.tracking.shutter import straighten
from vslam.tracking.stages import StageClock
from vslam.tracking.surface import align, cell_centres
from vslam.tracking.view import MapView, Viewer
from vslam.types import Camera, Frame, KeyframeRequest, LocalMap, RawFrame, Reason, State, Tracked

ALIGN_ITERATIONS = 10
FOUND_AGAIN = 0.3  # of a frame's features with depth, in the next one: what to expect before anything is known
MAX_GAP_S = 0.5  # after a longer loss nothing is known of the motion


@dataclass(frozen=True)
class Posed:
    """The last tracked frame. `xyz` (N, 3) are its features' points in its own camera frame, `has_xyz` (N,) bool."""

    frame: Frame
    reference: int
    T_frame_reference: np.ndarray
    xyz: np.ndarray
    has_xyz: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A pose on its way through the stages; None as `T_cw` means that the step failed."""

    T_cw: np.ndarray | None
    reason: Reason = Reason.NONE
    matches: int = 0
    expected: np.ndarray | None = None  # by the motion model


@dataclass(frozen=True)
class Anchor:
    """A tracked frame's place in the final trajectory: relative to a keyframe, whatever becomes of its pose."""

    timestamp: float
    reference: int
    T_frame_reference: np.ndarray


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
        self._motion = ConstantVelocity()
        self._last: Posed | None = None
        self._since_keyframe = 0
        self._peak = (-1, 0)  # the newest keyframe, and the most inliers since it came
        self._asked = (-1, 0)  # the newest keyframe when the last one was asked for, and the inliers then
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
        T_depth_image = self._motion.predict(raw.depth_delay)
        frame = describe_frame(raw, features, self._camera, self._config.depth, self._cells, T_depth_image)
        frame = straighten(frame, self._camera, self._motion.rate)
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
        enough = max(settings.min_inliers, settings.enough_share * self._peak[1])
        for guess in (self._from_motion, self._from_previous, self._from_reference, self._from_keyframes):
            estimate = guess(frame, local_map)
            clock.mark("match")
            if estimate.T_cw is None:
                continue
            view = self._see_map(frame, local_map, estimate)
            clock.mark("map")
            if best.view is None or view.inliers > best.view.inliers:
                few = view.inliers < settings.min_inliers
                best = Sight(view, Reason.FEW_INLIERS if few else estimate.reason)
            if best.view.inliers >= enough:
                break
        return best

    def _from_motion(self, frame: Frame, local_map: LocalMap) -> Estimate:
        """Follow the previous frame's points to where the motion model expects them."""
        last = self._last_in(local_map)
        if last is None:
            return Estimate(None, Reason.FEW_MATCHES)
        guess = self._motion.predict(frame.timestamp - last.frame.timestamp)
        match = self._search_previous(frame, last, guess)
        return self._from_pairs(frame, local_map, last, match, guess, Reason.NONE)

    def _from_previous(self, frame: Frame, local_map: LocalMap) -> Estimate:
        """The previous frame's points by appearance alone: the motion was not as expected."""
        last = self._last_in(local_map)
        if last is None:
            return Estimate(None, Reason.FEW_MATCHES)
        known = np.flatnonzero(last.has_xyz)
        found = locate(
            frame, last.xyz[known], last.frame.words[known], self._camera, self._extractor.max_distance,
            self._config.tracking.min_matches,
        )  # fmt: skip
        if found.T_cw is None:
            return Estimate(None, Reason.FEW_MATCHES, found.matches)
        T_last_world = last.T_frame_reference @ local_map.T_cw[last.reference]
        return Estimate(found.T_cw @ T_last_world, Reason.MOTION_TOO_LARGE, found.matches)

    def _from_pairs(
        self, frame: Frame, local_map: LocalMap, last: Posed, match: np.ndarray, guess: np.ndarray, reason: Reason
    ) -> Estimate:
        """The pose from features `match` (N,) of this frame that show the last frame's points; -1 for none."""
        rows = np.flatnonzero(match >= 0)
        T_frame_last, T_last_world = guess.copy(), last.T_frame_reference @ local_map.T_cw[last.reference]
        if len(rows) < self._config.tracking.min_matches:
            return Estimate(None, Reason.FEW_MATCHES, len(rows))
        inliers = self._viewer.refine(
            T_frame_last, frame, last.xyz[rows], match[rows], guess, self._weight(frame, guess)
        )[0]
        if inliers < self._config.tracking.min_matches:
            return Estimate(None, Reason.FEW_MATCHES, len(rows))
        return Estimate(T_frame_last @ T_last_world, reason, len(rows), guess @ T_last_world)

    def _last_in(self, local_map: LocalMap) -> Posed | None:
        """The last tracked frame, if the local map still knows what it is relative to."""
        return self._last if self._last is not None and self._last.reference in local_map.T_cw else None

    def _search_previous(self, frame: Frame, last: Posed, T_frame_last: np.ndarray) -> np.ndarray:
        settings = self._config.tracking
        size = last.frame.features.sigma * np.linalg.norm(last.xyz, axis=1).astype(np.float32)
        known = np.flatnonzero(last.has_xyz)
        match = np.full(len(last.frame), -1, np.int32)
        match[known] = self._viewer.search(
            frame, T_frame_last, last.xyz[known], np.zeros((len(known), 3), np.float32), size[known],
            last.frame.features.angle[known], last.frame.words[known], settings.search_px, 0.0,
            math.radians(settings.max_turn_deg), 1.0,
        )[0]  # fmt: skip
        return match

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
            frame, local_map, estimate.T_cw, estimate.expected, self._weight(frame, estimate.expected)
        )
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
                self._forget()
                return place, found.view
        return None

    def _from_depth(self, frame: Frame, local_map: LocalMap) -> MapView | None:
        """Where neither texture nor light is left: go on as before, and let the shape of the scene correct that."""
        last, settings = self._last_in(local_map), self._config.tracking
        if last is None:
            return None
        guess = self._motion.predict(frame.timestamp - last.frame.timestamp)
        T_cw = guess @ last.T_frame_reference @ local_map.T_cw[last.reference]
        expected, nothing = T_cw.copy(), np.full(len(frame), -1, np.int32)
        share, rms = self._align(T_cw, frame, local_map, nothing, expected)
        if share < settings.surface_min_share or rms > settings.surface_max_rms_m:
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
        seen, weight = np.flatnonzero(point >= 0), self._weight(frame, expected)
        return align(
            T_cw, self._pinhole, local_map.xyz[point[seen]], frame.xy[seen], frame.disparity[seen],
            frame.features.sigma[seen], frame.disparity_sigma[seen], T_cw.copy() if expected is None else expected,
            weight, surface.xyz, surface.normal, surface.sigma, others.xyz, others.normal, others.T_cw,
            settings.surface_weight, settings.surface_reach_m, ALIGN_ITERATIONS,
        )  # fmt: skip

    def _weight(self, frame: Frame, expected: np.ndarray | None) -> np.ndarray:
        """How much the motion model's pose counts, (6,); zeros where there is none."""
        if expected is None or self._last is None:
            return np.zeros(6)
        return self._motion.weight(frame.timestamp - self._last.frame.timestamp)

    # -- the ends -----------------------------------------------------------------------------------------------

    def _start(self, frame: Frame, clock: StageClock) -> Tracked:
        """The first frame with depth is the world's origin and the first keyframe."""
        if np.count_nonzero(frame.disparity) < self._config.tracking.min_inliers:
            return self._lost(frame, Reason.NO_DEPTH, 0, clock)
        self._peak = (0, round(FOUND_AGAIN * np.count_nonzero(frame.disparity)))
        none = np.full(len(frame), -1, np.int32)
        self._request(frame, -1, np.eye(4), none, none)
        self._remember(frame, 0, np.eye(4), np.eye(4), none, None)
        return self._answer(frame, State.OK, Reason.FIRST_FRAME, np.eye(4), 0, 0, True, clock)

    def _tracked(
        self, frame: Frame, local_map: LocalMap, view: MapView, state: State, reason: Reason, clock: StageClock
    ) -> Tracked:
        reference = local_map.reference
        T_frame_reference = view.T_cw @ se3.inverse(local_map.T_cw[reference])
        self._learn_motion(frame, local_map, view.T_cw)
        self._remember(frame, reference, T_frame_reference, view.T_cw, view.point, local_map)
        seen = view.point[view.point >= 0]
        self._visible.append(local_map.row[np.flatnonzero(view.visible)])
        self._found.append(local_map.row[seen])
        keyframe = self._needs_keyframe(frame, local_map, view, T_frame_reference)
        if keyframe:
            row, generation = np.full(len(frame), -1, np.int32), np.zeros(len(frame), np.int32)
            has = view.point >= 0
            row[has], generation[has] = local_map.row[view.point[has]], local_map.generation[view.point[has]]
            self._request(frame, reference, T_frame_reference, row, generation, view.noise, state is State.WEAK)
            self._asked = (reference, view.inliers)
        clock.mark("decide")
        return self._answer(frame, state, reason, se3.inverse(view.T_cw), view.matches, view.inliers, keyframe, clock)

    def _lost(self, frame: Frame, reason: Reason, matches: int, clock: StageClock) -> Tracked:
        if self._last is not None and frame.timestamp - self._last.frame.timestamp > MAX_GAP_S:
            self._forget()
        if len(frame) < self._config.tracking.min_keypoints:
            reason = Reason.FEW_KEYPOINTS
        self._since_keyframe += 1
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

    def _forget(self) -> None:
        """Nothing is known of the camera's motion."""
        self._last = None
        self._motion.forget()

    def _learn_motion(self, frame: Frame, local_map: LocalMap, T_cw: np.ndarray) -> None:
        last = self._last_in(local_map)
        if last is None:
            self._motion.forget()
            return
        T_last_world = last.T_frame_reference @ local_map.T_cw[last.reference]
        self._motion.update(T_cw @ se3.inverse(T_last_world), frame.timestamp - last.frame.timestamp)

    def _remember(self, frame, reference, T_frame_reference, T_cw, point, local_map) -> None:
        has = frame.disparity > 0
        depth = np.where(has, self._pinhole[4] / np.where(has, frame.disparity, 1.0), 1.0)
        xyz = self._camera.unproject(frame.xy, depth)
        seen = np.flatnonzero(point >= 0)
        if len(seen):
            xyz[seen] = local_map.xyz[point[seen]] @ T_cw[:3, :3].T + T_cw[:3, 3]
            has[seen] = True
        self._last = Posed(frame, reference, T_frame_reference, xyz, has)
        self.anchors.append(Anchor(frame.timestamp, reference, T_frame_reference))

    def _request(self, frame, reference, T_frame_reference, row, generation, noise=1.0, weak=False) -> None:
        visible, found = (
            np.concatenate(parts) if parts else np.empty(0, np.int32) for parts in (self._visible, self._found)
        )
        self._submit(
            KeyframeRequest(
                frame, reference, T_frame_reference, row, generation, visible, found, noise, weak, self._image
            )
        )
        self._visible, self._found, self._since_keyframe = [], [], 0

    def _needs_keyframe(self, frame: Frame, local_map: LocalMap, view: MapView, T_frame_reference: np.ndarray) -> bool:
        """Many points seen after the last keyframe are gone, much with depth is not in the map, or it was long ago."""
        settings = self._config.tracking
        self._since_keyframe += 1
        if self._peak[0] != local_map.reference:
            self._peak = (local_map.reference, 0)
        self._peak = (local_map.reference, max(self._peak[1], view.inliers))
        if self._since_keyframe < settings.keyframe_min_gap:
            return False
        asked_at, inliers_then = self._asked
        if asked_at == local_map.reference and view.inliers >= settings.keyframe_ratio * inliers_then:
            return False  # mapping has not come to the last request yet, and not much has changed since
        few_left = view.inliers < settings.keyframe_ratio * self._peak[1]
        near = frame.disparity > 0
        held = np.count_nonzero(near & (view.point >= 0))
        much_new = held < settings.keyframe_min_held and np.count_nonzero(near) - held > settings.keyframe_min_new
        if view.inliers < settings.surface_below:
            motion = se3.log(T_frame_reference)
            moved = np.linalg.norm(motion[:3]) > settings.keyframe_move_m
            turned = np.linalg.norm(motion[3:]) > math.radians(settings.keyframe_turn_deg)
            return bool(moved or turned)
        return bool(few_left or much_new or self._since_keyframe >= settings.keyframe_max_gap)
