"""Windows of a walk: the descriptors of some frames and the motion between them, as an odometry would give it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vslam.train.places.packs import PlacePack
from vslam.train.places.settings import SequenceTrainConfig

POSITION_WIDTH = 3
METRES = 10.0
"""Positions are fed in units of this many metres, turns in radians: both are then about as large as descriptors."""


@dataclass(frozen=True)
class Walk:
    """Descriptors (L, V, D) of the views of one walk under L lights, and what the pack knows of it."""

    pack: PlacePack
    places: np.ndarray
    relation: np.ndarray

    @property
    def scaled(self) -> np.ndarray:
        """Descriptors whose entries have about unit spread."""
        return self.places * np.sqrt(np.float32(self.places.shape[2]))


def increments(poses: np.ndarray) -> np.ndarray:
    """Motion (W - 1, 3) from each pose (W, 4, 4) to the next, in the former's axes: right, forward (m), turn (rad)."""
    step = np.linalg.inv(poses[:-1]) @ poses[1:]
    return np.stack([step[:, 0, 3], step[:, 2, 3], np.arctan2(step[:, 0, 2], step[:, 2, 2])], axis=1)


def disturbed(motion: np.ndarray, rng: np.random.Generator, config: SequenceTrainConfig) -> np.ndarray:
    """Increments (W - 1, 3) with the noise of an odometry and one wrong scale for the window."""
    noisy = motion.copy()
    length = np.linalg.norm(motion[:, :2], axis=1, keepdims=True)
    noisy[:, :2] += config.step_noise * length * rng.standard_normal(noisy[:, :2].shape)
    noisy[:, :2] *= np.exp(config.scale_drift * rng.standard_normal())
    noisy[:, 2] += np.radians(config.yaw_noise_deg) * rng.standard_normal(len(noisy))
    return noisy


def positions(motion: np.ndarray) -> np.ndarray:
    """Sum (W, 3) of increments (W - 1, 3): place right and forward of the first frame in units of 10 m, turn in rad."""
    heading = np.concatenate([[0.0], np.cumsum(motion[:, 2])])
    cosine, sine = np.cos(heading[:-1]), np.sin(heading[:-1])
    right = motion[:, 0] * cosine + motion[:, 1] * sine
    forward = motion[:, 1] * cosine - motion[:, 0] * sine
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(np.stack([right, forward], axis=1), axis=0)])
    return np.concatenate([path / METRES, heading[:, None]], axis=1).astype(np.float32)


def window_rows(last: int, length: int, stride: int) -> np.ndarray:
    """The views of a window that ends with view `last`."""
    return last - stride * np.arange(length - 1, -1, -1)


class WindowSampler:
    """Batches of windows, two of each place; what is drawn depends on the numbers given alone."""

    def __init__(self, walks: list[Walk], config: SequenceTrainConfig):
        self.walks, self.config = walks, config
        self._first = (config.window - 1) * config.max_stride

    def batch(self, seed: int, step: int, places: int) -> dict[str, np.ndarray]:
        """`windows` (B, W, D + 3) float32 and `relation` (B, B) int8, B = 2 places."""
        rng = np.random.default_rng((seed, step))
        worlds = np.resize(rng.choice(len(self.walks), self.config.worlds), places)
        spots = []
        for w in worlds:
            relation = self.walks[w].relation
            anchor = int(rng.integers(self._first, len(relation)))
            mates = np.flatnonzero(relation[anchor, self._first :] == 1) + self._first
            spots += [(int(w), anchor), (int(w), int(rng.choice(mates)))]
        windows = np.stack([self.window(spot, rng) for spot in spots])
        return {"windows": windows, "relation": self.relate(spots)}

    def window(self, spot: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """One window (W, D + 3) that ends at a view, at a drawn stride and light, with noise."""
        config, walk = self.config, self.walks[spot[0]]
        rows = window_rows(spot[1], config.window, int(rng.integers(1, config.max_stride + 1)))
        light = int(rng.integers(min(config.lights, len(walk.places))))
        seen = walk.scaled[light, rows]
        seen = seen + config.descriptor_noise * np.sqrt(seen.shape[1]) * rng.standard_normal(seen.shape)
        moved = positions(disturbed(increments(walk.pack.poses[rows]), rng, config))
        hide = rng.random()
        if hide < config.vision_only:
            moved = np.zeros_like(moved)
        elif hide < config.vision_only + config.position_only:
            seen = np.zeros_like(seen)
        return np.concatenate([seen, moved], axis=1).astype(np.float32)

    def relate(self, spots: list[tuple[int, int]]) -> np.ndarray:
        """Relation (B, B) of the places where windows end: of one walk as its pack says, of one world unknown."""
        relation = np.zeros((len(spots), len(spots)), np.int8)
        for i, (w, v) in enumerate(spots):
            for j, (x, u) in enumerate(spots):
                if w == x:
                    relation[i, j] = self.walks[w].relation[v, u]
                elif self.walks[w].pack.world == self.walks[x].pack.world:
                    relation[i, j] = -1
        return relation
