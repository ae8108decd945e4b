"""The map: points and keyframes in arrays, one row an element, written by the mapping side alone."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from vslam.geometry import se3
from vslam.kernels import njit
from vslam.types import Frame, KeyframeRequest

FIRST_POINTS, FIRST_KEYFRAMES = 4096, 32


class Rows:
    """Arrays of one length that grow together by doubling; freed rows are used again."""

    def __init__(self, capacity: int, fields: dict[str, tuple[tuple[int, ...], type]]):
        for name, (shape, dtype) in fields.items():
            setattr(self, name, np.zeros((capacity, *shape), dtype))
        self._names = tuple(fields)
        self._free = np.arange(capacity - 1, -1, -1, dtype=np.int32)  # used from the end
        self.capacity = capacity

    def take(self, count: int) -> np.ndarray:
        """`count` unused rows (int32); the caller fills them, they hold what they last held."""
        while len(self._free) < count:
            self._double()
        rows, self._free = self._free[len(self._free) - count :][::-1].copy(), self._free[: len(self._free) - count]
        return rows

    def give_back(self, rows: np.ndarray) -> None:
        """Free `rows` for later use."""
        self._free = np.concatenate([self._free, rows[::-1].astype(np.int32)])

    def claim(self, rows: np.ndarray) -> None:
        """Take just these unused `rows`; the caller fills them."""
        while len(rows) and rows.max() >= self.capacity:
            self._double()
        self._free = self._free[~np.isin(self._free, rows)]

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the arrays."""
        return self._names

    @property
    def nbytes(self) -> int:
        """Memory of all arrays."""
        return sum(getattr(self, name).nbytes for name in self._names)

    def _double(self) -> None:
        for name in self._names:
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
        fresh = np.arange(2 * self.capacity - 1, self.capacity - 1, -1, dtype=np.int32)
        self._free = np.concatenate([fresh, self._free])
        self.capacity *= 2


class Points(Rows):
    """Map points. `xyz` world; `normal` mean direction to the cameras; `size` sigma times distance, px m; `words` the
    descriptor; `observations` keyframes that see it; `found` of `visible` times tracking saw it; `born` keyframe id."""

    xyz: np.ndarray
    normal: np.ndarray
    size: np.ndarray
    words: np.ndarray
    rgb: np.ndarray
    observations: np.ndarray
    found: np.ndarray
    visible: np.ndarray
    born: np.ndarray
    generation: np.ndarray
    alive: np.ndarray

    def __init__(self, words: np.ndarray):
        super().__init__(
            FIRST_POINTS,
            {
                "xyz": ((3,), np.float64), "normal": ((3,), np.float32), "size": ((), np.float32),
                "words": (words.shape[1:], words.dtype.type), "rgb": ((3,), np.uint8),
                "observations": ((), np.int32), "found": ((), np.int32), "visible": ((), np.int32),
                "born": ((), np.int32), "generation": ((), np.int32), "alive": ((), np.uint8),
            },
        )  # fmt: skip


