"""Users' own checkpoints of published networks to the ONNX files that `extractor.options.weights` and
`place.options.weights` take."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vslam.errors import VslamError
from vslam.train.export import export_onnx, store_half, write_onnx
from vslam.train.networks.published import Gcnv2, SuperPoint
from vslam.train.networks.published_places import CosPlaceResNet, NetVladVgg16
from vslam.train.places.release import AXES

State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """A recognised checkpoint: what it is, for which extractor or place network, and the words on its licence."""

    name: str
    plug_in: str
    licence: str
    is_place: bool = False

    @property
    def use(self) -> str:
        """How the converted file is used."""
        kind = "place" if self.is_place else "extractor"
        return f"--{kind} {self.plug_in} and {kind}.options.weights"


SUPERPOINT_V1 = Layout(
    "SuperPoint, official layout", "superpoint",
    "the official weights are for academic, non-commercial use and must not be passed on",
)  # fmt: skip
SUPERPOINT_RELU_NORM = Layout(
    "SuperPoint, batch norm after ReLU", "superpoint", "the published weights of this layout are under the MIT licence"
)
SUPERPOINT_NORM_RELU = Layout(
    "SuperPoint, batch norm before ReLU", "superpoint", "the published code of this layout is under the MIT licence"
)
GCNV2 = Layout("GCNv2", "gcnv2", "the published models come with GPL-3.0 code and no licence of their own")
GCNV2_TINY = Layout("GCNv2-tiny", "gcnv2-tiny", GCNV2.licence)
COSPLACE = Layout(
    "CosPlace, ResNet", "cosplace", "the published CosPlace and EigenPlaces code and weights are under the MIT licence",
    is_place=True,
)  # fmt: skip
NETVLAD = Layout(
    "NetVLAD, VGG-16", "netvlad", "the published PyTorch weights of this layout state no licence", is_place=True
)

ORDERS = {SUPERPOINT_V1: "plain", SUPERPOINT_RELU_NORM: "relu-norm", SUPERPOINT_NORM_RELU: "norm-relu"}
SUPERPOINT_LAYERS = [f"conv{stage}{letter}" for stage in "1234PD" for letter in "ab"]


def convert(source: Path, target: Path) -> Layout:
    """Write an ONNX file from a published checkpoint; returns what it was.

    Raises:
        VslamError: unreadable, or none of the known layouts.
    """
    network, layout = read_published(source)
    exact = target.with_suffix(".float.onnx")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if layout.is_place:
            write_onnx(network, torch.rand(2, 1, 96, 128), AXES, exact)
        else:
            export_onnx(network, exact)
        store_half(exact, target)
    finally:
        exact.unlink(missing_ok=True)
    return layout


def read_published(file: Path) -> tuple[nn.Module, Layout]:
    """The network of a published checkpoint with its weights, ready for inference."""
    state = read_state(file)
    layout = recognise(state, file)
    if layout in (GCNV2, GCNV2_TINY):
        network: nn.Module = Gcnv2(tiny=layout is GCNV2_TINY)
        own = {key: state[key] for key in network.state_dict()}
    elif layout.is_place:
        network, own = published_place(state, layout, file)
    else:
        network = SuperPoint(ORDERS[layout])
        own = superpoint_state(state, layout, network)
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise VslamError(f"{file}: looks like {layout.name}, but {' '.join(str(error).split())[:160]}") from None
    return network.eval().requires_grad_(False), layout


def read_state(file: Path) -> State:
    """Named tensors of a checkpoint, whichever way it was saved. Nothing in the file is executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a TorchScript file should have been opened as one
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise VslamError(f"{file}: no such file") from None
    except Exception as error:  # torch raises a dozen kinds for what it cannot read
        state = _torchscript_state(file, error)
    for key in ("model_state_dict", "state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise VslamError(f"{file}: holds no named weights")
    return {key.replace("module.", ""): value for key, value in state.items() if isinstance(value, Tensor)}


def _torchscript_state(file: Path, reason: Exception) -> State:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the format is deprecated
            module = torch.jit.load(str(file), map_location="cpu")
    except Exception:
        message = " ".join(str(reason).split())[:120]
        raise VslamError(f"{file}: neither a checkpoint nor a TorchScript file ({message})") from reason
    return by_order(dict(module.named_parameters()))


def by_order(parameters: State) -> State:
    """GCNv2's names given to the parameters of a trace that lost them: they come in the order of the layers."""
    names = list(Gcnv2(tiny=True).state_dict())
    if set(names) <= set(parameters) or len(parameters) != len(names):
        return parameters
    return dict(zip(names, parameters.values(), strict=True))


def recognise(state: State, file: Path) -> Layout:
    """Which layout named tensors are of.

    Raises:
        VslamError: none that is known.
    """
    if "conv1a.weight" in state:
        return SUPERPOINT_V1
    if "backbone.0.0.conv.weight" in state:
        return SUPERPOINT_RELU_NORM
    if "inc.conv.conv.0.weight" in state:
        return SUPERPOINT_NORM_RELU
    if "convF_1.weight" in state and "conv2.weight" in state:
        return GCNV2_TINY if state["conv2.weight"].shape[0] == 32 else GCNV2
    if "aggregation.3.weight" in state:
        return COSPLACE
    if "pool.centroids" in state:
        return NETVLAD
    some = ", ".join(list(state)[:3]) or "none"
    known = "SuperPoint, GCNv2, CosPlace, NetVLAD"
    raise VslamError(f"{file}: weights of no known network (first names: {some}); known: {known}")


def published_place(state: State, layout: Layout, file: Path) -> tuple[nn.Module, State]:
    """The network that fits a published place checkpoint, and the tensors to load into it.

    Raises:
        VslamError: a backbone that is not known, or tensors missing.
    """
    if layout is NETVLAD:
        if "encoder.28.weight" not in state or "pool.conv.weight" not in state:
            raise VslamError(f"{file}: a NetVLAD whose backbone is not VGG-16; only that one can be converted")
        network: nn.Module = NetVladVgg16(len(state["pool.centroids"]), "pool.conv.bias" in state)
    else:
        blocks = tuple(stage_length(state, stage) for stage in range(4, 8))
        if "backbone.0.weight" not in state or 0 in blocks:
            raise VslamError(f"{file}: a CosPlace whose backbone is no ResNet; only those can be converted")
        is_deep = "backbone.4.0.conv3.weight" in state
        network = CosPlaceResNet(blocks, is_deep, len(state["aggregation.3.weight"]))
    wanted = network.state_dict()
    return network, {key: state[key] for key in wanted if key in state}


def stage_length(state: State, stage: int) -> int:
    """Number of residual blocks of a ResNet's stage (4 to 7: its place among the backbone's layers)."""
    return len({key.split(".")[2] for key in state if key.startswith(f"backbone.{stage}.")})


def superpoint_state(state: State, layout: Layout, network: nn.Module) -> State:
    """A published SuperPoint's tensors under our names."""
    own = {}
    for key in network.state_dict():
        _, layer, part, tensor = key.split(".")
        published = f"{published_name(layer, part, layout)}.{tensor}"
        if published not in state and tensor == "num_batches_tracked":
            own[key] = torch.tensor(0)
        elif published in state:
            own[key] = state[published]
    return own


def published_name(layer: str, part: str, layout: Layout) -> str:
    """What a layout calls the convolution (`part` 'conv') or batch norm ('norm') of layer `conv1a` ... `convDb`."""
    stage, second = layer[4], layer[5] == "b"
    if layout is SUPERPOINT_V1:
        return layer
    if layout is SUPERPOINT_RELU_NORM:
        block = {"P": "detector", "D": "descriptor"}.get(stage) or f"backbone.{int(stage) - 1}"
        return f"{block}.{int(second)}.{'conv' if part == 'conv' else 'bn'}"
    if stage in "PD":
        return layer if part == "conv" else layer.replace("conv", "bn")
    block = "inc.conv.conv" if stage == "1" else f"down{int(stage) - 1}.mpconv.1.conv"
    return f"{block}.{3 * second + (part == 'norm')}"
