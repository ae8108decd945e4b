"""Shipped weights as a start, and a folder of one's own images to go on with."""

import dataclasses
import itertools
import json

import cv2
import numpy as np
import pytest
import torch

from tests.train.conftest import drawn_picture
from tests.train.test_export import parse
from vslam.cli import train as cli_train
from vslam.errors import VslamError
from vslam.features.learned import as_input
from vslam.inference.models import find_model, manifest
from vslam.inference.session import open_session
from vslam.train.data.pack import open_packs
from vslam.train.data.pairs import PairConfig, PairSampler
from vslam.train.export import DenseMaps
from vslam.train.finetune import PARTS, split
from vslam.train.loop import BEST, CHECKPOINT, Trainer, build_network
from vslam.train.release import BINARY, NETWORK, export_half, load_network, open_checkpoint
from vslam.train.run import train
from vslam.train.settings import TrainConfig, load_train_config
from vslam.train.shipped import any_network, exported_network, measure_norms, norms_of, shipped_network

NAMES = [name for name in NETWORK if name in manifest()]


def maps_of(network, binary: bool, image: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        return [value.numpy() for value in DenseMaps(network, binary)(torch.from_numpy(as_input(image)))]


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_come_back_as_they_were(name):
    """The network that is read back gives the maps that the shipped file gives."""
    session = open_session(find_model(name).file("fp32"), "onnx")
    network = shipped_network(name)
    for image in (drawn_picture(1), drawn_picture(2)[:112, :144]):
        expected = session.run(as_input(image))
        found = maps_of(network, BINARY[name], image)
        for key, value in zip(DenseMaps.outputs, found, strict=True):
            scale = max(1.0, np.abs(expected[key]).max())
            assert np.abs(value - expected[key]).max() < 1e-4 * scale


@pytest.mark.skipif("superpoint" not in NAMES or "gcnv2" not in NAMES, reason="not shipped")
def test_two_heads_of_one_trunk_come_together():
    a, b = shipped_network("superpoint").state_dict(), shipped_network("gcnv2").state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", NAMES[:1])
def test_measured_norms_change_no_map_and_hold_in_training(name):
    network = shipped_network(name)
    images = [drawn_picture(seed)[:96, :128] for seed in range(8)]
    before = maps_of(network, BINARY[name], images[0])
    batch = torch.from_numpy(np.stack(images))[:, None].float() / 255
    measure_norms(network, batch)
    for old, new in zip(before, maps_of(network, BINARY[name], images[0]), strict=True):
        assert np.abs(old - new).max() < 1e-4 * max(1.0, np.abs(old).max())
    with torch.no_grad():
        calm = network(batch)["semi"]
        network.train()
        busy = network(batch)["semi"]
    assert float((calm - busy).abs().max()) < 2e-3 * float(calm.abs().max())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An untrained tiny network, exported as users would."""
    torch.manual_seed(4)
    network = build_network("tiny").train()
    with torch.no_grad():
        network(torch.rand(4, 1, 64, 64))
    file = tmp_path_factory.mktemp("exported") / "own.onnx"
    export_half(network.eval(), "gcnv2-tiny", file)
    return file


def test_own_exports_can_be_trained_on(exported):
    image = drawn_picture(6)[:96, :128]
    expected = open_session(exported, "onnx").run(as_input(image))
    for network in (exported_network(exported, "tiny"), any_network(exported)):
        for key, value in zip(DenseMaps.outputs, maps_of(network, True, image), strict=True):
            assert np.abs(value - expected[key]).max() < 1e-4 * max(1.0, np.abs(expected[key]).max())


def test_weights_of_another_network_are_refused(exported, tmp_path):
    with pytest.raises(VslamError, match="is not of this network"):
        exported_network(exported, "light")
    with pytest.raises(VslamError, match="nor a shipped network"):
        exported_network(tmp_path / "nothing", "light")
    if "gcnv2-tiny" in NAMES:
        with pytest.raises(VslamError, match="is network 'tiny', not 'light'"):
            exported_network(type(tmp_path)("gcnv2-tiny"), "light")
    (tmp_path / "bad.onnx").write_text("hello")
    with pytest.raises(VslamError, match="not an ONNX file"):
        exported_network(tmp_path / "bad.onnx", "light")
    int8 = find_model(NAMES[0]).file("int8")
    with pytest.raises(VslamError, match=r"--precision fp16|is not of this network"):
        exported_network(int8, NETWORK[NAMES[0]])


def test_every_norm_has_its_convolution():
    network = build_network("tiny")
    norms = norms_of(network)
    assert len(norms) == sum(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    assert all(isinstance(network.get_submodule(name), torch.nn.Conv2d) for name in norms)


@pytest.mark.parametrize("count", [20, 57, 200, 1000])
def test_split_is_eight_to_one_to_one_and_loses_nothing(count):
    files = [f"{k:05}" for k in range(count)]
    parts = split(files)
    assert sorted(file for part in parts.values() for file in part) == files
    assert parts == split(files)
    for part, share in PARTS.items():
        assert len(parts[part]) == pytest.approx(count * share / 10, abs=0.06 * count + 1)
    if count == 1000:  # neighbours stay together: few files have one in another part
        where = {file: part for part, chosen in parts.items() for file in chosen}
        assert sum(where[a] != where[b] for a, b in itertools.pairwise(files)) < 50


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for seed in range(24):
        cv2.imwrite(str(folder / f"{seed:02}.png"), drawn_picture(seed))
    return folder


@pytest.mark.skipif("gcnv2-tiny" not in NAMES, reason="not shipped")
def test_command_fine_tunes_on_a_folder(image_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vslam.train.run.VALIDATION_PAIRS", 3)
    monkeypatch.setattr("vslam.train.finetune.TEST_PAIRS", 3)
    settings = tmp_path / "s.yaml"
    settings.write_text("network: tiny\nbatch: 1\nrate: 0.0003\npairs: {width: 128, height: 96, points: 60}\n")
    out = tmp_path / "run"
    words = ["gcnv2-tiny", "--init", "gcnv2-tiny", "--images", str(image_folder), "--config", str(settings)]
    assert cli_train.run(parse(cli_train, *words, "--steps", "2", "--quiet", "--out", str(out))) == 0
    printed = capsys.readouterr().out
    assert "test images, float: repeatability 0." in printed and "test images, bits:" in printed
    sizes = {part: len(open_packs(out / "packs" / part)[0]) for part in PARTS}
    assert sum(sizes.values()) == 24 and sizes["train"] >= 18
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    judged = {line["step"] for line in lines if line["kind"] == "validation bits"}
    assert judged == {0, 2}  # the start is a result to be beaten
    assert (out / BEST).is_file() and (out / CHECKPOINT).is_file()
    assert open_checkpoint(out)[2] in (0, 2)


def test_too_few_images_are_refused(tmp_path):
    words = ["gcnv2-tiny", "--images", str(tmp_path), "--out", str(tmp_path / "run")]
    with pytest.raises(VslamError, match="0 images; at least 20"):
        cli_train.run(parse(cli_train, *words))
    with pytest.raises(VslamError, match="no such folder"):
        cli_train.run(parse(cli_train, "superpoint", "--images", str(tmp_path / "none"), "--out", str(tmp_path)))
    with pytest.raises(VslamError, match="give one of them"):
        cli_train.run(parse(cli_train, *words, "--packs", "p"))


PAIRS = PairConfig(width=128, height=96, points=60, max_gap=8)


def test_best_checkpoint_is_kept_and_exported(packs, tmp_path):
    """A validation that falls after step 2 keeps step 2, also when the run is interrupted and goes on."""
    config = TrainConfig(network="tiny", packs=str(packs), steps=5, batch=1, pairs=PAIRS, validate_every=1)

    def trainer() -> Trainer:
        return Trainer(config, PairSampler(open_packs(packs), config.pairs), tmp_path)

    first, kept = trainer(), {}

    def validate(network, step: int) -> float:
        kept[step] = network.descriptor.weight.clone()
        return {1: 0.5, 2: 0.9}.get(step, 0.8)

    first.run(lambda progress: None, lambda network, step: validate(network, step))
    network, kind, step = open_checkpoint(tmp_path)
    assert (kind, step) == ("tiny", 2)
    assert torch.equal(network.descriptor.weight, kept[2])
    assert load_network(tmp_path, "gcnv2-tiny")[1] == 2
    second = trainer()
    assert second.resume() and second.best == 0.9
    assert open_checkpoint(tmp_path / CHECKPOINT)[2] == 5


def test_runs_without_validation_have_no_best(packs, tmp_path):
    config = TrainConfig(network="tiny", packs=str(packs), steps=1, batch=1, pairs=PAIRS)
    train(config, tmp_path, quiet=True)
    assert not (tmp_path / BEST).exists()
    assert open_checkpoint(tmp_path)[2] == 1


@pytest.mark.skipif("superpoint" not in NAMES, reason="not shipped")
def test_fine_tuning_begins_where_the_shipped_network_is(packs, tmp_path):
    """The first step sees a loss far below that of an untrained network."""
    config = dataclasses.replace(
        load_train_config("train-finetune"), packs=str(packs), steps=1, batch=2, pairs=PAIRS, seed=3
    )
    parts = {}
    for name, source in (("shipped", type(tmp_path)("superpoint")), ("new", None)):
        train(config, tmp_path / name, quiet=True, start_from=source)
        trainer = Trainer(config, PairSampler(open_packs(packs), PAIRS), tmp_path / name)
        assert trainer.resume()
        parts[name] = trainer.one_step()
    assert parts["shipped"]["right"] > 2 * parts["new"]["right"]
    assert parts["shipped"]["loss"] < 0.7 * parts["new"]["loss"]
