"""What weather, season and hour do to a small picture: drawn anew for each view, to learn which layout lasts."""

from __future__ import annotations

import cv2
import numpy as np


def change_season(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A small picture (H, W), float32 in [0, 1], under other weather and light; same size and type."""
    if rng.random() < 0.85:
        for _ in range(rng.integers(1, 4)):
            grey = recolour(grey, rng)
    if rng.random() < 0.3:
        grey = grey + region(grey, rng) * np.float32(rng.uniform(0.03, 0.15)) * smooth(grey.shape, rng, 1, 4)
    if rng.random() < 0.3:
        grey = veil(grey, rng)
    if rng.random() < 0.6:
        grey = grey * sun_and_shadow(grey.shape, rng)
    if rng.random() < 0.2:
        grey = grey * lamp(grey.shape, rng)
    if rng.random() < 0.25:
        grey = cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.4, 1.2))
    return expose(grey, rng)


def recolour(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One region under another tone curve: snow on the ground, bare trees, another sky."""
    share = region(grey, rng)
    x = np.linspace(0, 1, 5)
    kind = rng.random()
    if kind < 0.35:
        y = x ** np.exp(rng.uniform(-1, 1))
    elif kind < 0.7:  # flattened, or the other way round
        y = rng.random() + rng.uniform(-0.2, 0.8) * (x - 0.5)
    else:
        y = np.sort(rng.random(5)) if rng.random() < 0.6 else rng.random(5)
    return grey + share * (np.interp(grey, x, y).astype(np.float32) - grey)


def region(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Soft share (H, W) in 0 to 1 of a region that follows brightness, height in the image, and chance."""
    soft = cv2.GaussianBlur(grey, (0, 0), rng.uniform(1, 3))
    soft = (soft - soft.mean()) / (soft.std() + 0.05)
    height = coordinates(grey.shape)[1] - rng.uniform(0.2, 0.8)
    value = rng.uniform(-1.2, 1.2) * soft + rng.uniform(0, 1) * smooth(grey.shape, rng, 6, 30)
    value = value + rng.uniform(-5, 5) * height - rng.uniform(-0.5, 0.8)
    return (1 / (1 + np.exp(-rng.uniform(2, 8) * value))).astype(np.float32)


def veil(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fog or snowfall, thicker above or below."""
    thickness = rng.uniform(0.1, 0.8) * (1 + rng.uniform(-2, 2) * (coordinates(grey.shape)[1] - 0.5))
    thickness = np.clip(thickness + rng.uniform(0, 0.2) * smooth(grey.shape, rng, 20, 30), 0, 0.9).astype(np.float32)
    return grey + thickness * (np.float32(rng.uniform(0.3, 1)) - grey)


def sun_and_shadow(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Brightness (H, W): a slope over the image, and patches of shadow or sun with clear edges."""
    x, y = coordinates(shape)
    angle, found = rng.uniform(0, 2 * np.pi), np.ones(shape, np.float32)
    if rng.random() < 0.65:
        found = found + rng.uniform(0.1, 0.8) * (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5))
    if rng.random() < 0.6:
        patches = smooth(shape, rng, 5, 25) > rng.uniform(0, 1.2)
        found = found * np.where(patches, rng.uniform(0.3, 1.6), 1)
    return found.astype(np.float32)


def lamp(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Brightness (H, W) of a lamp in the dark."""
    x, y = coordinates(shape)
    across, down = rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.8)
    distance = ((x - rng.uniform(0.2, 0.8)) / across) ** 2 + ((y - rng.uniform(0.2, 0.8)) / down) ** 2
    rest = rng.uniform(0.05, 0.4)
    return (rest + (1 - rest) * np.exp(-distance)).astype(np.float32)


def expose(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma 0.45 to 2.2, less contrast, and noise."""
    gamma = np.exp(rng.uniform(-0.8, 0.8))
    seen = np.clip(grey, 0, 1) ** np.float32(gamma) * np.float32(rng.uniform(0.3, 1)) + np.float32(rng.uniform(0, 0.2))
    if rng.random() < 0.7:
        seen = seen + rng.standard_normal(seen.shape, np.float32) * np.float32(0.06 * rng.random() ** 2)
    return np.clip(seen, 0, 1)


def smooth(shape: tuple[int, int], rng: np.random.Generator, least: float, most: float) -> np.ndarray:
    """Noise (H, W) of unit spread whose grains are `least` to `most` pixels wide."""
    count = max(2, round(max(shape) / rng.uniform(least, most)))
    grains = rng.standard_normal((max(2, count * shape[0] // shape[1]), count), np.float32)
    return cv2.resize(grains, shape[::-1], interpolation=cv2.INTER_CUBIC)


def coordinates(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Places x (1, W) and y (H, 1) in the image, each from 0 to 1."""
    height, width = shape
    return np.linspace(0, 1, width, dtype=np.float32)[None], np.linspace(0, 1, height, dtype=np.float32)[:, None]
