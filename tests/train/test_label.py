"""MagicPoint and homographic adaptation: what is learned from shapes, and the labels written with it."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.train.conftest import HEIGHT, WIDTH, drawn_picture
from tests.train.test_export import parse
from vslam.cli import train as cli_train
from vslam.errors import VslamError
from vslam.train.data import pack, shapes
from vslam.train.data.corners import adapt, corner_spots, peaks
from vslam.train.data.pairs import PairConfig
from vslam.train.label import LabelConfig, label_image, label_packs, network_detector
from vslam.train.loop import Trainer, build_network
from vslam.train.run import make_sampler, train, training_packs
from vslam.train.settings import TrainConfig, load_train_config

SMALL = PairConfig(width=128, height=96, points=60, shapes=1.0)


@pytest.fixture(scope="module")
def magicpoint(tmp_path_factory):
    """A run of a few steps on drawn shapes."""
    torch.set_num_threads(1)
    config = dataclasses.replace(
        load_train_config("train-magicpoint"), network="tiny", steps=120, batch=3, pairs=SMALL, validate_every=1000
    )
    trainer = Trainer(config, make_sampler(training_packs(config), config), tmp_path_factory.mktemp("magic"))
    parts = [trainer.one_step() for _ in range(config.steps)]
    trainer.save()
    return trainer, parts


def test_magicpoint_learns(magicpoint):
    _, parts = magicpoint
    loss = [p["loss"] for p in parts]
    assert np.mean(loss[-10:]) < 0.6 * np.mean(loss[:10])
    assert set(parts[0]) == {"detector", "detector_warped", "place", "loss"}


def test_magicpoint_finds_crossings_far_better_than_chance(magicpoint):
    """The best detections of a checkerboard against as many random places."""
    detect = network_detector(magicpoint[0].averaged.network)
    rng = np.random.default_rng(0)
    right, chance, count = 0, 0, 0
    for k in range(10):
        drawing = shapes.draw(np.random.default_rng((9, k)), "checkerboard", plain=True)
        wanted = len(drawing.corners)
        found = peaks(detect(drawing.image), 0.0, wanted)
        random = rng.uniform(4, (WIDTH - 4, HEIGHT - 4), (wanted, 2))
        right += sum(np.linalg.norm(drawing.corners - xy, axis=1).min() < 3 for xy in found)
        chance += sum(np.linalg.norm(drawing.corners - xy, axis=1).min() < 3 for xy in random)
        count += wanted
    assert right / count > 5 * chance / count
    assert right / count > 0.5


def near(a: np.ndarray, b: np.ndarray, within: float) -> float:
    """Share of points a with one of b within so many pixels."""
    return float((np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1) <= within).mean())


@pytest.mark.parametrize("source", ["classical", "network"])
def test_adaptation_turns_with_the_image(magicpoint, source):
    """Keypoints of an image turned by 90 degrees are those of the image, turned."""
    detect = corner_spots if source == "classical" else network_detector(magicpoint[0].averaged.network)
    image = drawn_picture(5, 240, 240)
    turned = np.ascontiguousarray(np.rot90(image))
    found, found_turned = (
        peaks(adapt(picture, detect, np.random.default_rng(2), warps=24), 0.0, limit)
        for picture, limit in ((image, 60), (turned, 300))  # the best ones are found again, at whatever rank
    )
    assert min(len(found), len(found_turned)) > 20
    expected = np.stack([found[:, 1], 239 - found[:, 0]], axis=1)  # counter-clockwise
    inside = (expected > 12).all(1) & (expected < 227).all(1)
    assert near(expected[inside], found_turned, 2.0) > 0.8
    assert near(expected[inside] + (7.0, -9.0), found_turned, 2.0) < 0.5  # and not just anywhere


def test_adaptation_of_one_warp_is_the_detection_itself(magicpoint):
    detect = network_detector(magicpoint[0].averaged.network)
    image = drawn_picture(3)
    score = adapt(image, detect, np.random.default_rng(0), warps=1)
    np.testing.assert_allclose(score[8:-8, 8:-8], detect(image)[8:-8, 8:-8], atol=1e-6)


def test_detector_takes_any_size(magicpoint):
    detect = network_detector(magicpoint[0].averaged.network)
    assert detect(drawn_picture(1)[:37, :53]).shape == (37, 53)


def test_labels_take_the_place_of_the_packs_keypoints(magicpoint, packs, tmp_path):
    config = LabelConfig(warps=3, threshold=0.01, limit=50)
    network = magicpoint[0].averaged.network
    lines = list(label_packs(packs, tmp_path, network, "magic", config))
    assert len(lines) == 2 and "6 images" in lines[0]
    assert all("there already" in line for line in label_packs(packs, tmp_path, network, "magic", config))
    for plain, labelled in zip(pack.open_packs(packs), pack.open_packs(packs, tmp_path), strict=True):
        assert len(plain) == len(labelled)
        assert np.array_equal(plain.image(2), labelled.image(2))
        assert 0 < len(labelled.corners(2)) <= 50
        assert not np.array_equal(plain.corners(2), labelled.corners(2))
    with np.load(tmp_path / "photos.labels.npz") as stored:
        assert len(stored["scores"]) == len(stored["corners"]) == stored["corner_end"][-1]
        assert int(stored["warps"]) == 3 and float(stored["threshold"]) == 0.01
        assert str(stored["detector"]).startswith("magic, sha256 ")
        assert (np.diff(stored["scores"][: stored["corner_end"][0]]) <= 0).all()


def test_labels_do_not_depend_on_the_other_packs(magicpoint):
    detect = network_detector(magicpoint[0].averaged.network)
    a, b = (label_image(drawn_picture(2), detect, LabelConfig(warps=4), (5, 1)) for _ in range(2))
    assert np.array_equal(a[0], b[0])


def test_joint_training_takes_the_labels(magicpoint, packs, tmp_path):
    list(label_packs(packs, tmp_path / "labels", magicpoint[0].averaged.network, "magic", LabelConfig(warps=2)))
    pairs = PairConfig(width=128, height=96, points=60, max_gap=8)
    config = TrainConfig("tiny", str(packs), str(tmp_path / "labels"), steps=1, batch=1, pairs=pairs)
    assert train(config, tmp_path / "run", quiet=True, start_from=magicpoint[0].folder).step == 1


def test_labels_of_another_pack_are_refused(magicpoint, packs, tmp_path):
    opened = pack.open_packs(packs)
    with pytest.raises(VslamError, match="no labels of pack 'photos'"):
        pack.open_packs(packs, tmp_path)
    (tmp_path / "photos.labels.npz").write_text("hello")
    with pytest.raises(VslamError, match="not a file of labels"):
        pack.relabelled(opened[0], tmp_path / "photos.labels.npz")
    pack.write_arrays(tmp_path / "photos.labels.npz", pack.encode_corners([np.ones((2, 2))]))
    with pytest.raises(VslamError, match="labels of 1 images, pack 'photos' has 6"):
        pack.relabelled(opened[0], tmp_path / "photos.labels.npz")
    with pytest.raises(VslamError, match="is the folder of the packs"):
        list(label_packs(packs, packs, build_network("tiny"), "x"))


def test_label_command_writes_files(magicpoint, tmp_path, capsys):
    (tmp_path / "packs").mkdir()
    pictures = [drawn_picture(1)]
    pack.write_pack(tmp_path / "packs" / "p.npz", pack.encode_images(pictures), "drawn")
    words = ["label", str(tmp_path / "packs"), str(tmp_path / "labels"), "--checkpoint", str(magicpoint[0].folder)]
    assert cli_train.run(parse(cli_train, *words, "--warps", "2")) == 0
    assert "p.labels.npz: 1 images" in capsys.readouterr().out
    assert len(pack.open_packs(tmp_path / "packs", tmp_path / "labels")[0].corners(0)) > 0
    with pytest.raises(VslamError, match="at least 1"):
        cli_train.run(parse(cli_train, *words, "--warps", "0"))
    with pytest.raises(VslamError, match="neither a checkpoint"):
        cli_train.run(parse(cli_train, *words[:3], "--checkpoint", "nowhere"))


def test_magicpoint_command_needs_no_data(tmp_path, capsys):
    settings = tmp_path / "s.yaml"
    text = "network: tiny\nbatch: 1\npairs: {width: 128, height: 96, points: 60, shapes: 1.0}\n"
    settings.write_text(text + "losses: {descriptor: 0, bits_float: 0, bits: 0, balance: 0, reliability: 0}\n")
    words = ["magicpoint", "--config", str(settings), "--steps", "2", "--quiet", "--out", str(tmp_path / "run")]
    assert cli_train.run(parse(cli_train, *words)) == 0
    assert "'vslam train label PACKS LABELS" in capsys.readouterr().out
    assert '"average_precision"' in (tmp_path / "run" / "log.jsonl").read_text()
