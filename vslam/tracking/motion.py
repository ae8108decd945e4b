"""The motion model: the camera goes on as it went."""

from __future__ import annotations

import numpy as np

from vslam.geometry import se3

ACCELERATION = np.array([5.0, 150.0])  # m/s^2, rad/s^2: hand-held; a quick turn of the wrist, a robot or a car has less
MIN_SECONDS = 1 / 60  # so that a fast camera does not make the model a constraint


class ConstantVelocity:
    """Predicts the motion to the next frame from the last one, scaled by the time between them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """After a loss nothing is known of the motion."""
        self._twist = np.zeros(6)  # per second
        self._went = np.zeros(3)  # the way back to the last place, in the camera's frame, per second
        self._change = np.zeros(6)  # of it, from motion to motion
        self._known = False

    def update(self, T_frame_previous: np.ndarray, seconds: float) -> None:
        """Learn from a motion (4, 4) that took `seconds`."""
        twist = se3.log(T_frame_previous) / max(seconds, 1e-3)
        self._change = twist - self._twist if self._known else np.zeros(6)
        self._twist = twist
        self._went = T_frame_previous[:3, 3] / max(seconds, 1e-3)
        self._known = True

    @property
    def rate(self) -> np.ndarray:
        """How the camera moved (6,) per second at the last frame: in its view a point at rest goes by `exp(rate t)`.

        The last motion is a mean, reached half way; from there it goes on changing as it did since the one before.
        """
        return self._twist + 0.5 * self._change

    def predict(self, seconds: float) -> np.ndarray:
        """`T_frame_previous` (4, 4) after `seconds`."""
        return se3.exp(self._twist * seconds)

    def turned(self, T_frame_previous: np.ndarray, seconds: float) -> np.ndarray:
        """The motion with the turn of `T_frame_previous` (4, 4), the camera's centre going straight on as it went."""
        T = T_frame_previous.copy()
        T[:3, 3] = T[:3, :3] @ self._went * seconds
        return T

    def weight(self, seconds: float) -> np.ndarray:
        """Inverse variances (6,) of the prediction's error, translation then rotation; zeros while nothing is known.

        A hand does not accelerate a camera by more than ACCELERATION; the last motion is uncertain as much again.
        """
        if not self._known:
            return np.zeros(6)
        sigma = ACCELERATION * max(seconds, MIN_SECONDS) ** 2
        return 1.0 / np.repeat(sigma, 3) ** 2
