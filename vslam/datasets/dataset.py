"""What every dataset layout is read into."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vslam.types import Camera, RawFrame, Trajectory


class Dataset(Protocol):
    """A recorded sequence. Opening one checks its lists and first images, and decodes no more."""

    name: str
    camera: Camera
    timestamps: np.ndarray  # (N,) float64 seconds, strictly rising: one per frame
    truth: Trajectory | None  # camera poses, any number of them, in the dataset's own world

    def __len__(self) -> int: ...

    def load(self, index: int) -> RawFrame:
        """Decode frame `index`; thread-safe.

        Raises:
            FrameError: the image or the depth cannot be decoded, or has another size than the camera.
        """
        ...
