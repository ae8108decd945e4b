"""`vslam demo` as a user calls it."""

import cv2
import numpy as np
import pytest

from tests.cli.test_bench import error, folder  # noqa: F401 - a fixture
from tests.datasets.sequences import make_tum
from vslam.cli.main import main
from vslam.evaluation.pictures import open_pictures


def test_two_images_give_a_picture(folder, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "m.png"
    assert main(["demo", "match", str(folder / "0.png"), str(folder / "2.png"), "-o", str(out)]) == 0
    words = capsys.readouterr().out
    assert "orb: 500 and 500 keypoints" in words
    matched, fit = (int(part.split()[0]) for part in words.split(", ")[-2:])
    assert 100 < fit <= matched
    height, width = cv2.imread(str(out)).shape[:2]
    assert width > 640 and height > 240


def test_a_folder_gives_a_clip(folder, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "m.avi"
    assert main(["demo", "match", str(folder), "--keypoints", "100", "-o", str(out)]) == 0
    assert "3 pairs of pictures" in capsys.readouterr().out
    assert len(list(open_pictures(out))) == 3


def test_a_recording_gives_a_clip(tmp_path, capsys):
    make_tum(tmp_path / "walk")
    out = tmp_path / "m.avi"
    assert main(["demo", "match", str(tmp_path / "walk"), "--dataset", "tum", "--step", "2", "-o", str(out)]) == 0
    assert "2 pairs of pictures" in capsys.readouterr().out


def test_a_camera_is_filmed_until_ctrl_c(monkeypatch, tmp_path, capsys):
    class Camera:
        def __init__(self, number):
            assert number == 3
            self.images = iter(np.random.default_rng(0).integers(0, 255, (4, 120, 160, 3), np.uint8))

        def isOpened(self):
            return True

        def read(self):
            image = next(self.images, None)
            if image is None:
                raise KeyboardInterrupt
            return True, image

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    out = tmp_path / "m.avi"
    assert main(["demo", "match", "--camera", "3", "-o", str(out)]) == 0
    assert "3 pairs of pictures" in capsys.readouterr().out and out.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--camera", "77"], "camera 77: cannot be opened"),
        (["--camera", "0", "film.mp4"], "--camera films by itself"),
        (["--dataset", "tum", "a", "b"], "give one folder, not 2"),
        ([], "0 files given"),
        (["--dataset", "tum"], "0 files given"),
    ],
)
def test_a_source_that_is_none_is_one_line(capsys, words, expected):
    assert expected in error(capsys, "demo", "match", *words)


@pytest.mark.parametrize(
    ("names", "words", "expected"),
    [
        (["0.png"], [], "needs a second one"),
        (["0.png", "none.png"], [], "no such image"),
        (["0.png", "1.png", "2.png"], [], "3 files given"),
        (["0.png", "1.png"], ["-o", "m.tga"], "unknown picture format"),
        (["0.png", "1.png"], ["--extractor", "brisk"], "unknown extractor 'brisk'"),
        (["0.png", "1.png"], ["--matcher", "magic"], "unknown matcher 'magic'"),
        (["0.png", "1.png"], ["--keypoints", "0"], "at least 1"),
        ([""], ["-o", "m.gif"], "unknown video format"),
    ],
)
def test_demo_says_mistakes_in_one_line(folder, capsys, names, words, expected):  # noqa: F811
    assert expected in error(capsys, "demo", "match", *(folder / name for name in names), *words)
