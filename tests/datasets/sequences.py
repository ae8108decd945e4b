"""Tiny sequences of random pictures, and what a user's message must look like."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CAMERA = "{fx: 50, fy: 50, cx: 31.5, cy: 23.5, width: 64, height: 48, fps: 30, depth_scale: 5000}"


def write_pair(colour: Path, depth: Path, seed: int, metres: float = 2.0, scale: float = 5000.0) -> None:
    """A random colour image and a depth image with a hole in its corner."""
    rng = np.random.default_rng(seed)
    raw = np.full((48, 64), round(metres * scale), np.uint16) + rng.integers(0, 50, (48, 64)).astype(np.uint16)
    raw[:4, :4] = 0
    cv2.imwrite(str(colour), rng.integers(0, 256, (48, 64, 3), np.uint8))
    cv2.imwrite(str(depth), raw)


def make_tum(folder: Path, frames: int = 5, kind: str = "png") -> Path:
    """A TUM folder whose depth images come 4 ms after the colour images."""
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    lists = {"rgb": ["# color images", "", "# timestamp filename"], "depth": ["# depth maps"]}
    truth = ["# timestamp tx ty tz qx qy qz qw"]
    for k in range(frames):
        t = 100 + k / 30
        names = f"rgb/{t:.6f}.{kind}", f"depth/{t + 0.004:.6f}.png"
        write_pair(folder / names[0], folder / names[1], k)
        lists["rgb"].append(f"{t:.6f} {names[0]}")
        lists["depth"].append(f"{t + 0.004:.6f} {names[1]}")
        truth.append(f"{t:.6f} {0.01 * k} 0 0 0 0 0 1")
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (folder / "groundtruth.txt").write_text("\n".join(truth) + "\n")
    (folder / "camera.yaml").write_text(CAMERA)
    return folder


def check_one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    """A user's message: one line that holds these words."""
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
