"""`vslam map` as a user calls it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.test_colmap import read, seen_through
from vslam.cli.main import main
from vslam.datasets.sample import make_sample
from vslam.datasets.tum import open_tum
from vslam.mapping.archive import save_map


@pytest.fixture
def saved(tmp_path):
    stored = seen_through((0.2, -0.3, 0.002, -0.001, 0.0))
    vectors = np.ones((2, 4), np.float32)
    stored = replace(
        stored, features="orb", place_model="gem-1", place_ids=np.array([0, 2]), place_vectors=vectors,
        images={0: "rgb/0.png"}, meta={"sequence": "room", "note": 1},
    )  # fmt: skip
    save_map(tmp_path / "room.vslam", stored)
    return tmp_path / "room.vslam"


def said(capsys, *words) -> str:
    assert main(["map", *map(str, words)]) == 0
    return capsys.readouterr().out


def error(capsys, *words) -> str:
    assert main(["map", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("vslam: error: ")
    return captured.err


def test_show_says_what_a_map_holds(saved, capsys):
    text = said(capsys, "show", saved)
    rows = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert rows["keyframes"] == "3, 1 more were removed" and rows["sequence"] == "room" and rows["features"] == "orb"
    assert rows["camera"].startswith("320x240, fx 262.5") and "0.002" in rows["camera"]
    assert rows["places"] == "2 vectors of gem-1"
    assert "by vslam" in rows["saved"] and "kB a keyframe" in rows["size"]


def test_show_as_json(saved, capsys):
    facts = json.loads(said(capsys, "show", saved, "--json"))
    assert (facts["keyframes"], facts["retired"], facts["images"], facts["bytes"]) == (3, 1, 1, saved.stat().st_size)
    assert facts["places"] == {"model": "gem-1", "vectors": 2} and facts["meta"] == {"note": 1}
    assert facts["first_s"] == 0.0 and facts["last_s"] == pytest.approx(0.3)
    assert facts["camera"]["distortion"] == [0.2, -0.3, 0.002, -0.001, 0.0]


def test_export_writes_colmap_and_ply(saved, tmp_path, capsys):
    said(capsys, "export", saved, "--colmap", tmp_path / "text", "--ply", tmp_path / "map.ply")
    model = read(tmp_path / "text")
    assert model.camera[1] == "OPENCV" and len(model.images) == 3
    assert [name for _, name, *_ in model.images.values()] == ["rgb/0.png", "0.200000.png", "0.300000.png"]
    header, _, body = (tmp_path / "map.ply").read_bytes().partition(b"end_header\n")
    assert f"element vertex {len(model.points)}".encode() in header and len(body) == 15 * len(model.points)


def test_export_with_the_recording_names_and_writes_its_images(saved, tmp_path, capsys):
    folder = make_sample(tmp_path / "sequence", 4, 320, 240, workers=1, quiet=True)
    recording = open_tum(folder)
    stored = seen_through(())
    stored.map.timestamp_of[:] = recording.timestamps.tolist()
    save_map(saved, stored)
    words = ["export", saved, "--colmap", tmp_path / "text", "--dataset", "tum", "--path", folder]
    said(capsys, *words)
    names = [recording.images[id].name for id in (0, 2, 3)]
    assert [name for _, name, *_ in read(tmp_path / "text").images.values()] == names
    said(capsys, *words, "--images", tmp_path / "images")
    written = [name for _, name, *_ in read(tmp_path / "text").images.values()]
    assert sorted(file.name for file in (tmp_path / "images").iterdir()) == sorted(written)
    assert all(name.endswith(".png") for name in written)


def test_mistakes_are_one_line(saved, tmp_path, capsys):
    assert "none.vslam: cannot be read" in error(capsys, "show", tmp_path / "none.vslam")
    saved.write_bytes(saved.read_bytes()[:-1])
    assert "cut short" in error(capsys, "show", saved)
    assert "cut short" in error(capsys, "export", saved, "--ply", tmp_path / "map.ply")
    assert "nothing to write" in error(capsys, "export", saved)
    assert "--dataset LAYOUT" in error(capsys, "export", saved, "--colmap", tmp_path / "a", "--images", tmp_path / "b")
    save_map(saved, seen_through(()))
    assert "cannot be made" in error(capsys, "export", saved, "--colmap", saved)
    assert "cannot be written" in error(capsys, "export", saved, "--ply", tmp_path / "none" / "map.ply")
    assert not (tmp_path / "map.ply").exists()
    with pytest.raises(SystemExit) as end:
        main(["map"])
    assert end.value.code == 2
