"""Exported weights back into a network that can be trained: the repository ships ONNX files and no checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from vslam.errors import VslamError
from vslam.inference.models import find_model, manifest
from vslam.train.loop import WIDTHS, build_network
from vslam.train.networks.folded import whole
from vslam.train.networks.light import LightNet
from vslam.train.release import NETWORK, open_checkpoint

Tensors = dict[str, Tensor]


def shipped_network(name: str) -> LightNet:
    """A shipped network as it was trained, ready for inference.

    `superpoint` and `gcnv2` are two heads of one trunk, exported apart: each brings the other's head along.

    Raises:
        VslamError: not shipped, or damaged.
    """
    tensors = read_tensors(find_model(name).file("fp32"))
    for other, kind in NETWORK.items():
        if kind == NETWORK[name] and other != name:
            more = read_tensors(find_model(other).file("fp32"))
            if all(torch.equal(tensors[key], more[key]) for key in tensors.keys() & more.keys()):
                tensors = more | tensors
    return fill(build_network(NETWORK[name]), tensors, name)


def exported_network(source: Path, kind: str) -> LightNet:
    """The network of an ONNX file that `vslam export --precision fp16` wrote, or a shipped one by its name.

    Raises:
        VslamError: neither there nor shipped, unreadable, or of another network.
    """
    if source.suffix == ".onnx":
        return fill(build_network(kind), read_tensors(source), str(source))
    name = str(source)
    if name not in manifest() or name not in NETWORK:
        known = ", ".join(n for n in NETWORK if n in manifest())
        raise VslamError(f"{name}: neither a checkpoint, an .onnx file nor a shipped network ({known})")
    if NETWORK[name] != kind:
        raise VslamError(f"{name}: is network '{NETWORK[name]}', not '{kind}'")
    return shipped_network(name)


def any_network(source: Path) -> LightNet:
    """The network of a run's folder, a checkpoint, an exported ONNX file, or a shipped one by its name.

    Raises:
        VslamError: none of these.
    """
    if source.is_dir() or source.suffix == ".pt":
        return open_checkpoint(source)[0]
    if source.suffix == ".onnx":
        tensors = read_tensors(source)
        kinds = [kind for kind in WIDTHS if _fits(build_network(kind), tensors)]
        if not kinds:
            raise VslamError(f"{source}: not a network of 'vslam export --precision fp16'")
        return fill(build_network(kinds[0]), tensors, str(source))
    return exported_network(source, NETWORK.get(str(source), ""))


def _fits(network: LightNet, tensors: Tensors) -> bool:
    state = network.state_dict()
    shared = [key for key in tensors if key in state]
    return bool(shared) and all(state[key].shape == tensors[key].shape for key in shared)


def read_tensors(file: Path) -> Tensors:
    """Named weights of an ONNX file, float32, under the names of the network's own parts.

    Raises:
        VslamError: not an ONNX file.
    """
    try:
        graph = onnx.load(str(file)).graph
    except FileNotFoundError:
        raise VslamError(f"{file}: no such file") from None
    except Exception as error:  # protobuf's kinds
        raise VslamError(f"{file}: not an ONNX file ({' '.join(str(error).split())[:100]})") from error
    found = {}
    for tensor in graph.initializer:
        name = tensor.name.removesuffix("_half")
        if name.startswith("network."):
            values = np.array(numpy_helper.to_array(tensor), np.float32)
            found[name.removeprefix("network.")] = torch.from_numpy(values)
    return whole(found)


def fill(network: LightNet, tensors: Tensors, source: str) -> LightNet:
    """Put exported tensors into a network; every norm becomes the bias it was folded into. Heads that the file does not
    have stay as they are.

    Raises:
        VslamError: tensors are missing or of other sizes.
    """
    state, norms = network.state_dict(), norms_of(network)
    for key, value in tensors.items():
        layer, _, part = key.rpartition(".")
        own = f"{norms[layer]}.bias" if part == "bias" and layer in norms else key
        if own not in state or state[own].shape != value.shape:
            raise VslamError(f"{source}: tensor '{key}' {tuple(value.shape)} is not of this network; is it of another?")
        state[own] = value
    for layer, norm in norms.items():
        module = network.get_submodule(norm)
        if f"{layer}.weight" not in tensors or f"{layer}.bias" not in tensors:
            raise VslamError(
                f"{source}: has no '{layer}'; only files of 'vslam export --precision fp16' can be trained on"
            )
        state[f"{norm}.weight"] = torch.ones_like(module.weight)
        state[f"{norm}.running_mean"] = torch.zeros_like(module.running_mean)
        state[f"{norm}.running_var"] = torch.full_like(module.running_var, 1 - module.eps)
    network.load_state_dict(state)
    return network.eval()


def norms_of(network: nn.Module) -> dict[str, str]:
    """The name of each convolution that a norm follows, and the name of that norm."""
    found = {}
    for name, block in network.named_modules():
        if isinstance(block, nn.Sequential):
            for k in range(len(block) - 1):
                if isinstance(block[k], nn.Conv2d) and isinstance(block[k + 1], nn.BatchNorm2d):
                    found[f"{name}.{k}"] = f"{name}.{k + 1}"
    return found


def measure_norms(network: LightNet, images: Tensor) -> None:
    """Give every norm the statistics of its input over images (N, 1, H, W) in [0, 1], and let its scale and offset take
    them back: the network's maps stay the same, and training can begin where the statistics of a batch are used."""
    norms = [network.get_submodule(name) for name in norms_of(network).values()]
    sums: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}
    hooks = [norm.register_forward_pre_hook(lambda module, inputs: sums[module].append(inputs[0])) for norm in norms]
    network.eval()
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for norm in norms:
            seen = torch.cat(sums[norm])
            mean, variance = seen.mean(dim=(0, 2, 3)), seen.var(dim=(0, 2, 3), unbiased=False)
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            norm.bias.add_(scale * (mean - norm.running_mean))
            norm.weight.copy_(scale * (variance + norm.eps).sqrt())
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
