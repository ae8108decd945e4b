"""What light, lens and sensor do to an image; drawn anew for each view, so that networks learn to see past it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class LightConfig:
    """Chances (0 to 1) and strengths of each change."""

    spot: float = 0.3  # a lamp on the camera, or a strong vignette
    shade: float = 0.25  # soft shadows and lit patches
    blur: float = 0.25  # out of focus
    motion: float = 0.25  # motion blur
    noise: float = 0.7  # sensor noise
    speckle: float = 0.0  # pixels that are black or white
    max_speckle: float = 0.0035  # share of them
    max_noise: float = 18.0  # grey levels: what a dark room at full gain gives
    max_motion_px: float = 9.0


def relight(image: np.ndarray, rng: np.random.Generator, config: LightConfig = LightConfig()) -> np.ndarray:
    """A uint8 grey image (H, W) under other light, lens and sensor; same size and type."""
    grey = image.astype(np.float32) * np.float32(1 / 255)
    if rng.random() < config.spot:
        grey = grey * spot_light(grey.shape, rng)
    if rng.random() < config.shade:
        grey = grey * shade(grey.shape, rng)
    if rng.random() < config.blur:
        grey = cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.5, 1.4))
    if rng.random() < config.motion:
        grey = cv2.filter2D(grey, -1, motion_kernel(rng, config.max_motion_px), borderType=cv2.BORDER_REPLICATE)
    grey = tone(grey, rng)
    if rng.random() < config.noise:
        sigma = config.max_noise / 255 * rng.random() ** 2
        grey = grey + rng.standard_normal(grey.shape, dtype=np.float32) * np.float32(sigma)
    changed = np.clip(grey * 255 + 0.5, 0, 255).astype(np.uint8)
    if config.speckle and rng.random() < config.speckle:
        chance = rng.random(changed.shape, dtype=np.float32)
        share = np.float32(config.max_speckle * rng.random() / 2)
        changed[chance < share], changed[chance > 1 - share] = 0, 255
    return changed


def tone(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma 0.5 to 2, gain and offset; values in [0, 1]."""
    gamma = np.exp(rng.uniform(-0.69, 0.69))
    gain = np.exp(rng.uniform(-0.7, 0.4))
    curved = cv2.pow(np.clip(grey, 0, 1), float(gamma))
    return curved * np.float32(gain) + np.float32(rng.uniform(-0.04, 0.15))


def spot_light(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Brightness (H, W) of a round lamp that looks somewhere near the middle."""
    height, width = shape
    cx, cy = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
    reach = rng.uniform(0.25, 0.8) * width
    x = (np.arange(width, dtype=np.float32) - cx) / reach
    y = (np.arange(height, dtype=np.float32) - cy) / reach
    rest = np.float32(rng.uniform(0.05, 0.5))
    return rest + (1 - rest) * np.exp(-(x**2)[None, :] - (y**2)[:, None])


def shade(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Brightness (H, W) of up to six soft ellipses, darker or lighter than the rest."""
    small = np.ones((shape[0] // 8, shape[1] // 8), np.float32)
    for _ in range(rng.integers(1, 7)):
        centre = (int(rng.integers(small.shape[1])), int(rng.integers(small.shape[0])))
        axes = (int(rng.integers(2, 12)), int(rng.integers(2, 12)))
        cv2.ellipse(small, centre, axes, rng.uniform(0, 180), 0, 360, float(rng.uniform(0.35, 1.7)), -1)
    soft = cv2.GaussianBlur(small, (0, 0), rng.uniform(0.6, 3.0))
    return cv2.resize(soft, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def motion_kernel(rng: np.random.Generator, longest: float) -> np.ndarray:
    """A blur along a straight line of 2 to `longest` pixels, centred, sum 1."""
    length, angle = rng.uniform(2, longest), rng.uniform(0, np.pi)
    side = int(np.ceil(longest / 2)) * 2 + 1
    kernel = np.zeros((side, side), np.float32)
    for t in np.linspace(-0.5, 0.5, 2 * side) * (length - 1):
        x, y = side // 2 + t * np.cos(angle), side // 2 + t * np.sin(angle)
        x0, y0 = int(x), int(y)
        fx, fy = x - x0, y - y0
        for dx, dy, w in ((0, 0, (1 - fx) * (1 - fy)), (1, 0, fx * (1 - fy)), (0, 1, (1 - fx) * fy), (1, 1, fx * fy)):
            kernel[min(y0 + dy, side - 1), min(x0 + dx, side - 1)] += w
    return kernel / kernel.sum()
