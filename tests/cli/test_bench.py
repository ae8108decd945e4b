"""`vslam bench` and `vslam demo` as a user calls them."""

import json

import cv2
import pytest

from tests.world import filmed
from vslam.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures")
    for k, frame in enumerate(filmed(4)):
        cv2.imwrite(str(path / f"{k}.png"), frame.image)
    return path


def error(capsys, *words) -> str:
    assert main([*map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_bench_prints_a_row_an_extractor_and_writes_its_figures(folder, tmp_path, capsys):
    words = ["bench", "frontend", "--path", str(folder), "--extractors", "orb,sift", "--keypoints", "300", "--quiet"]
    files = ["--json", str(tmp_path / "f.json"), "--plot", str(tmp_path / "f.html")]
    assert main([*words, *files]) == 0
    head, columns, *rows = capsys.readouterr().out.splitlines()
    assert "4 pictures at 320x240, 300 keypoints" in head
    assert columns.split()[:4] == ["extractor", "match_prec", "outlier_prec", "keypoints"]
    assert [row.split()[0] for row in rows] == ["orb", "sift"]
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["source"] == folder.name
    for row in rows:
        scores = found["frontends"][row.split()[0]]
        assert float(row.split()[1]) == pytest.approx(scores["match_prec"]["mean"], abs=5e-4)
        assert scores["num_kp"]["mean"] <= 300
    page = (tmp_path / "f.html").read_text()
    assert "<table>" in page and "<svg" in page and "match_prec" in page


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--extractor", "brisk"], "unknown extractor 'brisk'"),
        (["--image-size", "320"], "expected WIDTHxHEIGHT"),
        (["--image-size", "320x0"], "expected WIDTHxHEIGHT"),
        (["--keypoints", "0"], "--keypoints 0: expected"),
        (["--ratio", "1.5"], "--ratio 1.5: expected"),
        (["--f-rej-th", "nan"], "--f-rej-th nan: expected"),
        (["--max-frames", "1"], "at least two pictures"),
        (["--plot", "x.gif"], "unknown picture format"),
        (["--extractor", "gcnv2", "--backend", "tpu"], "backend"),
    ],
)
def test_bench_says_mistakes_in_one_line(folder, capsys, words, expected):
    assert expected in error(capsys, "bench", "frontend", "--quiet", "--path", folder, *words)


def test_bench_names_a_folder_without_pictures(tmp_path, capsys):
    assert "no images here" in error(capsys, "bench", "frontend", "--path", tmp_path)
    assert "no such file or folder" in error(capsys, "bench", "frontend", "--path", tmp_path / "none")


def test_bench_reads_layouts(capsys):
    words = ["bench", "frontend", "--dataset", "sample", "--max-frames", "3", "--keypoints", "100", "--quiet"]
    assert main(words) == 0
    assert "sample: 3 pictures at 320x240" in capsys.readouterr().out
    assert "which pictures?" in error(capsys, "bench", "frontend")
