"""An RGB-D sequence kept as image files: what the layouts' readers hand out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vslam.datasets.registration import DepthCamera, register
from vslam.errors import FrameError, VslamError
from vslam.types import Camera, Pinhole, RawFrame, Trajectory

log = logging.getLogger(__name__)

DEPTH_POSSIBLE_M = (0.1, 50.0)  # a median outside cannot be an indoor or street scene: the scale is wrong
DEPTH_USUAL_M = (0.4, 10.0)  # what structured light and time-of-flight sensors see
_PROBES = 3  # frames looked at for the median depth when a sequence is opened


@dataclass(frozen=True)
class RgbdSequence:
    """Frames are pairs of a colour (or grey) image and a 16-bit depth image, decoded when asked for.

    `timestamps` (N,) float64 s; `images` and `depths` their files; `delays` (N,) s, how much later than the image the
    depth was taken (None: not at all); `truth` poses in the dataset's own world; `no_depth` a raw value that, besides
    0, means that there is no depth; `sensor` the camera that saw the depth, where that is not registered to the images
    yet (it is when a frame is loaded).
    """

    name: str
    camera: Camera
    timestamps: np.ndarray
    images: list[Path]
    depths: list[Path]
    delays: np.ndarray | None = None
    truth: Trajectory | None = None
    no_depth: int | None = None
    sensor: DepthCamera | None = None

    def __len__(self) -> int:
        return len(self.timestamps)

    def load(self, index: int) -> RawFrame:
        """Decode frame `index`; thread-safe.

        Raises:
            FrameError: a file is missing, does not decode, or does not fit the camera.
        """
        image = read_image(self.images[index])
        _check_size(self.images[index], image, self.camera)
        depth = read_depth(self.depths[index], self.camera.depth_scale, self.no_depth)
        _check_size(self.depths[index], depth, self.sensor or self.camera)
        if self.sensor is not None:
            depth = register(depth, self.sensor, self.camera)
        delay = 0.0 if self.delays is None else float(self.delays[index])
        return RawFrame(float(self.timestamps[index]), image, depth, depth_delay=delay)

    def check(self) -> RgbdSequence:
        """Decode the first frame, and two more depth images, to find a wrong camera file before a run; returns self.

        Raises:
            VslamError: the first frame cannot be read, or the depth scale puts the scene out of reach.
        """
        depths = [self.load(0).depth]
        for index in np.linspace(0, len(self) - 1, min(_PROBES, len(self))).astype(int)[1:]:
            try:
                depths.append(self.load(index).depth)
            except FrameError as error:  # one bad frame in the middle does not stop a run
                log.warning("%s", error)
        self._check_median(depths)
        if self.truth is not None:
            self._check_truth(self.truth)
        return self

    def _check_median(self, depths: list[np.ndarray]) -> None:
        measured = np.concatenate([depth[depth > 0] for depth in depths])
        if not len(measured):
            log.warning("%s: no depth in the first image; tracking needs some", self.depths[0])
            return
        median = float(np.median(measured))
        says = f"{self.depths[0]}: the median depth is {median:.3g} m at depth_scale {self.camera.depth_scale:g}"
        cure = "set depth_scale (units per metre: TUM 5000, millimetres 1000) in camera.yaml"
        if not DEPTH_POSSIBLE_M[0] <= median <= DEPTH_POSSIBLE_M[1]:
            raise VslamError(f"{says}, not between {DEPTH_POSSIBLE_M[0]} and {DEPTH_POSSIBLE_M[1]:g} m; {cure}")
        if not DEPTH_USUAL_M[0] <= median <= DEPTH_USUAL_M[1]:
            log.warning("%s; unusual: if it is wrong, %s", says, cure)

    def _check_truth(self, truth: Trajectory) -> None:
        first, last = truth.timestamps[0], truth.timestamps[-1]
        if self.timestamps[-1] < first or self.timestamps[0] > last:
            log.warning(
                "%s: ground truth from %.3f to %.3f s has no moment in common with the images (%.3f to %.3f s)",
                self.name, first, last, self.timestamps[0], self.timestamps[-1],
            )  # fmt: skip


def read_image(path: Path) -> np.ndarray:
    """Colour as (H, W, 3) BGR uint8, grey as (H, W) uint8.

    Raises:
        FrameError: missing or does not decode.
    """
    import cv2

    return _decode(path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def read_depth(path: Path, depth_scale: float, no_depth: int | None = None) -> np.ndarray:
    """Depth (H, W) float32 in metres, 0 = none, of a 16-bit image in units of 1 / `depth_scale` m.

    Raises:
        FrameError: missing, does not decode, is not 16-bit or has several channels.
    """
    import cv2

    raw = _decode(path, cv2.IMREAD_UNCHANGED)
    if raw.dtype != np.uint16 or raw.ndim != 2:
        found = f"{8 * raw.dtype.itemsize}-bit" + (f" with {raw.shape[2]} channels" if raw.ndim == 3 else "")
        raise FrameError(
            f"{path}: depth is {found}; vslam needs a 16-bit PNG of one channel in units of 1/{depth_scale:g} m "
            "(camera.yaml: depth_scale)"
        )
    depth = np.multiply(raw, np.float32(1 / depth_scale), dtype=np.float32)
    if no_depth is not None:
        depth[raw == no_depth] = 0
    return depth


def _decode(path: Path, flags: int) -> np.ndarray:
    import cv2

    try:
        data = path.read_bytes()
    except OSError as error:
        raise FrameError(f"{path}: cannot be read: {error.strerror}; fetch the sequence again") from None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data and not _is_cut_short(data) else None
    if image is None:
        raise FrameError(f"{path}: does not decode as an image ({len(data)} bytes); fetch the sequence again")
    return image


def _is_cut_short(data: bytes) -> bool:
    """A PNG or JPEG without its end mark; decoders fill such an image with grey and say nothing."""
    tail = data[-1024:]
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    return data.startswith(b"\xff\xd8") and b"\xff\xd9" not in tail


def _check_size(path: Path, image: np.ndarray, camera: Pinhole) -> None:
    height, width = image.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise FrameError(
            f"{path}: image is {width}x{height}, the camera {camera.width}x{camera.height}; both images must have the "
            "size that camera.yaml states (depth that is not registered to colour: see depth_camera there)"
        )
