"""The values that travel between stages: plain arrays in small frozen dataclasses.

Conventions (docs/architecture.md): `T_world_camera` maps camera to world coordinates, float64 (4, 4);
camera axes x right, y down, z forward; metres, seconds, radians; pixel (0, 0) is the centre of the
top-left pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

VIRTUAL_BASELINE_M = 0.08
"""Baseline of the virtual right camera of an RGB-D sensor that states none (structured light: about 75 mm)."""


@dataclass(frozen=True)
class Pinhole:
    """Intrinsics: `fx fy cx cy` and the image's `width height`, in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    @property
    def K(self) -> np.ndarray:
        """Intrinsic matrix, float64 (3, 3)."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Camera(Pinhole):
    """A pinhole camera with optional radial-tangential distortion.

    Besides the intrinsics of `Pinhole`: `fps` in Hz, `depth_scale` in depth units per metre,
    `baseline` in metres (stereo, or the virtual one of RGB-D), `distortion` = (k1, k2, p1, p2, k3), the model of
    Brown (1971) as OpenCV defines it. `readout` is how many seconds after the first row the last one is exposed: 0 for
    a global shutter, most of a frame's time for the rolling shutter of a cheap colour sensor.
    """

    fps: float = 30.0
    depth_scale: float = 5000.0
    baseline: float = VIRTUAL_BASELINE_M
    distortion: tuple[float, ...] = ()
    readout: float = 0.0

    @property
    def pinhole(self) -> np.ndarray:
        """`(fx, fy, cx, cy, fx * baseline)`, float64 (5,): what kernels take."""
        return np.array([self.fx, self.fy, self.cx, self.cy, self.fx * self.baseline])

    def project(self, xyz: np.ndarray) -> np.ndarray:
        """Undistorted pixels (N, 2) of points (N, 3) in the camera frame; z must be positive."""
        return xyz[:, :2] / xyz[:, 2:3] * (self.fx, self.fy) + (self.cx, self.cy)

    def unproject(self, xy: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Points (N, 3) in the camera frame of undistorted pixels (N, 2) at depths (N,) in metres."""
        rays = (np.asarray(xy, np.float64) - (self.cx, self.cy)) / (self.fx, self.fy)
        return np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * np.asarray(depth, np.float64)[:, None]

    def undistort(self, xy: np.ndarray) -> np.ndarray:
        """Where a pinhole camera of the same intrinsics would see the pixels `xy` (N, 2); float32 (N, 2)."""
        if not any(self.distortion) or not len(xy):
            return np.ascontiguousarray(xy, np.float32)
        import cv2

        points = np.ascontiguousarray(xy, np.float32).reshape(-1, 1, 2)
        return cv2.undistortPoints(points, self.K, np.array(self.distortion), P=self.K).reshape(-1, 2)


@dataclass(frozen=True)
class RawFrame:
    """What a sensor delivers: `timestamp` s, `image` (H, W) or (H, W, 3) BGR uint8, `depth` (H, W) float32 metres
    with 0 = none, registered to the image, `right` (H, W) uint8 of a rectified stereo pair. `depth_delay` says how many
    seconds after the image the depth was taken: sensors that do not trigger both at once are up to half a frame
    apart."""

    timestamp: float
    image: np.ndarray
    depth: np.ndarray | None = None
    right: np.ndarray | None = None
    depth_delay: float = 0.0


@dataclass(frozen=True)
class Features:
    """Keypoints and descriptors of one image, evenly spread, in no promised order.

    `xy` (N, 2) float32 pixels as seen (distorted), `sigma` (N,) float32 standard deviation of `xy` in pixels,
    `score` (N,) float32, `octave` (N,) uint8, `angle` (N,) float32 radians, `descriptors` (N, D) uint8 (Hamming)
    or float32 (unit length, L2).
    """

    xy: np.ndarray
    sigma: np.ndarray
    score: np.ndarray
    octave: np.ndarray
    angle: np.ndarray
    descriptors: np.ndarray

    def __len__(self) -> int:
        return len(self.xy)


@dataclass(frozen=True)
class Matches:
    """`pairs` (K, 2) int32 indices into a and b; `distance` (K,) float32: bits, or 2 - 2 cos for float descriptors."""

    pairs: np.ndarray
    distance: np.ndarray

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Trajectory:
    """`timestamps` (N,) float64 seconds, strictly rising; `poses` (N, 4, 4) float64 `T_world_camera`."""

    timestamps: np.ndarray
    poses: np.ndarray

    def __len__(self) -> int:
        return len(self.timestamps)


class State(StrEnum):
    """What became of a frame. A frame has a pose when its state is OK or WEAK."""

    OK = "ok"
    WEAK = "weak"  # the pose rests on the shape of surfaces, or on very few points
    LOST = "lost"
    DROPPED = "dropped"  # real time: came while the tracker was busy
    UNREADABLE = "unreadable"  # did not decode


class Reason(StrEnum):
    """Why a frame is not simply tracked from its predecessor."""

    NONE = ""
    FIRST_FRAME = "first frame"
    FEW_KEYPOINTS = "few keypoints"
    FEW_MATCHES = "few matches"
    FEW_INLIERS = "few inliers"
    NO_DEPTH = "no depth"
    MOTION_TOO_LARGE = "motion too large"
    FROM_REFERENCE = "from reference keyframe"
    FROM_KEYFRAMES = "from last keyframes"
    FROM_DEPTH = "from depth alone"
    RELOCALISED = "relocalised"  # lost, and found again by the look of the place


