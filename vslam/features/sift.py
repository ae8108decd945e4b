"""SIFT by OpenCV (Lowe, IJCV 2004), optionally as RootSIFT (Arandjelovic and Zisserman, CVPR 2012)."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import cv2
import numpy as np

from vslam.features.spread import spread
from vslam.types import Features


@dataclass(frozen=True)
class Config:
    """Settings of the SIFT extractor (`extractor.options`)."""

    root: bool = True  # RootSIFT: Hellinger distance, better matches at no cost
    width: int = 320  # pixels that the image is shrunk to first; SIFT is real-time there, not at 640
    contrast_threshold: float = 0.01  # OpenCV's 0.04 leaves plain walls empty
    candidates: float = 2.0  # so many times the wanted keypoints are found, to be thinned out evenly
    sigma: float = 0.5  # pixels of the shrunk image at the finest scale


class Sift:
    """Blobs in scale space with 128 float32 gradients of unit length."""

    metric = "l2"
    scale_pyramid = True
    max_distance = 0.5  # 2 - 2 cos
    Config = Config

    def __init__(self, max_keypoints: int = 1000, options: Config = Config()):
        self._options = options
        self._max_keypoints = max_keypoints
        self._local = threading.local()  # one detector a thread: they keep state

    def extract(self, image: np.ndarray) -> Features:
        """Features of a grey uint8 image (H, W)."""
        shrink = max(1.0, image.shape[1] / self._options.width)
        size = (round(image.shape[1] / shrink), max(1, round(image.shape[0] / shrink)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if shrink > 1.0 else image
        keypoints = self._detector().detect(small, None)
        xy = cv2.KeyPoint_convert(keypoints).reshape(-1, 2) if keypoints else np.empty((0, 2), np.float32)
        strength = np.array([k.response for k in keypoints], np.float32)
        chosen = [keypoints[i] for i in spread(xy, strength, self._max_keypoints, *size)]
        chosen, descriptors = self._detector().compute(small, chosen) if chosen else ((), np.empty((0, 128)))
        return self._features(chosen, descriptors, image.shape[1] / size[0])

    def _features(self, keypoints: tuple, descriptors: np.ndarray, shrink: float) -> Features:
        xy = cv2.KeyPoint_convert(keypoints).reshape(-1, 2) if keypoints else np.empty((0, 2), np.float32)
        scale = np.array([k.size for k in keypoints], np.float32) / 2.0  # 1 at the finest scale
        octave = np.clip(np.log2(np.maximum(scale, 1.0)), 0, 255).astype(np.uint8)
        return Features(
            ((xy + 0.5) * shrink - 0.5).astype(np.float32),
            self._options.sigma * shrink * np.maximum(scale, 1.0),
            np.array([k.response for k in keypoints], np.float32),
            octave,
            np.deg2rad(np.array([k.angle for k in keypoints], np.float32)),
            self._normalised(descriptors),
        )

    def _normalised(self, descriptors: np.ndarray) -> np.ndarray:
        values = np.asarray(descriptors, np.float32)
        if self._options.root:
            values = np.sqrt(values / np.maximum(np.abs(values).sum(axis=1, keepdims=True), 1e-12))
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)

    def _detector(self) -> cv2.SIFT:
        if not hasattr(self._local, "detector"):
            wanted = int(self._max_keypoints * self._options.candidates)
            self._local.detector = cv2.SIFT_create(wanted, contrastThreshold=self._options.contrast_threshold)
        return self._local.detector
