"""The whole system: the only place that knows about threads."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from vslam.config import Config
from vslam.errors import VslamError
from vslam.frontend import as_grey, make_extractor
from vslam.geometry import se3
from vslam.mapping.archive import StoredMap, check_compatible, features_key
from vslam.mapping.local_mapper import LocalMapper
from vslam.mapping.map import Map
from vslam.pace import Mapped, Pace
from vslam.places.descriptor import make_place
from vslam.places.index import PlaceIndex
from vslam.places.loop_closer import LoopCloser
from vslam.places.recall import Recall
from vslam.tracking.relocalise import Recogniser
from vslam.tracking.stages import StageClock
from vslam.tracking.tracker import Anchor, Tracker
from vslam.tracking.view import Viewer
from vslam.types import Camera, KeyframeRequest, LocalMap, LoopCandidate, RawFrame, Tracked, Trajectory
from vslam.worker import Worker

Mode = Literal["threaded", "realtime", "deterministic"]
SWITCH_INTERVAL_S = 5e-4  # a thread that comes back from a kernel waits at most this long for the interpreter


class System:
    """RGB-D SLAM: give it frames, get poses.

    Args:
        camera: intrinsics of all frames.
        config: settings; None for the defaults.
        mode: `threaded` maps in a thread beside tracking, and tracking waits for mapping that is late, so that the same
            frames give the same poses as long as no loop is closed; `realtime` never waits but takes the map as it is,
            for a camera that goes on whatever happens; `deterministic` does all between frames, so that the same frames
            give the same poses to the last bit.
        stored: a map to go on in, see `vslam.mapping.archive`; poses are then in its world, from the first frame that
            shows a place of it.
        localize: leave that map as it is: track in it, add nothing.

    Use it in a `with` block, or call `close()`.
    """

    def __init__(
        self,
        camera: Camera,
        config: Config | None = None,
        mode: Mode = "threaded",
        stored: StoredMap | None = None,
        localize: bool = False,
    ):
        config = config or Config()
        self.camera, self._config = camera, config
        extractor = make_extractor(config.extractor)
        extractor.extract(np.zeros((camera.height, camera.width), np.uint8))  # networks compile for a size on first use
        self._is_fault_told = False
        self._last_timestamp = -np.inf
        most, gap_s = config.extractor.max_keypoints, config.loop.min_gap_s
        self._mapper = LocalMapper(camera, extractor, config.mapping, most, near_s=gap_s)
        self._localize = localize
        self._place = make_place(config.place)
        self._index = PlaceIndex(self._place.dim, self._place.model) if self._place is not None else None
        if stored is not None:
            self._take_over(stored)
        elif localize:
            raise VslamError("localize: there is no map to track in; give one")
        self._is_threaded = mode != "deterministic"
        self._mapping = Worker("vslam-mapping", self._is_threaded)
        self._places = Worker("vslam-places", self._is_threaded)
        self._background = Worker("vslam-background", self._is_threaded)
        self._first = len(self._mapper.map.timestamp_of)  # keyframe of this run
        self._closer, recall = self._know_places(extractor)
        is_paced = mode == "threaded" and not localize
        self._pace = Pace(config.mapping.max_waiting, self._raise_fault) if is_paced else None
        if self._pace is not None:
            self._pace.turn_to(self._mapper.local_map)
        self._tracker = Tracker(camera, extractor, config, self._local_map, self._submit, recall)
        cap_threads()

    def _take_over(self, stored: StoredMap) -> None:
        """Go on in a stored map; the tracker begins lost in it."""
        model = self._place.model if self._place is not None else ""
        check_compatible(stored, self.camera, features_key(self._config.extractor), model)
        if self._index is None or not len(stored.place_ids):
            lacks = f"{stored.name}: holds no places" if self._index is not None else "place: none"
            raise VslamError(f"{lacks}; a camera is found in a map by its places: use --place, when saving and loading")
        self._mapper.map = stored.map
        self._index.add(stored.place_ids, stored.place_vectors)
        self._mapper.turn_to(max(stored.map.slot_of))

    def _know_places(self, extractor: Any) -> tuple[LoopCloser | None, Recall | None]:
        config, mapper, place, index = self._config, self._mapper, self._place, self._index
        if place is None or index is None:
            return None, None
        viewer = Viewer(self.camera, extractor, config.tracking)
        recogniser = Recogniser(self.camera, extractor, viewer, config.recognition)
        closer = LoopCloser(
            place, index, mapper, recogniser, config.loop, self._mapping.ask, self._background.do, self._first
        )
        recall = Recall(
            place, index, lambda keyframe: self._mapping.ask(lambda: mapper.around(keyframe)),
            self._turn_to, config.recognition.candidates,
        )  # fmt: skip
        return closer, recall

    def track(self, raw: RawFrame) -> Tracked:
        """Estimate the pose of one frame.

        Raises:
            VslamError: the frame is not what `RawFrame` says, has another size than the camera, or is not newer than
                the one before. The next frame may be good.
            Exception: mapping failed. The run is over; `trajectory()` and the others still give what came before.
        """
        self._wait_for_mapping()
        if self._pace is not None:
            self._pace.next_frame()
        clock = StageClock()
        raw, grey = checked_frame(raw, self.camera)
        self._check_order(raw.timestamp)
        clock.mark("prepare")
        tracked = self._tracker.track(raw, grey, clock)
        if not self._is_threaded:
            self.drain()
        return tracked

    def trajectory(self) -> Trajectory:
        """Every tracked frame so far, `T_world_camera`, after all corrections of the map."""
        self._settle()
        with self._mapper.map.lock:
            anchors = [a for a in self._tracker.anchors if a.reference in self._mapper.map]
            poses = [se3.inverse(pose_of(anchor, self._mapper.map)) for anchor in anchors]
        return Trajectory(np.array([a.timestamp for a in anchors]), np.array(poses).reshape(-1, 4, 4))

    def keyframes(self) -> Trajectory:
        """The keyframes that this run has added to the map, `T_world_camera`."""
        self._settle()
        map_ = self._mapper.map
        with map_.lock:
            ids = sorted(keyframe for keyframe in map_.slot_of if keyframe >= self._first)
            poses = [se3.inverse(map_.pose(keyframe)) for keyframe in ids]
            timestamps = [map_.timestamp_of[keyframe] for keyframe in ids]
        return Trajectory(np.array(timestamps), np.array(poses).reshape(-1, 4, 4))

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Map points: `xyz` (P, 3) float64 world metres, `rgb` (P, 3) uint8."""
        self._settle()
        points = self._mapper.map.points
        if points is None:
            return np.empty((0, 3)), np.empty((0, 3), np.uint8)
        rows = np.flatnonzero(points.alive)
        return points.xyz[rows], points.rgb[rows]

    def stored(self, images: dict[int, str] | None = None, meta: dict[str, Any] | None = None) -> StoredMap:
        """The map as it is now, ready for `save_map`; `images` names image files of keyframes."""
        self._settle()
        name = self._config.extractor.name
        stored = StoredMap(self._mapper.map, self.camera, name, features_key(self._config.extractor))
        if self._place is not None and self._index is not None:
            ids, vectors = self._index.content()
            stored = replace(stored, place_model=self._place.model, place_ids=ids, place_vectors=vectors)
        return replace(stored, images=images or {}, meta=meta or {})

    @property
    def map(self) -> Map:
        """The map itself; read it under its lock, or when nothing is under way."""
        return self._mapper.map

    @property
    def first_keyframe(self) -> int:
        """Id of the first keyframe that this run adds; those before it are of a loaded map."""
        return self._first

    @property
    def map_size(self) -> tuple[int, int]:
        """Keyframes and points in the map, without waiting for mapping."""
        return len(self._mapper.map), self._mapper.map.point_count

    @property
    def map_bytes(self) -> int:
        """Memory that the map holds."""
        return self._mapper.map.nbytes

    @property
    def mapping_ms(self) -> dict[str, list[float]]:
        """Wall times of the stages of mapping, one entry per keyframe."""
        return {stage: list(times) for stage, times in self._mapper.stage_ms.items()}

    @property
    def audit(self) -> tuple[LoopCandidate, ...]:
        """Every place that was compared with a keyframe, and what came of it."""
        return tuple(self._closer.audit) if self._closer is not None else ()

    @property
    def loops(self) -> int:
        """Old places come back to: loops closed, and those that tracking found by itself."""
        return self._closer.loops if self._closer is not None else 0

    @property
    def loop_cpu_s(self) -> float:
        """CPU time of describing places and closing loops."""
        return self._closer.cpu_s if self._closer is not None else 0.0

    def drain(self) -> None:
        """Wait until mapping, loop closing and global adjustment have worked off what there is.

        Raises:
            Exception: one of them failed.
        """
        for worker in self._workers:  # each gives work to the next one only
            worker.drain()
        self._raise_fault()

    def close(self) -> None:
        """End the threads; what has been computed stays readable. Safe to call twice."""
        if self._closer is not None:
            self._closer.stop()
        self._background.close()
        self._places.close()
        self._mapping.close()

    @property
    def _workers(self) -> tuple[Worker, Worker, Worker]:
        return self._mapping, self._places, self._background

    def __enter__(self) -> System:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        if kind is None:
            self._settle()

    # -- threads ------------------------------------------------------------------------------------------------

    def _local_map(self) -> LocalMap | None:
        newest = self._mapper.local_map
        return newest if self._pace is None else self._pace.local_map(newest)

    def _turn_to(self, keyframe: int) -> None:
        self._mapping.ask(lambda: self._mapper.turn_to(keyframe))
        if self._pace is not None:
            self._pace.turn_to(self._mapper.local_map)

    def _submit(self, request: KeyframeRequest) -> None:
        mapped = self._pace.expect() if self._pace is not None else None
        self._mapping.do(lambda: self._mapper.follow(request) if self._localize else self._map(request, mapped))

    def _map(self, request: KeyframeRequest, mapped: Mapped | None) -> None:
        keyframe = self._mapper.process(request, mapped.new.set_result if mapped is not None else None)
        if mapped is not None:
            mapped.done.set_result(self._mapper.local_map)
        if self._closer is not None:
            self._places.do(lambda: self._closer.process(keyframe))

    def _wait_for_mapping(self) -> None:
        """Hold tracking while mapping is too far behind, and until the first keyframe is mapped."""
        self._raise_fault()
        self._mapping.hold(self._config.mapping.max_waiting if self._mapper.local_map is not None else 0)
        self._raise_fault()

    def _settle(self) -> None:
        """Wait for mapping; a fault is raised unless the caller knows of it, who then wants what there is."""
        if self._is_fault_told:
            return
        self.drain()

    def _raise_fault(self) -> None:
        for worker in self._workers:
            if worker.fault is not None:
                self._is_fault_told = True
                raise worker.fault

    def _check_order(self, timestamp: float) -> None:
        if timestamp <= self._last_timestamp:
            raise VslamError(
                f"frame {timestamp:.6f}: not newer than the frame before ({self._last_timestamp:.6f}); "
                "give frames in the order of time"
            )
        self._last_timestamp = timestamp