@dataclass(frozen=True)
class Tracked:
    """The answer to one frame.

    `T_world_camera` is float64 (4, 4), or None when lost. `matches` and `inliers` count map points found in the frame
    and those that fit its pose. `stage_ms` names the stages and their wall times; `tracking_ms` and
    `tracking_cpu_ms` run from the image in memory to the pose (wall, and CPU of the calling thread). The first pose
    after a loss has in `recovery_s` the seconds since there was enough to see again.
    """

    timestamp: float
    state: State
    reason: Reason = Reason.NONE
    T_world_camera: np.ndarray | None = None
    matches: int = 0
    inliers: int = 0
    keyframe: bool = False
    stage_ms: dict[str, float] = field(default_factory=dict)
    tracking_ms: float = 0.0
    tracking_cpu_ms: float = 0.0
    recovery_s: float | None = None


@dataclass(frozen=True)
class Frame:
    """A frame described: what tracking and mapping work on. N features, all arrays C-contiguous.

    `xy` (N, 2) float32 undistorted pixels; `disparity` (N,) float32 pixels, `fx * baseline / depth`, 0 where there is
    no reliable depth, and its standard deviation `disparity_sigma` (N,); `words` the descriptors as kernels take them;
    `grid` the lookup by position; `rgb` (N, 3) uint8; `surface` the coarse shape of the scene, if there is depth.
    """

    timestamp: float
    features: Features
    xy: np.ndarray
    disparity: np.ndarray
    disparity_sigma: np.ndarray
    words: np.ndarray
    grid: Grid
    rgb: np.ndarray
    surface: Surface | None = None

    def __len__(self) -> int:
        return len(self.xy)


@dataclass(frozen=True)
class Grid:
    """Features in each square of `CELL` pixels: `items[start[c]:start[c + 1]]`, c = row * columns + column."""

    start: np.ndarray
    items: np.ndarray
    columns: int
    rows: int


@dataclass(frozen=True)
class Surface:
    """The scene's shape on a coarse grid of the image: `xyz` (H, W, 3) float32 points in the camera frame, `normal`
    (H, W, 3) float32 towards the camera, and `sigma` (H, W) float32 metres; z = 0 where there is none."""

    xyz: np.ndarray
    normal: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class Surfaces:
    """Shapes that K keyframes at `T_cw` (K, 4, 4) saw: `xyz`, `normal` (K, h, w, 3) in their camera frames."""

    T_cw: np.ndarray
    xyz: np.ndarray
    normal: np.ndarray


@dataclass(frozen=True)
class LocalMap:
    """What the tracker knows of the map: an immutable copy, replaced as a whole.

    M map points: `row` (M,) int32 and `generation` (M,) int32 name them in the map; `xyz` (M, 3) float64 world,
    `normal` (M, 3) float32 mean direction from point to cameras, `size` (M,) float32 keypoint sigma times distance
    (px m), `words` (M, W). `reference` is the newest keyframe's id, `in_reference` (M,) bool the points it sees,
    `T_cw` the poses of recent keyframes by id, `surfaces` the shapes that the newest and the nearest ones saw.
    """

    row: np.ndarray
    generation: np.ndarray
    xyz: np.ndarray
    normal: np.ndarray
    size: np.ndarray
    words: np.ndarray
    in_reference: np.ndarray
    reference: int
    T_cw: dict[int, np.ndarray]
    surfaces: Surfaces | None = None
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class KeyframeRequest:
    """A tracked frame that shall become a keyframe, as the tracker hands it to mapping.

    The pose is `T_frame_reference` relative to keyframe `reference` (-1: the first, `T_frame_reference` is `T_cw`).
    `row`, `generation` (N,) int32 name the map point that each feature saw (-1: none); `visible_row`, `found_row` list
    map points that tracking expected to see and saw since the last request; `noise`: the keypoints are so many times
    less exact than their sigma; `weak`: the pose rests on little; `image` (H, W) uint8 is the frame's, grey.
    """

    frame: Frame
    reference: int
    T_frame_reference: np.ndarray
    row: np.ndarray
    generation: np.ndarray
    visible_row: np.ndarray
    found_row: np.ndarray
    noise: float = 1.0
    weak: bool = False
    image: np.ndarray | None = None


@dataclass(frozen=True)
class NewKeyframe:
    """A keyframe that mapping has taken in, as loop closing gets it.

    `image` (H, W) uint8 is grey; `T_cw` its pose then; `covisible` names keyframes that share points with it and how
    many, `covisible_at` their times.
    """

    id: int
    timestamp: float
    frame: Frame
    image: np.ndarray
    T_cw: np.ndarray
    covisible: dict[int, int]
    covisible_at: dict[int, float]


@dataclass(frozen=True)
class LoopCandidate:
    """One place compared with one keyframe: the times and ids of both, the likeness of their images (cosine), points
    matched by appearance and points that fit one pose, whether a loop was closed here, and why or why not."""

    t_query: float
    t_match: float
    kf_query: int
    kf_match: int
    score: float
    n_matches: int
    n_inliers: int
    accepted: bool
    reason: str
