"""Published CosPlace and NetVLAD checkpoints: recognised by their names, converted, and equal to their description."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch
from torch.nn import functional as F

from tests.train.conftest import drawn_picture
from tests.train.test_export import parse
from vslam.cli import models as cli_models
from vslam.errors import VslamError
from vslam.features.learned import as_input
from vslam.inference.session import MODULES, open_session
from vslam.train.convert import COSPLACE, NETVLAD, convert, read_published
from vslam.train.networks.published_places import MEAN, SPREAD, CosPlaceResNet, NetVladVgg16

ENCODER = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Places of VGG-16's convolutions among its layers."""


def colour(image: torch.Tensor) -> torch.Tensor:
    three = image.repeat(1, 3, 1, 1)
    return (three - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(SPREAD).view(1, 3, 1, 1)


def netvlad_state(clusters: int = 4, biased: bool = False) -> dict[str, torch.Tensor]:
    """A checkpoint in the published names, filled at random."""
    generator = torch.Generator().manual_seed(3)
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    state = {}
    for k, layer in enumerate(ENCODER):
        spread = (2 / (9 * widths[k])) ** 0.5
        state[f"encoder.{layer}.weight"] = spread * torch.randn(widths[k + 1], widths[k], 3, 3, generator=generator)
        state[f"encoder.{layer}.bias"] = 0.1 * torch.randn(widths[k + 1], generator=generator)
    state["pool.conv.weight"] = 5 * torch.randn(clusters, 512, 1, 1, generator=generator)
    state["pool.centroids"] = 0.05 * torch.randn(clusters, 512, generator=generator)
    if biased:
        state["pool.conv.bias"] = torch.randn(clusters, generator=generator)
    return state


def described_netvlad(state: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """What NetVLAD is, written out: sums over clusters of differences from the centre."""
    x = colour(image)
    for layer in ENCODER:
        if layer in (5, 10, 17, 24):
            x = F.max_pool2d(x, 2)
        x = F.conv2d(x, state[f"encoder.{layer}.weight"], state[f"encoder.{layer}.bias"], padding=1)
        x = F.relu(x) if layer != 28 else x
    x = F.normalize(x, dim=1)
    share = F.conv2d(x, state["pool.conv.weight"], state.get("pool.conv.bias")).softmax(dim=1)
    rows = []
    for k, centre in enumerate(state["pool.centroids"]):
        rows.append((share[:, k : k + 1] * (x - centre.view(1, -1, 1, 1))).sum(dim=(2, 3)))
    blocks = F.normalize(torch.stack(rows, dim=1), dim=2)
    return F.normalize(blocks.flatten(1), dim=1)


def cosplace_state(blocks: tuple[int, ...], bottleneck: bool) -> dict[str, torch.Tensor]:
    """A ResNet's tensors with norms that are not trivial."""
    torch.manual_seed(4)
    network = CosPlaceResNet(blocks, bottleneck, 32)
    state = network.state_dict()
    for key, value in state.items():
        if "running_var" in key:
            state[key] = torch.rand_like(value) + 0.5
        elif value.ndim == 1 and "aggregation" not in key:
            state[key] = 0.2 * torch.randn_like(value) + (1.0 if key.endswith("weight") else 0.0)
    state["aggregation.1.p"] = torch.tensor([2.7])
    return state


def described_cosplace(state: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """CosPlace on ResNet-18, written out."""

    def norm(x, name):
        keys = [f"{name}.{key}" for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *(state[key] for key in keys))

    x = F.conv2d(colour(image), state["backbone.0.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm(x, "backbone.1")), 3, 2, 1)
    for stage in range(4, 8):
        for block in range(2):
            name, stride = f"backbone.{stage}.{block}", 2 if stage > 4 and block == 0 else 1
            y = F.relu(norm(F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
            y = norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if stride == 2:
                x = norm(F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=2), f"{name}.downsample.1")
            x = F.relu(x + y)
    x = F.normalize(x, dim=1).clamp(min=1e-6)
    pooled = F.avg_pool2d(x**2.7, x.shape[2:]) ** (1 / 2.7)
    return F.normalize(F.linear(pooled.flatten(1), state["aggregation.3.weight"], state["aggregation.3.bias"]), dim=1)


@pytest.mark.parametrize("biased", [False, True])
def test_netvlad_equals_its_description(biased, tmp_path):
    state = netvlad_state(biased=biased)
    torch.save({"epoch": 3, "state_dict": state, "recalls": {}, "best_score": 0.5}, tmp_path / "n.pth")
    network, layout = read_published(tmp_path / "n.pth")
    assert layout is NETVLAD
    image = torch.rand(2, 1, 48, 64)
    found = network(image)
    assert found.shape == (2, 4 * 512)
    assert torch.allclose(found, described_netvlad(state, image), atol=1e-5)


def test_netvlad_of_several_gpus_is_the_same(tmp_path):
    state = netvlad_state()
    parallel = {
        key.replace("encoder.", "encoder.module.").replace("pool.", "pool.module."): state[key] for key in state
    }
    torch.save({"state_dict": parallel, "parallel": True}, tmp_path / "n.pth")
    network, _ = read_published(tmp_path / "n.pth")
    image = torch.rand(1, 1, 48, 64)
    assert torch.allclose(network(image), described_netvlad(state, image), atol=1e-5)


def test_cosplace_equals_its_description(tmp_path):
    state = cosplace_state((2, 2, 2, 2), False)
    torch.save(state, tmp_path / "ResNet18_32_cosplace.pth")
    network, layout = read_published(tmp_path / "ResNet18_32_cosplace.pth")
    assert layout is COSPLACE
    image = torch.rand(2, 1, 64, 96)
    assert torch.allclose(network(image), described_cosplace(state, image), atol=1e-5)


@pytest.mark.parametrize("kind", ["resnet18", "resnet50", "netvlad"])
def test_converted_file_runs_on_every_back_end(kind, tmp_path):
    if kind == "netvlad":
        state = netvlad_state()
    else:
        state = cosplace_state(*{"resnet18": ((2, 2, 2, 2), False), "resnet50": ((3, 4, 6, 3), True)}[kind])
    torch.save(state, tmp_path / "own.pth")
    layout = convert(tmp_path / "own.pth", tmp_path / "own.onnx")
    assert layout.is_place
    network, _ = read_published(tmp_path / "own.pth")
    images = np.concatenate([as_input(drawn_picture(seed)[:96, :128]) for seed in (1, 2)])
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    for backend, package in MODULES.items():
        pytest.importorskip(package)
        found = open_session(tmp_path / "own.onnx", backend).run(images)["place"]
        np.testing.assert_allclose(found, expected, atol=1e-2)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-4)


def test_convert_command_says_how_to_use_it(tmp_path, capsys):
    torch.save(cosplace_state((1, 1, 1, 1), False), tmp_path / "c.pth")
    assert cli_models.run(parse(cli_models, "convert", str(tmp_path / "c.pth"), str(tmp_path / "c.onnx"))) == 0
    said = capsys.readouterr().out
    assert "use it with --place cosplace and place.options.weights" in said
    assert "MIT licence" in said


def test_other_backbones_and_missing_tensors_are_one_line(tmp_path):
    torch.save(
        {"encoder.0.weight": torch.zeros(64, 3, 11, 11), "pool.centroids": torch.zeros(4, 256)}, tmp_path / "a.pth"
    )
    with pytest.raises(VslamError, match="backbone is not VGG-16"):
        read_published(tmp_path / "a.pth")
    torch.save({"backbone.0.0.weight": torch.zeros(3), "aggregation.3.weight": torch.zeros(8, 8)}, tmp_path / "b.pth")
    with pytest.raises(VslamError, match="backbone is no ResNet"):
        read_published(tmp_path / "b.pth")
    state = cosplace_state((1, 1, 1, 1), False)
    del state["aggregation.3.bias"]
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(VslamError, match=r"looks like CosPlace, ResNet, but .*aggregation\.3\.bias"):
        read_published(tmp_path / "c.pth")
    state = netvlad_state()
    del state["encoder.5.bias"]
    torch.save(state, tmp_path / "d.pth")
    with pytest.raises(VslamError, match=r"looks like NetVLAD, VGG-16, but .*encoder\.5\.bias"):
        read_published(tmp_path / "d.pth")


def test_published_networks_are_built_for_any_depth():
    assert sum(p.numel() for p in NetVladVgg16(64, False).encoder.parameters()) == 14_714_688  # VGG-16's own figure
    assert sum(p.numel() for p in CosPlaceResNet((2, 2, 2, 2), False, 512).backbone.parameters()) == 11_176_512