def pose_of(anchor: Anchor, map_: Map) -> np.ndarray:
    """`T_cw` (4, 4) of a tracked frame in the map as it is now."""
    T_frame_reference = anchor.T_frame_reference.copy()
    T_frame_reference[:3, 3] *= map_.metres_since(anchor.epoch, anchor.reference)
    return T_frame_reference @ map_.pose(anchor.reference)


def checked_frame(raw: RawFrame, camera: Camera) -> tuple[RawFrame, np.ndarray]:
    """`raw` with its depth as kernels take it (float32, contiguous, 0 where there is none), and its grey image.

    Raises:
        VslamError: not a frame, or not one of this camera.
    """
    timestamp = _seconds(raw.timestamp, "timestamp")
    where = f"frame {timestamp:.6f}"
    if isinstance(raw.image, np.ndarray):  # `as_grey` speaks about what is none
        _check_size(where, "image", raw.image.shape[:2], camera)
    grey = _own(as_grey(raw.image), np.uint8)
    depth = None if raw.depth is None else _metres(raw.depth, where, camera)
    delay = _seconds(raw.depth_delay, "depth_delay")
    return replace(raw, timestamp=timestamp, depth=depth, depth_delay=delay), grey


def _metres(depth: np.ndarray, where: str, camera: Camera) -> np.ndarray:
    if isinstance(depth, np.ndarray) and depth.shape[2:] == (1,):
        depth = depth[:, :, 0]
    if not isinstance(depth, np.ndarray) or depth.dtype.kind != "f" or depth.ndim != 2:
        found = f"{depth.dtype} {depth.shape}" if isinstance(depth, np.ndarray) else type(depth).__name__
        raise VslamError(
            f"{where}: depth is {found}; need a float32 array (H, W) in metres: divide raw depth by its units per metre"
        )
    _check_size(where, "depth", depth.shape, camera)
    depth = _own(depth, np.float32)
    if not (depth.min() >= 0.0 and depth.max() < np.inf):  # some sensors give NaN or infinity for none
        depth = np.where((depth > 0.0) & (depth < np.inf), depth, np.float32(0.0))
    return depth


def _check_size(where: str, name: str, shape: tuple[int, ...], camera: Camera) -> None:
    if shape != (camera.height, camera.width):
        size = "x".join(map(str, shape[::-1]))
        raise VslamError(
            f"{where}: {name} is {size}, the camera {camera.width}x{camera.height}; "
            "give matching images or another camera"
        )


def _own(array: np.ndarray, kind: type) -> np.ndarray:
    """The array in the one form that kernels are compiled for; a copy only where it has another."""
    return np.require(array, kind, ["C", "W", "E"])


def _seconds(value: float, name: str) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise VslamError(f"frame: {name} is {value}; need a number of seconds")
    return seconds


def cap_threads() -> None:
    """Parallelism comes from the stages: one thread for each library, short turns for the interpreter."""
    import cv2
    import faiss

    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
