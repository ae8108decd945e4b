"""Exports give the network's maps; published layouts are recognised by their names and converted."""

import argparse

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.train.conftest import drawn_picture
from vslam.cli import models as cli_models
from vslam.cli import train as cli_train
from vslam.errors import VslamError
from vslam.features.learned import Config, Gcnv2, SuperPoint, as_input
from vslam.inference.models import find_model, manifest
from vslam.inference.session import open_session
from vslam.train.convert import (
    GCNV2,
    GCNV2_TINY,
    ORDERS,
    SUPERPOINT_V1,
    by_order,
    convert,
    published_name,
    read_published,
)
from vslam.train.export import fold_norms
from vslam.train.exporting import export
from vslam.train.loop import CHECKPOINT, build_network
from vslam.train.networks import published
from vslam.train.networks.folded import ShiftedCornerResponse, fold
from vslam.train.networks.light import CornerResponse
from vslam.train.release import export_half, load_network, matching


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A run folder with an untrained tiny network whose norms are not trivial."""
    torch.manual_seed(0)
    network = build_network("tiny")
    network.train()
    with torch.no_grad():
        network(torch.rand(4, 1, 64, 64))
    folder = tmp_path_factory.mktemp("run")
    averaged = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"network": "tiny", "model": {}, "averaged": averaged, "step": 7}, folder / CHECKPOINT)
    return folder


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for seed in range(4):
        cv2.imwrite(str(folder / f"{seed}.png"), drawn_picture(seed))
    return folder


def test_exported_maps_equal_pytorch_on_every_back_end(checkpoint, tmp_path):
    network, step = load_network(checkpoint, "gcnv2-tiny")
    assert step == 7
    export_half(network, "gcnv2-tiny", tmp_path / "t.onnx")
    image = as_input(drawn_picture(3)[:200, :300])
    with torch.no_grad():
        truth = network(torch.from_numpy(image))
    expected = truth["bits"].permute(0, 2, 3, 1).numpy()
    for backend in ("onnx", "openvino", "torch"):
        if backend == "openvino":
            pytest.importorskip("openvino")
        maps = open_session(tmp_path / "t.onnx", backend).run(image)
        assert np.abs(maps["descriptors"] - expected).max() < 2e-2 * np.abs(expected).max()  # stored in 11 bits
        np.testing.assert_allclose(maps["reliability"], truth["reliability"].sigmoid()[:, 0].numpy(), atol=5e-3)


@pytest.mark.parametrize("kind", ["light", "tiny"])
def test_folded_network_gives_the_maps_of_the_one_that_was_trained(kind):
    torch.manual_seed(1)
    network = build_network(kind).train()
    with torch.no_grad():
        network(torch.rand(4, 1, 64, 64))
        image = torch.rand(2, 1, 48, 80)
        expected, found = network.eval()(image), fold(fold_norms(network))(image)
    for name, truth in expected.items():
        assert torch.allclose(found[name], truth, atol=1e-4 * max(1.0, float(truth.abs().max()))), name


def test_shifted_corner_response_equals_the_convolution():
    image = torch.randn(1, 1, 40, 56)
    assert torch.allclose(CornerResponse()(image), ShiftedCornerResponse()(image), atol=1e-5)


def test_corner_response_peaks_at_the_corner_of_a_square():
    image = np.zeros((64, 64), np.float32)
    image[20:, 24:] = 1.0
    response = CornerResponse()(torch.from_numpy(image)[None, None])[0, 0].numpy()[6:-6, 6:-6]
    y, x = np.unravel_index(response.argmax(), response.shape)
    assert abs(y + 6 - 19.5) <= 1.5
    assert abs(x + 6 - 23.5) <= 1.5


@pytest.mark.parametrize(("form", "precision"), [("onnx", "fp16"), ("onnx", "int8"), ("openvino", "fp16")])
def test_export_command_writes_what_runs(checkpoint, image_folder, tmp_path, form, precision):
    if form == "openvino":
        pytest.importorskip("openvino")
    out = tmp_path / f"net.{'xml' if form == 'openvino' else 'onnx'}"
    lines = list(export("gcnv2-tiny", checkpoint, out, form, precision, image_folder))
    assert str(out) in lines[-1]
    assert ("matching" in lines[0]) == (precision == "int8")
    session = open_session(out, "openvino" if form == "openvino" else "onnx")
    maps = session.run(np.zeros((1, 1, 48, 64), np.float32))
    assert maps["score"].shape == maps["corners"].shape == (1, 48, 64)
    assert maps["descriptors"].dtype == (np.int8 if precision == "int8" else np.float32)


def test_int8_without_pictures_says_what_is_needed(checkpoint, tmp_path):
    with pytest.raises(VslamError, match="--images FOLDER"):
        list(export("gcnv2-tiny", checkpoint, tmp_path / "n.onnx", "onnx", "int8", None))


def test_checkpoint_of_another_network_is_refused(checkpoint):
    with pytest.raises(VslamError, match="holds network 'tiny'; superpoint needs 'light'"):
        load_network(checkpoint, "superpoint")


def test_matching_counts_right_matches():
    session = open_session(find_model("gcnv2-tiny").file("fp32"), "onnx")
    found = matching(session, [drawn_picture(1)], binary=True)
    assert found.keypoints > 100
    assert found.right > 40
    assert found.precision > 0.6


def published_superpoint(layout) -> dict[str, torch.Tensor]:
    """A state dict in the published names, filled at random."""
    network = published.SuperPoint(ORDERS[layout])
    state = {}
    for key, value in network.state_dict().items():
        _, layer, part, tensor = key.split(".")
        random = torch.rand_like(value) + 0.5 if part == "norm" and value.ndim else 0.05 * torch.randn(value.shape)
        state[f"{published_name(layer, part, layout)}.{tensor}"] = random if value.ndim else value
    return state


def test_official_superpoint_equals_its_description(tmp_path):
    state = published_superpoint(SUPERPOINT_V1)
    assert len(state) == 24
    torch.save(state, tmp_path / "superpoint_v1.pth")
    network, layout = read_published(tmp_path / "superpoint_v1.pth")
    assert layout is SUPERPOINT_V1
    image = torch.rand(1, 1, 32, 48)
    x = image
    for stage in "1234":
        for letter in "ab":
            name = f"conv{stage}{letter}"
            x = F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
        x = F.max_pool2d(x, 2) if stage < "4" else x
    heads = {}
    for head in "PD":
        hidden = F.relu(F.conv2d(x, state[f"conv{head}a.weight"], state[f"conv{head}a.bias"], padding=1))
        heads[head] = F.conv2d(hidden, state[f"conv{head}b.weight"], state[f"conv{head}b.bias"])
    score, described = network(image)
    cell = heads["P"].softmax(dim=1)[0, :64, 1, 2].view(8, 8)
    assert torch.allclose(score[0, 8:16, 16:24], cell, atol=1e-6)
    assert torch.allclose(described[0].permute(2, 0, 1), F.normalize(heads["D"], dim=1)[0], atol=1e-5)


@pytest.mark.parametrize("layout", list(ORDERS), ids=lambda layout: layout.name)
def test_superpoint_layouts_convert_and_run(layout, tmp_path):
    state = published_superpoint(layout)
    whole = {"n_iter": 5, "model_state_dict": state} if "before" in layout.name else state
    torch.save(whole, tmp_path / "own.pth")
    assert convert(tmp_path / "own.pth", tmp_path / "own.onnx") is layout
    network, _ = read_published(tmp_path / "own.pth")
    image = as_input(drawn_picture(1)[:96, :128])
    with torch.no_grad():
        truth = network(torch.from_numpy(image))[0].numpy()
    found = open_session(tmp_path / "own.onnx", "onnx").run(image)["score"]
    np.testing.assert_allclose(found, truth, atol=5e-3)
    features = SuperPoint(50, Config(weights=str(tmp_path / "own.onnx"), threshold=0.0)).extract(drawn_picture(1))
    assert features.descriptors.shape == (len(features), 256)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, which is what the published files are
@pytest.mark.parametrize(("layout", "tiny"), [(GCNV2, False), (GCNV2_TINY, True)], ids=["full", "tiny"])
def test_gcnv2_converts_from_a_trace_without_names(layout, tiny, tmp_path):
    torch.manual_seed(1)
    network = published.Gcnv2(tiny).eval()
    torch.jit.trace(network, torch.rand(1, 1, 32, 32)).save(str(tmp_path / "g.pt"))
    assert convert(tmp_path / "g.pt", tmp_path / "g.onnx") is layout
    image = as_input(drawn_picture(2)[:64, :96])
    with torch.no_grad():
        score, described = (value.numpy() for value in network(torch.from_numpy(image)))
    for backend in ("onnx", "torch"):
        maps = open_session(tmp_path / "g.onnx", backend).run(image)
        np.testing.assert_allclose(maps["score"], score, atol=2e-3)
        np.testing.assert_allclose(maps["descriptors"], described, atol=2e-2)
    features = Gcnv2(40, Config(weights=str(tmp_path / "g.onnx"), threshold=0.0)).extract(drawn_picture(2))
    assert features.descriptors.shape[1] == 32


def test_lost_names_are_given_back_in_order():
    state = published.Gcnv2(tiny=True).state_dict()
    nameless = {str(k): value for k, value in enumerate(state.values())}
    assert list(by_order(nameless)) == list(state)


def test_weights_of_no_known_network_are_refused(tmp_path):
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(VslamError, match=r"weights of no known network.*layer\.weight"):
        convert(tmp_path / "x.pth", tmp_path / "x.onnx")
    (tmp_path / "y.pth").write_text("hello")
    with pytest.raises(VslamError, match="neither a checkpoint nor a TorchScript file"):
        convert(tmp_path / "y.pth", tmp_path / "y.onnx")


def test_missing_tensors_are_named(tmp_path):
    state = published_superpoint(SUPERPOINT_V1)
    del state["convDb.bias"]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(VslamError, match="looks like SuperPoint, official layout, but"):
        convert(tmp_path / "x.pth", tmp_path / "x.onnx")


def parse(command, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_convert_command_names_the_licence(tmp_path, capsys):
    torch.save(published.Gcnv2(tiny=True).state_dict(), tmp_path / "g.pth")
    assert cli_models.run(parse(cli_models, "convert", str(tmp_path / "g.pth"), str(tmp_path / "g.onnx"))) == 0
    assert "licence: the published models come with GPL-3.0 code" in capsys.readouterr().out


def test_models_command_lists_shows_and_verifies(capsys):
    for name, model in manifest().items():
        assert cli_models.run(parse(cli_models, "show", name)) == 0
        assert capsys.readouterr().out.startswith(f"# {name}")
        assert cli_models.run(parse(cli_models, "verify", name)) == 0
        assert capsys.readouterr().out.count("good") == len(model.files)
    cli_models.run(parse(cli_models, "list"))
    assert all(name in capsys.readouterr().out for name in list(manifest())[:1])


def test_train_command_trains_packs(packs, tmp_path, capsys):
    settings = tmp_path / "s.yaml"
    settings.write_text("network: tiny\nbatch: 1\npairs: {width: 128, height: 96, points: 60, max_gap: 8}\n")
    words = ["gcnv2-tiny", "--config", str(settings), "--packs", str(packs), "--steps", "1", "--quiet"]
    assert cli_train.run(parse(cli_train, *words, "--out", str(tmp_path / "run"))) == 0
    assert "step 1" in capsys.readouterr().out
    assert (tmp_path / "run" / CHECKPOINT).is_file()


def test_pack_command_packs_a_folder(image_folder, tmp_path, capsys):
    words = ["pack-images", str(image_folder), str(tmp_path / "p.npz"), "--step", "2"]
    assert cli_train.run(parse(cli_train, *words)) == 0
    assert "p.npz: 2 images" in capsys.readouterr().out
