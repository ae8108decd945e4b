"""A keyframe back at a place seen before: where it is thought to be, where the old map puts it, and whether to believe
it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vslam.config import LoopConfig
from vslam.geometry import se3


@dataclass(frozen=True)
class Return:
    """Keyframe `id` at a place seen before: its pose as it is (`T_now`) and where the old map puts it (`T_then`), both
    `T_cw` (4, 4), and how many of its own metres are one of the old map's (`scale`)."""

    id: int
    T_now: np.ndarray
    T_then: np.ndarray
    scale: float = 1.0

    def is_straight(self, settings: LoopConfig) -> bool:
        """The map has drifted so little that a correction would rather add noise."""
        shift, turn = difference(self.T_now, self.T_then)
        is_near = shift < settings.least_m and turn < settings.least_deg
        return is_near and abs(self.scale - 1.0) < settings.least_scale

    def implausible(self, gone: float, turned: float, settings: LoopConfig) -> str:
        """Why a way of `gone` metres and `turned` degrees cannot have drifted so far; empty if it can."""
        shift, turn = difference(self.T_now, self.T_then)
        metres = settings.drift_m + settings.drift_share * gone
        degrees = settings.drift_deg + settings.drift_share * turned
        if shift > metres:
            return f"implies a drift of {shift:.2f} m, at most {metres:.2f} m is plausible"
        if turn > degrees:
            return f"implies a drift of {turn:.0f} deg, at most {degrees:.0f} deg is plausible"
        if abs(self.scale - 1.0) > settings.drift_scale:
            percent, most = 100 * (self.scale - 1.0), 100 * settings.drift_scale
            return f"implies a drift of scale by {percent:.0f} %, at most {most:.0f} % is plausible"
        return ""

    def agrees(self, other: Return, settings: LoopConfig) -> bool:
        """Both call for the same correction, as this camera sees it."""
        shift, turn = difference(self.T_then, other.expected(self.T_now))
        is_near = shift <= settings.agree_m and turn <= settings.agree_deg
        return is_near and abs(self.scale / other.scale - 1.0) <= settings.agree_scale

    def expected(self, T_now: np.ndarray) -> np.ndarray:
        """Where the old map would put another camera, if this is right."""
        T_other_self = T_now @ se3.inverse(self.T_now)
        T_other_self[:3, 3] /= self.scale
        return T_other_self @ self.T_then


def difference(T_a: np.ndarray, T_b: np.ndarray) -> tuple[float, float]:
    """Metres between the centres of two cameras `T_cw`, and degrees between their directions."""
    shift = np.linalg.norm(se3.inverse(T_a)[:3, 3] - se3.inverse(T_b)[:3, 3])
    turn = np.arccos(np.clip((np.trace(T_a[:3, :3] @ T_b[:3, :3].T) - 1) / 2, -1.0, 1.0))
    return float(shift), float(np.degrees(turn))


def visits(seen: Sequence[float], gap_s: float) -> int:
    """How often old places were come back to, from the times (s, rising) of keyframes that showed one.

    A visit ends when none has for more than `gap_s`.
    """
    return len(seen[:1]) + int(np.count_nonzero(np.diff(seen) > gap_s))
