"""The motion model: the camera goes on as it went."""

from __future__ import annotations

import numpy as np

from vslam.geometry import se3


class ConstantVelocity:
    """Predicts the motion to the next frame from the last one, scaled by the time between them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """After a loss nothing is known of the motion."""
        self._twist = np.zeros(6)  # per second

    def update(self, T_frame_previous: np.ndarray, seconds: float) -> None:
        """Learn from a motion (4, 4) that took `seconds`."""
        self._twist = se3.log(T_frame_previous) / max(seconds, 1e-3)

    def predict(self, seconds: float) -> np.ndarray:
        """`T_frame_previous` (4, 4) after `seconds`."""
        return se3.exp(self._twist * seconds)
