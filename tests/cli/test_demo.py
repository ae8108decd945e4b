"""`vslam demo` as a user calls it."""

import cv2
import pytest

from tests.cli.test_bench import error, folder  # noqa: F401 - a fixture
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
