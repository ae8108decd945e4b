"""Loop closing: a place seen again, proved by geometry, and the map corrected by it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vslam.config import LoopConfig
from vslam.geometry import se3, sim3
from vslam.mapping.bundle import Round, adjust
from vslam.mapping.correct import Poses, stretched
from vslam.mapping.essential import EssentialGraph
from vslam.mapping.local_mapper import Comparison, LocalMapper, Sighting
from vslam.mapping.seen import seen_by
from vslam.places.index import PlaceIndex
from vslam.places.pose_graph import optimise, optimise_similarities
from vslam.places.returns import Return, difference, visits
from vslam.places.sequence import Stretch
from vslam.places.similarity import find_similarity
from vslam.tracking.relocalise import Recognised, Recogniser
from vslam.tracking.view import MapView
from vslam.types import LoopCandidate, NewKeyframe

FIRM = 30  # points shared with a keyframe for a firm link: few may be matched by chance
AWAY_S = 2.0  # a view out of sight for so long has been left
LIKE = 10  # places asked for; of those seen shortly after another, only the most alike counts
SAME_PLACE_S = 2.0
AGAIN_S = 2.0  # after which a way that follows an old one is noted again
WAITS = "waits for a second keyframe"
FOUND, FOLLOWED = "found by tracking", "followed by tracking"
LONG_AGO_S = 1e12  # loaded keyframes are older than any of this run; keeps their distances to 0.1 ms
LOOP_SHARED = 200  # the loop's link counts as much as one between keyframes that share so many points
FULL_WEIGHT = 100  # points that keyframes share for a link of weight 1 ...
LEAST_WEIGHT = 0.02  # ... and of one that no shared point holds: a pose carried over a gap


class LoopCloser:
    """Compares each new keyframe with the places seen before; `process` may run in a thread of its own.

    Args:
        place: the descriptor of whole images.
        index: filled here, a vector a keyframe.
        mapper: the writer of the map.
        recogniser: decides whether a frame shows a place.
        config: when to believe it.
        ask: has a call done by the mapping side and gives its result.
        later: has a call done in the background.
        first: keyframe id; those before it are of a map that was loaded, their clock has nothing to do with this one.
    """

    def __init__(
        self,
        place: Any,
        index: PlaceIndex,
        mapper: LocalMapper,
        recogniser: Recogniser,
        config: LoopConfig,
        ask: Callable[[Callable[[], Any]], Any],
        later: Callable[[Callable[[], None]], None],
        first: int = 0,
    ):
        self._place, self._index, self._mapper = place, index, mapper
        self._recogniser, self._config = recogniser, config
        self._ask, self._later = ask, later
        self._witnesses: list[Return] = []
        self._stretch = Stretch(config.sequence) if config.sequence > 1 else None
        self._first = first
        ids = index.content()[0].tolist()
        self._stamp = {k: mapper.map.timestamp_of[k] for k in ids}  # of the keyframes in the index
        self._time = {k: t - LONG_AGO_S for k, t in self._stamp.items()}
        self._way = {k: np.zeros(2) for k in ids}  # metres gone and degrees turned when each came
        self._last: NewKeyframe | None = None
        self._is_linked = False  # tracking follows an old place
        self._noted_at = -np.inf
        self._stop = np.zeros(1, np.uint8)
        self.audit: list[LoopCandidate] = []
        self.cpu_s = 0.0

    @property
    def loops(self) -> int:
        """Visits of old places so far."""
        return visits([each.t_query for each in self.audit if each.accepted], self._config.min_gap_s)

    def process(self, keyframe: NewKeyframe) -> None:
        """Look for the keyframe's place among those seen before, close the loop if proved, remember the place."""
        began = time.thread_time()
        self._note_way(keyframe)
        vector = self._place.describe(keyframe.image)
        if self._stretch is not None:
            self._stretch.add(vector, keyframe.timestamp - self._config.min_gap_s, firm_links(keyframe))
        if self._config.close and not self._follows_old_map(keyframe, vector):
            self._search(keyframe, vector)
        self._index.add([keyframe.id], vector[None])
        self._time[keyframe.id] = self._stamp[keyframe.id] = keyframe.timestamp
        self.cpu_s += time.thread_time() - began

    # -- recognising --------------------------------------------------------------------------------------------

    def _note_way(self, keyframe: NewKeyframe) -> None:
        before, way = self._last, np.zeros(2)
        if before is not None:
            way = self._way[before.id] + difference(keyframe.T_cw, before.T_cw)
        self._way[keyframe.id], self._last = way, keyframe

    def _follows_old_map(self, keyframe: NewKeyframe, vector: np.ndarray) -> bool:
        """The keyframe sees old points: a loop or views in between have linked them, or the camera was found again.

        Nothing is to be searched or bent. What the way was off is in the few keyframes here; adjusting the whole map
        spreads it.
        """
        if any(other < self._first and shared >= FIRM for other, shared in keyframe.covisible.items()):
            return True  # in the loaded map
        old, was_linked = revisited(keyframe, self._config.min_gap_s), self._is_linked
        self._is_linked = old is not None
        if old is None:
            return False
        if not was_linked or keyframe.timestamp - self._noted_at >= AGAIN_S:
            score, shared = self._likeness(old, vector), keyframe.covisible[old]
            self._note(keyframe, old, score, shared, shared, FOLLOWED if was_linked else FOUND, accepted=True)
            self._noted_at = keyframe.timestamp
        if not was_linked:
            self._adjust_later()
        return True

    def _likeness(self, keyframe: int, vector: np.ndarray) -> float:
        return float(self._index.vector(keyframe) @ vector) if keyframe in self._index else float("nan")

    def _search(self, keyframe: NewKeyframe, vector: np.ndarray) -> None:
        """Compare the keyframe with the places most like it, until one closes a loop."""
        young = [k for k, t in self._time.items() if t > keyframe.timestamp - self._config.min_gap_s]
        if len(young) == len(self._time):
            return
        if self._stretch is not None:
            ids, scores = self._stretch.search(self._index, self._time, LIKE)
        else:
            found = self._index.search(vector[None], LIKE, exclude=[*young, *firm_links(keyframe)])
            ids, scores = found[0][0], found[1][0]
        for candidate, score in self._distinct(ids.tolist(), scores.tolist()):
            if score < self._config.min_score:
                self._note(keyframe, candidate, score, 0, 0, "unlike", accepted=False)
            elif self._closes(keyframe, candidate, score, young):
                return

    def _distinct(self, ids: list[int], scores: list[float]) -> list[tuple[int, float]]:
        """The best few of places more than a moment apart."""
        chosen: list[tuple[int, float]] = []
        for candidate, score in zip(ids, scores, strict=True):
            if candidate < 0 or len(chosen) == self._config.candidates:
                break
            if all(abs(self._time[candidate] - self._time[other]) > SAME_PLACE_S for other, _ in chosen):
                chosen.append((candidate, score))
        return chosen

    def _closes(self, keyframe: NewKeyframe, candidate: int, score: float, young: list[int]) -> bool:
        """Prove that the keyframe, come by way of `young` ones, shows a place, and correct the map if that is off;
        whether it is proved."""
        around, way = self._recogniser.keyframes, [keyframe.id, *young]
        pair: Comparison | None = self._ask(lambda: self._mapper.compare(keyframe.id, candidate, around, way))
        if pair is None:
            return self._forget_removed(candidate)
        found, scale = self._recognise(keyframe, candidate, pair)
        reason, accepted, is_straight = found.reason, False, False
        if found.view is not None:
            back = Return(keyframe.id, pair.T_query, found.view.T_cw, scale)
            gone, turned = np.abs(self._way[keyframe.id] - self._way[candidate])
            reason = back.implausible(gone, turned, self._config)
            if not reason:
                accepted = self._is_confirmed(back)
                is_straight = back.is_straight(self._config)
                reason = ("agrees with the map" if is_straight else "closed") if accepted else WAITS
        self._note(keyframe, candidate, score, found.matches, found.inliers, reason, accepted)
        if accepted:
            poses = {} if is_straight else self._bent(keyframe.id, candidate, found.view, pair, scale)
            self._link(keyframe.id, candidate, found.view, pair, poses)
        return accepted

    def _recognise(self, keyframe: NewKeyframe, candidate: int, pair: Comparison) -> tuple[Recognised, float]:
        """What the keyframe sees of the place, and how many of its metres are one of the old map's."""
        if self._config.scale == "fixed":
            return self._recogniser.recognise(keyframe.frame, pair.place), 1.0
        mapper, camera = self._mapper, self._mapper.camera
        here, there = self._ask(lambda: (seen_by(mapper.map, keyframe.id, camera), seen_by(mapper.map, candidate)))
        similar = find_similarity(here, there, camera.pinhole, mapper.extractor.max_distance)
        if similar.S_here_there is None:
            return Recognised(None, similar.matches, similar.inliers, "no similarity"), 1.0
        scale = float(sim3.split(similar.S_here_there)[0])
        return self._recogniser.recognise(stretched(keyframe.frame, 1.0 / scale), pair.place), scale

    def _forget_removed(self, candidate: int) -> bool:
        self._index.remove([candidate])
        self._time.pop(candidate, None)
        return False

    def _is_confirmed(self, back: Return) -> bool:
        """Whether enough of the last keyframes call for the same correction; this one is a witness from now on."""
        self._witnesses = [each for each in self._witnesses if back.id - each.id <= self._config.memory]
        agreeing = 1 + sum(back.agrees(each, self._config) for each in self._witnesses)
        self._witnesses.append(back)
        return agreeing >= self._config.witnesses

    def _note(self, keyframe, match, score, n_matches, n_inliers, reason, accepted) -> None:
        row = (keyframe.timestamp, self._stamp[match], keyframe.id, match, score, n_matches, n_inliers)
        self.audit.append(LoopCandidate(*row, accepted, reason))

    # -- correcting ---------------------------------------------------------------------------------------------

    def _bent(self, query: int, match: int, view: MapView, pair: Comparison, scale: float) -> Poses:
        """Where the keyframes are after their graph has been bent until the loop fits."""
        graph: EssentialGraph = self._ask(self._mapper.essential_graph)
        S_query_match = sim3.compose(scale, view.T_cw @ se3.inverse(pair.T_match))
        return bend(graph, query, match, S_query_match, free=self._config.scale == "free")

    def _link(self, query: int, match: int, view: MapView, pair: Comparison, poses: Poses) -> None:
        """Move keyframes to `poses`, make one of what was mapped twice, adjust the whole map later."""
        feature = np.flatnonzero(view.point >= 0)
        at = view.point[feature]
        sighting = Sighting(query, match, feature, pair.place.row[at], pair.place.generation[at])
        self._ask(lambda: self._mapper.close_loop(sighting, poses))
        self._witnesses, self._is_linked, self._noted_at = [], True, self._last.timestamp
        self._adjust_later()

    def _adjust_later(self) -> None:
        if not self._config.global_iterations:
            return
        self._stop[0] = 1  # an adjustment under way knows nothing of this loop
        self._stop = np.zeros(1, np.uint8)
        stop = self._stop
        self._later(lambda: self._adjust(stop))

    def _adjust(self, stop: np.ndarray) -> None:
        began = time.thread_time()
        whole = self._ask(self._mapper.whole_problem)
        if whole is not None and not stop[0]:
            iterations = self._config.global_iterations
            rounds = (Round(iterations // 2, robust=True), Round(iterations - iterations // 2, robust=False))
            solution = adjust(whole.problem, self._mapper.optimizer, rounds, stop_flag=stop)
            if not stop[0]:
                self._ask(lambda: self._mapper.commit_whole(whole, solution))
        self.cpu_s += time.thread_time() - began

    def stop(self) -> None:
        """End a global adjustment under way; the map stays as it is."""
        self._stop[0] = 1


def firm_links(keyframe: NewKeyframe) -> list[int]:
    """The keyframes that share enough points with this one."""
    return [other for other, shared in keyframe.covisible.items() if shared >= FIRM]


def revisited(keyframe: NewKeyframe, min_gap_s: float) -> int | None:
    """The covisible keyframe that shares most points with this one of those more than `min_gap_s` older, if there was a
    time of AWAY_S in between in which nothing of what it shows was seen; else None. Firm links count alone."""
    firm = {other: t for other, t in keyframe.covisible_at.items() if keyframe.covisible[other] >= FIRM}
    times = np.array(sorted([*firm.values(), keyframe.timestamp]))
    left = times[:-1][np.diff(times) >= AWAY_S]
    old = [] if not len(left) else [other for other, t in firm.items() if t <= min(left[-1], times[-1] - min_gap_s)]
    return max(old, key=keyframe.covisible.__getitem__, default=None)


def bend(graph: EssentialGraph, query: int, match: int, S_query_match: np.ndarray, free: bool) -> dict[int, np.ndarray]:
    """`T_cw` by keyframe id after the graph has been bent so that `query` is at `S_query_match` from `match`.

    With a `free` scale `S_cw`: the first keyframe holds its place, `query` its scale, which is that of depth to come.
    """
    row = {int(keyframe): k for k, keyframe in enumerate(graph.id)}
    if query not in row or match not in row:
        return {}
    a, b = graph.links.T
    T_b_a = graph.T_cw[b] @ np.linalg.inv(graph.T_cw[a])
    weight = np.clip(graph.shared / FULL_WEIGHT, LEAST_WEIGHT, None)
    links = np.concatenate([graph.links, [[row[match], row[query]]]])
    S_b_a, weight = np.concatenate([T_b_a, S_query_match[None]]), np.append(weight, LOOP_SHARED / FULL_WEIGHT)
    poses = (optimise_similarities if free else optimise)(graph.T_cw, links, S_b_a, weight)
    if free:
        scale = float(sim3.split(poses[row[query]])[0])
        poses = poses @ sim3.inverse(enlarged(scale, graph.T_cw[0]))
    return {int(keyframe): pose for keyframe, pose in zip(graph.id, poses, strict=True)}


def enlarged(scale: float, T_cw: np.ndarray) -> np.ndarray:
    """The similarity (4, 4) that makes the world so many times larger, seen from a camera's centre."""
    centre = se3.inverse(T_cw)[:3, 3]
    S = sim3.compose(scale, np.eye(4))
    S[:3, 3] = (1.0 - scale) * centre
    return S
