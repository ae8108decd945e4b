"""The front end alone: extract and match, without camera, map or threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from vslam.config import ExtractorConfig, from_dict
from vslam.errors import VslamError
from vslam.registry import load
from vslam.types import Features, Matches


def make_extractor(config: ExtractorConfig) -> Any:
    """The extractor that a configuration names.

    Raises:
        VslamError: unknown extractor or option.
    """
    kind = load("extractors", config.name)
    options = from_dict(kind.Config, config.options, f"extractor {config.name}")
    return kind(config.max_keypoints, options)


def as_grey(image: np.ndarray) -> np.ndarray:
    """A grey uint8 image (H, W), contiguous, of a grey or BGR one.

    Raises:
        VslamError: another shape or type.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not (image.ndim == 2 or image.shape[2:] == (3,)):
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise VslamError(f"image: found {found}, need a uint8 array of shape (H, W) or (H, W, 3) in BGR order")
    if image.ndim == 3:
        import cv2

        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(image)


class Frontend:
    """Keypoints and matches of single images; thread-safe.

    Args:
        extractor: a registered name (`orb`, `sift`, ...).
        matcher: `mutual` or `ratio`.
        max_keypoints: at most so many features an image.
        options: the extractor's own settings, see its `Config`.
    """

    def __init__(
        self,
        extractor: str = "orb",
        matcher: str = "mutual",
        max_keypoints: int = 1000,
        options: dict[str, Any] | None = None,
    ):
        self._extractor = make_extractor(ExtractorConfig(extractor, max_keypoints, options or {}))
        self._matcher = load("matchers", matcher)()

    def extract(self, image: np.ndarray) -> Features:
        """Features of a grey or BGR uint8 image; `xy` in pixels of the image as given."""
        return self._extractor.extract(as_grey(image))

    def match(self, a: Features, b: Features) -> Matches:
        """Index pairs `(K, 2)` of the same points in two images, and their descriptor distances."""
        return self._matcher.match(a, b)
