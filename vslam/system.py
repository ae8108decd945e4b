"""The whole system: the only place that knows about threads."""

from __future__ import annotations

import queue
import sys
import threading
from typing import Literal

import numpy as np

from vslam.config import Config
from vslam.errors import VslamError
from vslam.frontend import as_grey, make_extractor
from vslam.geometry import se3
from vslam.mapping.local_mapper import LocalMapper
from vslam.tracking.tracker import Tracker
from vslam.types import Camera, KeyframeRequest, RawFrame, Tracked, Trajectory

SWITCH_INTERVAL_S = 5e-4  # a thread that comes back from a kernel waits at most this long for the interpreter


class System:
    """RGB-D SLAM: give it frames, get poses.

    Args:
        camera: intrinsics of all frames.
        config: settings; None for the defaults.
        mode: `threaded` maps in a thread beside tracking; `deterministic` maps between frames, so that the same frames
            give the same poses to the last bit.

    Use it in a `with` block, or call `close()`.
    """

    def __init__(
        self,
        camera: Camera,
        config: Config | None = None,
        mode: Literal["threaded", "deterministic"] = "threaded",
    ):
        config = config or Config()
        self.camera, self._config = camera, config
        extractor = make_extractor(config.extractor)
        self._mapper = LocalMapper(camera, extractor, config.mapping, config.extractor.max_keypoints)
        self._tracker = Tracker(camera, extractor, config, lambda: self._mapper.local_map, self._submit)
        self._requests: queue.Queue[KeyframeRequest | None] = queue.Queue()
        self._fault: BaseException | None = None
        self._thread = None
        self._last_timestamp = -np.inf
        cap_threads()
        if mode == "threaded":
            self._thread = threading.Thread(target=self._map_keyframes, name="vslam-mapping", daemon=True)
            self._thread.start()

    def track(self, raw: RawFrame) -> Tracked:
        """Estimate the pose of one frame.

        Raises:
            VslamError: the frame has another size than the camera, or is not newer than the one before.
        """
        self._check(raw)
        self._wait_for_mapping()
        tracked = self._tracker.track(raw, as_grey(raw.image))
        if self._thread is None:
            self._map_waiting()
        return tracked

    def trajectory(self) -> Trajectory:
        """Every tracked frame so far, `T_world_camera`, after all corrections of the map."""
        self.drain()
        with self._mapper.map.lock:
            anchors = self._tracker.anchors
            poses = [se3.inverse(a.T_frame_reference @ self._mapper.map.pose(a.reference)) for a in anchors]
        return Trajectory(np.array([a.timestamp for a in anchors]), np.array(poses).reshape(-1, 4, 4))

    def keyframes(self) -> Trajectory:
        """The keyframes in the map, `T_world_camera`."""
        self.drain()
        map_ = self._mapper.map
        with map_.lock:
            ids = sorted(map_.slot_of)
            poses = [se3.inverse(map_.pose(keyframe)) for keyframe in ids]
        return Trajectory(np.array([map_.timestamp_of[keyframe] for keyframe in ids]), np.array(poses).reshape(-1, 4, 4))

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Map points: `xyz` (P, 3) float64 world metres, `rgb` (P, 3) uint8."""
        self.drain()
        points = self._mapper.map.points
        if points is None:
            return np.empty((0, 3)), np.empty((0, 3), np.uint8)
        rows = np.flatnonzero(points.alive)
        return points.xyz[rows], points.rgb[rows]

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

    def drain(self) -> None:
        """Wait until mapping has worked off all keyframes."""
        if self._thread is not None and self._thread.is_alive():
            self._requests.join()
        self._raise_fault()

    def close(self) -> None:
        """End the mapping thread; what has been computed stays readable. Safe to call twice."""
        if self._thread is not None:
            self._requests.put(None)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> System:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- threads ------------------------------------------------------------------------------------------------

    def _submit(self, request: KeyframeRequest) -> None:
        self._requests.put(request)

    def _wait_for_mapping(self) -> None:
        """Hold tracking while mapping is too far behind, and until the first keyframe is mapped."""
        self._raise_fault()
        if self._thread is None:
            return
        with self._requests.all_tasks_done:
            while self._fault is None and self._requests.unfinished_tasks > self._allowed_waiting():
                self._requests.all_tasks_done.wait()
        self._raise_fault()

    def _allowed_waiting(self) -> int:
        return self._config.mapping.max_waiting if self._mapper.local_map is not None else 0

    def _map_waiting(self) -> None:
        while not self._requests.empty():
            self._mapper.process(self._requests.get())
            self._requests.task_done()

    def _map_keyframes(self) -> None:
        while (request := self._requests.get()) is not None:
            try:
                if self._fault is None:
                    self._mapper.process(request)
            except BaseException as fault:  # handed to the caller's thread, which raises it
                self._fault = fault
            finally:
                self._requests.task_done()
        self._requests.task_done()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _check(self, raw: RawFrame) -> None:
        size = (self.camera.height, self.camera.width)
        for name, image in (("image", raw.image), ("depth", raw.depth)):
            if image is not None and image.shape[:2] != size:
                raise VslamError(
                    f"frame {raw.timestamp:.6f}: {name} is {image.shape[1]}x{image.shape[0]}, "
                    f"the camera {size[1]}x{size[0]}; give matching images or another camera"
                )
        if not raw.timestamp > self._last_timestamp:
            raise VslamError(
                f"frame {raw.timestamp:.6f}: not newer than the frame before ({self._last_timestamp:.6f}); "
                "give frames in the order of time"
            )
        self._last_timestamp = raw.timestamp


def cap_threads() -> None:
    """Parallelism comes from the stages: one thread for each library, short turns for the interpreter."""
    import cv2

    cv2.setNumThreads(1)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
