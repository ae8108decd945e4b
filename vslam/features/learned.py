"""Learned keypoints and descriptors: SuperPoint-class floats and GCNv2-class bits, from networks of our own.

A user's own checkpoint, converted by `vslam models convert`, runs the same way through `weights`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from vslam.errors import VslamError
from vslam.features import maps
from vslam.inference.models import find_model
from vslam.inference.session import Session, open_session
from vslam.types import Features

STRIDE = 16
"""Inputs are padded to whole multiples of the coarsest stride of any network known here."""


@dataclass(frozen=True)
class Config:
    """Settings of the learned extractors (`extractor.options`)."""

    backend: Literal["auto", "onnx", "openvino", "torch"] = "auto"
    precision: Literal["auto", "fp32", "int8"] = "auto"
    weights: str = ""  # an ONNX file of your own; empty: the shipped network
    image_size: tuple[int, ...] = (320, 240)  # images are shrunk into this; (0, 0) leaves them as they are
    threshold: float = 0.005  # keypoint probability of a pixel
    weak_threshold: float = 0.0015  # the same where fewer than `at_least` reach it, as on plain walls
    at_least: int = 500
    nms_radius: int = 3  # pixels of the network's input
    border: int = 4  # pixels without keypoints, where the network saw padding
    candidates: float = 1.2  # so many times the wanted keypoints, the best ones, are spread over the image
    use_reliability: bool = True  # rank by the chance of finding the mate too
    sigma: float = 0.0  # of a keypoint on average, pixels of the network's input; 0: as measured for the shipped one


class Learned:
    """What the extractors share: an image through a network, its maps to features."""

    metric = "l2"
    scale_pyramid = False
    max_distance = 0.6  # 2 - 2 cos; 98 of 100 right matches, up to 50 frames apart, are nearer
    network = ""
    Config = Config

    def __init__(self, max_keypoints: int = 1000, options: Config = Config()):
        self._max_keypoints = max_keypoints
        self._options = options
        self._sigma = options.sigma
        self._session = self._open(options)
        self._work = maps.Workspace()
        self._search = maps.Search(
            options.threshold, options.weak_threshold, options.at_least, options.nms_radius, options.border
        )

    def extract(self, image: np.ndarray) -> Features:
        """Features of a grey uint8 image (H, W); an image without texture simply has none."""
        small = shrink(image, self._options.image_size)
        outputs = self._session.run(as_input(small))
        xy, score, share = self._keypoints(outputs, small.shape)
        described = outputs["descriptors"][0]
        stride = outputs["score"].shape[2] // described.shape[1]
        descriptors = maps.describe(described, stride, xy, self.metric == "hamming")
        zoom = np.array([image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]], np.float32)
        sigma = share * np.float32(self._sigma * zoom.mean())
        octave, angle = np.zeros(len(xy), np.uint8), np.zeros(len(xy), np.float32)
        return Features((xy + 0.5) * zoom - 0.5, sigma, score, octave, angle, descriptors)

    def _keypoints(
        self, outputs: dict[str, np.ndarray], shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places (N, 2) in the shrunk image, scores (N,) and shares of sigma (N,) of the keypoints that are kept."""
        options = self._options
        xy, score, sigma = maps.find_in_outputs(outputs, shape, self._search, self._work, options.use_reliability)
        if len(score) > options.candidates * self._max_keypoints:
            best = np.argsort(-score, kind="stable")[: int(options.candidates * self._max_keypoints)]
            xy, score, sigma = xy[best], score[best], sigma[best]
        chosen = maps.best_spread(xy, score, self._max_keypoints, shape)
        return xy[chosen], score[chosen], sigma[chosen]

    def _open(self, options: Config) -> Session:
        if options.weights:
            file = Path(options.weights).expanduser()
        else:
            model = find_model(self.network)
            file = model.file(options.precision)
            self._sigma = self._sigma or model.sigma
        self._sigma = self._sigma or 1.0  # own weights, nothing measured: whole pixels
        session = open_session(file, options.backend)
        if not {"score", "descriptors"} <= set(session.outputs):
            found = ", ".join(session.outputs)
            raise VslamError(
                f"{file}: gives {found}, not 'score' and 'descriptors'; convert it with 'vslam models convert'"
            )
        return session


class SuperPoint(Learned):
    """Cell detector and 64 float32 values of unit length."""

    network = "superpoint"


class Gcnv2(Learned):
    """The same trunk with 256 bits, compared by Hamming distance."""

    metric = "hamming"
    max_distance = 72.0  # bits; 99 of 100 right matches, up to 50 frames apart, are nearer
    network = "gcnv2"


class Gcnv2Tiny(Gcnv2):
    """A narrower network for slow machines."""

    network = "gcnv2-tiny"


def shrink(image: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
    """The image (H, W) shrunk, never enlarged, in proportion so that it fits into `box` (width, height)."""
    if not any(box):
        return image
    factor = max(image.shape[1] / box[0], image.shape[0] / box[1])
    if factor <= 1:
        return image
    size = (max(1, round(image.shape[1] / factor)), max(1, round(image.shape[0] / factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def as_input(image: np.ndarray) -> np.ndarray:
    """A uint8 image (H, W) as float32 (1, 1, H', W') in [0, 1]; the edge is repeated up to multiples of the stride."""
    height, width = image.shape
    bottom, right = -height % STRIDE, -width % STRIDE
    if bottom or right:
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return np.multiply(image, np.float32(1 / 255), dtype=np.float32)[None, None]
