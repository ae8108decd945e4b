"""The examples run as their first line says."""

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from vslam.datasets.camera import write_camera
from vslam.types import Camera

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CAMERA = Camera(260.0, 260.0, 159.5, 119.5, 320, 240)
WALL_M = 2.0
STEP_PX = 2


@pytest.fixture
def run_example(monkeypatch, capsys):
    """Runs an example in this process; returns the lines it prints."""

    def run(name: str, *words: object) -> list[str]:
        monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, words)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """A painted wall, seen by a camera that moves to the right by `STEP_PX` pixels of the wall a frame."""
    folder = tmp_path_factory.mktemp("recording")
    write_camera(folder / "camera.yaml", CAMERA)
    rng = np.random.default_rng(1)
    wall = sum(cv2.resize(rng.integers(0, 128, (n, n, 3), np.uint8), (400, 240)) for n in (12, 60))
    depth = np.full((240, 320), WALL_M * CAMERA.depth_scale, np.uint16)
    for kind in ("rgb", "depth"):
        (folder / kind).mkdir()
    for i in range(6):
        seen = wall[:, STEP_PX * i : STEP_PX * i + 320]
        assert cv2.imwrite(str(folder / "rgb" / f"{i:03}.png"), seen)
        assert cv2.imwrite(str(folder / "depth" / f"{i:03}.png"), depth)
    return folder


def test_own_images_follows_the_camera(run_example, recording):
    lines = run_example("own_images", recording)
    assert len(lines) == 6
    assert all(" ok " in line for line in lines)
    x, y, z = map(float, lines[-1].split("[")[1].split("]")[0].split())
    way = 5 * STEP_PX * WALL_M / CAMERA.fx
    assert (x, y, z) == pytest.approx((way, 0.0, 0.0), abs=0.005)


def test_frontend_matches_shifted_images(run_example, recording):
    *pairs, summary = run_example("frontend", recording / "rgb" / "000.png", recording / "rgb" / "005.png")
    assert len(pairs) == 5
    assert int(summary.split(", ")[1].split()[0]) > 100