class Keyframes(Rows):
    """Keyframes' features, `F` places each: `point` (S, F) the map point a feature shows or -1, `count` how many are
    used; `id` -1 in free rows; `weak` where the pose rests on the shape of surfaces."""

    id: np.ndarray
    weak: np.ndarray
    T_cw: np.ndarray
    count: np.ndarray
    point: np.ndarray
    xy: np.ndarray
    sigma: np.ndarray
    angle: np.ndarray
    disparity: np.ndarray
    disparity_sigma: np.ndarray

    def __init__(self, features: int):
        each = ((features,), np.float32)
        super().__init__(
            FIRST_KEYFRAMES,
            {
                "id": ((), np.int32), "weak": ((), np.uint8), "T_cw": ((4, 4), np.float64), "count": ((), np.int32),
                "point": ((features,), np.int32), "xy": ((features, 2), np.float32), "sigma": each, "angle": each,
                "disparity": each, "disparity_sigma": each,
            },
        )  # fmt: skip
        self.id[:] = -1
        self.features = features

    def _double(self) -> None:
        super()._double()
        self.id[self.capacity // 2 :] = -1


@dataclass(frozen=True)
class Retired:
    """Where a removed keyframe was, relative to one that stays."""

    parent: int
    T_self_parent: np.ndarray


class Map:
    """All points and keyframes. Methods are called by the mapping side only; others read under `lock`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.epoch = 0
        self.points: Points | None = None
        self.keyframes: Keyframes | None = None
        self.frames: dict[int, Frame] = {}  # by slot
        self.slot_of: dict[int, int] = {}  # by keyframe id
        self.timestamp_of: list[float] = []  # by keyframe id, removed ones too
        self.growth: dict[int, np.ndarray] = {}  # new metres of old ones by keyframe, by epoch
        self._retired: dict[int, Retired] = {}

    def __len__(self) -> int:
        return len(self.slot_of)

    def __contains__(self, keyframe: int) -> bool:
        """Whether `pose` knows this keyframe, removed or not."""
        return keyframe in self.slot_of or keyframe in self._retired

    @property
    def point_count(self) -> int:
        """Map points alive."""
        return int(self.points.alive.sum()) if self.points else 0

    @property
    def nbytes(self) -> int:
        """Memory of the map's arrays and its keyframes' frames, bytes."""
        if self.points is None:
            return 0
        frames = sum(frame_bytes(frame) for frame in self.frames.values())
        return self.points.nbytes + self.keyframes.nbytes + frames

    @property
    def retired(self) -> dict[int, Retired]:
        """Removed keyframes, by id."""
        return self._retired

    def metres_since(self, epoch: int, keyframe: int) -> float:
        """How many metres one of a keyframe's metres in an epoch is now."""
        return float(np.prod([grown[keyframe] for began, grown in self.growth.items() if began > epoch]))

    def pose(self, keyframe: int) -> np.ndarray:
        """`T_cw` (4, 4) of a keyframe by id; a removed one moves with the keyframe it was tied to."""
        chain = np.eye(4)
        while keyframe in self._retired:
            chain = chain @ self._retired[keyframe].T_self_parent
            keyframe = self._retired[keyframe].parent
        return chain @ self.keyframes.T_cw[self.slot_of[keyframe]]

    def insert(self, request: KeyframeRequest, capacity: int) -> int:
        """Make a keyframe of a tracked frame; returns its slot. Its features' points are observed anew."""
        if self.points is None:
            self.points, self.keyframes = Points(request.frame.words), Keyframes(max(capacity, len(request.frame)))
        T_reference_world = self.pose(request.reference) if request.reference >= 0 else np.eye(4)
        slot = int(self.keyframes.take(1)[0])
        keyframe = len(self.timestamp_of)
        self.timestamp_of.append(request.frame.timestamp)
        self.slot_of[keyframe], self.frames[slot] = slot, request.frame
        T_cw = request.T_frame_reference @ T_reference_world
        se3.orthonormalise(T_cw)
        self._fill(slot, keyframe, T_cw, request)
        return slot

    def _fill(self, slot: int, keyframe: int, T_cw: np.ndarray, request: KeyframeRequest) -> None:
        keyframes, frame = self.keyframes, request.frame
        n = min(len(frame), keyframes.features)
        keyframes.id[slot], keyframes.T_cw[slot], keyframes.count[slot] = keyframe, T_cw, n
        keyframes.weak[slot] = request.weak
        keyframes.xy[slot, :n], keyframes.sigma[slot, :n] = frame.xy[:n], frame.features.sigma[:n] * request.noise
        keyframes.angle[slot, :n] = frame.features.angle[:n]
        keyframes.disparity[slot, :n] = frame.disparity[:n]
        keyframes.disparity_sigma[slot, :n] = frame.disparity_sigma[:n]
        keyframes.point[slot] = -1
        row = request.row[:n]
        live = row >= 0
        same = self.points.generation[row[live]] == request.generation[:n][live]
        live[live] = same & (self.points.alive[row[live]] > 0)
        features = np.flatnonzero(live)
        self.observe(slot, features, row[features])

    def observe(self, slot: int, features: np.ndarray, rows: np.ndarray) -> None:
        """Note that keyframe `slot` sees points `rows` (K,) at `features` (K,); it describes them from now on."""
        points, keyframes = self.points, self.keyframes
        keyframes.point[slot, features] = rows
        points.observations[rows] += 1
        centre = se3.inverse(keyframes.T_cw[slot])[:3, 3]
        ray = centre - points.xyz[rows]
        distance = np.linalg.norm(ray, axis=1)
        normal = points.normal[rows] * points.observations[rows, None] + ray / distance[:, None]
        points.normal[rows] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        points.size[rows] = self.frames[slot].features.sigma[features] * distance
        points.words[rows] = self.frames[slot].words[features]

    def add_points(self, slot: int, features: np.ndarray, xyz: np.ndarray) -> np.ndarray:
        """New points at `xyz` (K, 3) that keyframe `slot` sees at `features` (K,); returns their rows."""
        rows = self.points.take(len(features))
        points = self.points
        points.alive[rows], points.observations[rows] = 1, 0
        points.found[rows], points.visible[rows] = 1, 1
        points.born[rows] = self.keyframes.id[slot]
        points.xyz[rows], points.normal[rows] = xyz, 0.0
        points.rgb[rows] = self.frames[slot].rgb[features]
        self.observe(slot, features, rows)
        return rows

    def remove_points(self, rows: np.ndarray) -> None:
        """Forget points; whoever still holds one of these rows sees by its generation that it is gone."""
        if not len(rows):
            return
        self.points.alive[rows] = 0
        self.points.generation[rows] += 1
        clear_dead(self.keyframes.id, self.keyframes.point, self.points.alive)
        self.points.give_back(rows)

    def remove_keyframe(self, keyframe: int, parent: int) -> None:
        """Forget a keyframe; its place is kept relative to `parent`."""
        slot = self.slot_of[keyframe]
        T_self_parent = self.keyframes.T_cw[slot] @ se3.inverse(self.keyframes.T_cw[self.slot_of[parent]])
        self._retired[keyframe] = Retired(parent, T_self_parent)  # first, so that its pose is known at any time
        del self.slot_of[keyframe]
        seen = self.keyframes.point[slot]
        seen = seen[seen >= 0]
        self.points.observations[seen] -= 1
        self.keyframes.id[slot], self.keyframes.count[slot], self.keyframes.point[slot] = -1, 0, -1
        del self.frames[slot]
        self.remove_points(seen[self.points.observations[seen] <= 0])
        self.keyframes.give_back(np.array([slot]))


def frame_bytes(frame: Frame) -> int:
    """Memory of a frame's arrays, bytes."""
    arrays = [frame.xy, frame.disparity, frame.disparity_sigma, frame.words, frame.rgb]
    arrays += [frame.grid.items, frame.grid.start]
    if frame.surface is not None:
        arrays += [frame.surface.xyz, frame.surface.normal, frame.surface.sigma]
    return sum(array.nbytes for array in arrays) + frame.features.xy.nbytes * 3


@njit
def clear_dead(ids, point, alive):
    """Set to -1 what keyframes (S, F) still hold of points that are no more."""
    for slot in range(len(ids)):
        if ids[slot] >= 0:
            for f in range(point.shape[1]):
                if point[slot, f] >= 0 and not alive[point[slot, f]]:
                    point[slot, f] = -1


@njit
def shared_points(ids, point, slot, alive, shared):
    """How many points each keyframe (S,) shares with keyframe `slot`: the weights of the covisibility graph."""
    mark = np.zeros(len(alive), np.uint8)
    for f in range(point.shape[1]):
        if point[slot, f] >= 0:
            mark[point[slot, f]] = 1
    for s in range(len(ids)):
        shared[s] = 0
        if ids[s] >= 0 and s != slot:
            for f in range(point.shape[1]):
                p = point[s, f]
                shared[s] += p >= 0 and mark[p] == 1


def count_seen(map_: Map, slots: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(N,) how many of the points `rows` (any shape, -1 for none) keyframes `slots` (N,) see."""
    mark = np.zeros(map_.points.capacity + 1, bool)
    mark[rows] = True
    mark[-1] = False  # of features that show nothing
    return mark[map_.keyframes.point[slots]].sum(axis=1)


def covisible(map_: Map, slot: int) -> tuple[np.ndarray, np.ndarray]:
    """Slots of the keyframes that share points with `slot`, most first (ties: newest first), and how many."""
    keyframes = map_.keyframes
    shared = np.zeros(keyframes.capacity, np.int32)
    shared_points(keyframes.id, keyframes.point, slot, map_.points.alive, shared)
    order = np.lexsort((-keyframes.id, -shared))
    order = order[shared[order] > 0]
    return order, shared[order]
