"""`vslam place` as a user calls it, with a tiny network."""

import json
import shutil

import cv2
import numpy as np
import pytest

from tests.places.tiny_network import write_network
from vslam.cli.main import main
from vslam.places.index import PlaceIndex

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two visits to eight places, the second one darker; `net.onnx` tells them."""
    folder = tmp_path_factory.mktemp("world")
    write_network(folder / "net.onnx", filters=24)
    rng = np.random.default_rng(0)
    for visit in ("day", "night"):
        (folder / visit).mkdir()
    for place in range(8):
        image = cv2.resize(
            rng.integers(0, 255, (rng.integers(6, 60), rng.integers(8, 80))).astype(np.uint8), (320, 240)
        )
        cv2.imwrite(str(folder / "day" / f"{place}.png"), image)
        cv2.imwrite(str(folder / "night" / f"{place}.png"), (0.6 * image).astype(np.uint8))
    return folder


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A copy of the world to work in."""
    shutil.copytree(world, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


def say(capsys, *words) -> str:
    assert main(["place", *map(str, words)]) == 0
    return capsys.readouterr().out


def error(capsys, *words) -> str:
    assert main(["place", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [
        line for line in captured.err.splitlines() if "image/s" not in line and "it/s" not in line and line.strip()
    ]
    assert len(lines) == 1 and lines[0].startswith("vslam: error: ")
    return lines[0]


def make_index(capsys, *more) -> str:
    return say(capsys, "index", "day", "-o", "day.index", "--weights", "net.onnx", "--quiet", *more)


SCORE = ("eval", "--database", "day", "--query", "night", "--weights", "net.onnx", "--quiet")


def test_images_are_found_again(here, capsys):
    assert make_index(capsys).startswith("day.index: 8 images by gem-")
    lines = say(capsys, "query", "day.index", "night", "-k", "3", "--quiet", "--plot", "answers.html").splitlines()
    assert [line.split()[:2] for line in lines] == [[f"{place}.png", f"{place}.png"] for place in range(8)]
    assert all(len(line.split()) == 7 and 0.9 < float(line.split()[2]) <= 1.001 for line in lines)
    assert (here / "answers.html").read_text().count("data:image/jpeg") == 8 * 4
    assert say(capsys, "query", "day.index", "night/5.png", "-k", "1", "--quiet").startswith("5.png  5.png ")


def test_an_index_moves_with_its_images(here, capsys, tmp_path, monkeypatch):
    make_index(capsys)
    shutil.move(here, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    words = ("query", "elsewhere/day.index", "elsewhere/night", "-k", "2", "--quiet", "--plot", "p.html")
    say(capsys, *words)
    assert (tmp_path / "p.html").read_text().count("data:image/jpeg") == 8 * 3
    shutil.rmtree(tmp_path / "elsewhere" / "day")
    say(capsys, *words)
    page = (tmp_path / "p.html").read_text()
    assert page.count("data:image/jpeg") == 8


def test_scores_come_as_table_json_and_page(here, capsys):
    table = say(capsys, *SCORE, "--truth", "frames", "--tolerance", "0", "--sequence", "3", "--plot", "e.html")
    assert "within 0 frames of the query's index" in table and "sequence of 3" in table
    found = json.loads(say(capsys, *SCORE, "--truth", "frames", "--tolerance", "0", "--json"))
    assert found["scores"]["image"]["recall_at_1"] == 1.0 == found["scores"]["image"]["auc"]
    assert (found["database_images"], found["judged_query"]) == (8, 8)
    assert "Hits" in (here / "e.html").read_text() and "Misses" not in (here / "e.html").read_text()


def test_one_walk_is_scored_with_itself(here, capsys):
    for place in range(8):
        shutil.copy(here / "night" / f"{place}.png", here / "day" / f"{place + 8}.png")
    (here / "day" / "positions.csv").write_text("x,y\n" + "".join(f"{k % 8},0\n" for k in range(16)))
    words = ("eval", "--database", "day", "--query", "day", "--weights", "net.onnx", "--quiet", "--json")
    found = json.loads(say(capsys, *words, "--truth", "poses", "--tolerance", "0.5m", "--gap", "4"))
    scores = found["scores"]["image"]
    assert (scores["queries"], scores["queries_with_match"], scores["recall_at_1"]) == (16, 8, 1.0)
    assert "give --gap" in error(capsys, *words, "--truth", "poses", "--tolerance", "0.5m")
    assert "no time stamps" in error(capsys, *words, "--truth", "poses", "--tolerance", "0.5m", "--gap", "4s")


def test_arrays_are_scored_as_folders_are(here, capsys):
    stacks = {v: np.stack([cv2.imread(str(here / v / f"{k}.png"), 0) for k in range(8)]) for v in ("day", "night")}
    np.savez(here / "n.npz", **stacks)
    words = ("--truth", "frames", "--tolerance", "1", "--json", "--weights", "net.onnx")
    a = json.loads(say(capsys, "eval", "--database", "n.npz:day", "--query", "n.npz:night", *words))
    b = json.loads(say(capsys, *SCORE, *words[:-2]))
    assert a["scores"] == b["scores"]
    say(capsys, "index", "n.npz:day", "-o", "n.index", "--weights", "net.onnx", "--quiet", "--kind", "hnsw")
    out = say(capsys, "query", "n.index", "night", "-k", "1", "--quiet", "--plot", "n.html")
    assert out.splitlines()[3].split()[:2] == ["3.png", "day:3"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("query", "day.index", "night", "-k", "9"), "-k 9: the index day.index holds 8 images"),
        (("query", "day.index", "night", "-k", "0"), "-k 0"),
        (("query", "day.index", "night", "--plot", "p.pdf"), "--plot p.pdf: expected a name that ends in .html"),
        (("query", "day.index", "night", "--place", "netvlad"), "day.index: made by gem-"),
        (("query", "day.index", "night", "--scales", "1.0", "0.5"), "day.index: made by gem-"),
        (("query", "none.index", "night"), "none.index: cannot be read: No such file"),
        (("query", "net.onnx", "night"), "net.onnx: not a place index"),
        (("query", "day.index", "nowhere"), "nowhere: no such folder"),
        (("index", "day", "-o", "nowhere/day.index", "--weights", "net.onnx"), "there is no folder nowhere"),
        (("index", "day", "-o", "x.index", "--weights", "none.onnx"), "none.onnx: no such weights"),
        (("index", "night/..", "-o", "x.index", "--weights", "day/0.png"), "0.png: not a network"),
        ((*SCORE, "--truth", "frames", "--tolerance", "2m"), "judged in frames"),
        ((*SCORE, "--truth", "frames", "--tolerance", "near"), "--tolerance near"),
        ((*SCORE, "--truth", "poses", "--tolerance", "2m"), "--truth poses: day has no"),
        ((*SCORE, "--truth", "none.csv", "--tolerance", "2"), "none.csv: cannot be read"),
        ((*SCORE, "--truth", "a", "b", "c", "--tolerance", "2"), "--truth: expected"),
        ((*SCORE, "--truth", "frames", "--tolerance", "2", "--gap", "3"), "two sets"),
    ],
)
def test_mistakes_are_one_line(here, capsys, words, message):
    make_index(capsys)
    assert message in error(capsys, *words)


def test_damaged_index_and_images_are_one_line(here, capsys):
    make_index(capsys)
    data = (here / "day.index").read_bytes()
    for damaged in (data[:-7], data[:300] + bytes([data[300] ^ 4]) + data[301:]):
        (here / "day.index").write_bytes(damaged)
        assert "damaged or cut off place index" in error(capsys, "query", "day.index", "night", "-k", "1")
    (here / "night" / "3.png").write_bytes(b"\x89PNG broken")
    assert "3.png: not an image" in error(capsys, *SCORE, "--truth", "frames", "--tolerance", "0")
    assert "3.png: not an image" in error(capsys, "index", "night", "-o", "n.index", "--weights", "net.onnx")
    assert not (here / "n.index").exists()
    (here / "day" / "3.png").unlink()
    assert "day has 7 images, night 8" in error(capsys, *SCORE, "--truth", "frames", "--tolerance", "0")


def test_empty_or_foreign_index_is_one_line(here, capsys):
    index = PlaceIndex(4, "gem-0")
    index.save(here / "keyframes.index")
    assert "an index of something else than images" in error(capsys, "query", "keyframes.index", "night")
    index.notes = {"place": "gem", "settings": {}, "images": ".", "names": []}
    index.save(here / "empty.index")
    assert "empty.index: empty index" in error(capsys, "query", "empty.index", "night")
