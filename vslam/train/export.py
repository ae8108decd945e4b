"""From trained networks to ONNX files: folded norms, dynamic image size, half-precision storage, int8."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vslam.train.networks.folded import fold
from vslam.train.networks.light import LightNet, heatmap, normalise

OPSET = 17
"""Old enough for every ONNX Runtime and OpenVINO of the last years."""


FULL = ("score", "corners")
"""Maps of the size of the image."""


class DenseMaps(nn.Module):
    """The maps that `vslam.features.maps` decodes: `score` (N, H, W), `descriptors` (N, h, w, D), `reliability`
    (N, h, w), `corners` (N, H, W). `binary` chooses the 256 values whose signs are the bits."""

    outputs = ("score", "descriptors", "reliability", "corners")

    def __init__(self, network: LightNet, binary: bool):
        super().__init__()
        self.network = fold(fold_norms(network))
        self.head = self.network.bits if binary else self.network.descriptor

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        normal = normalise(image)
        quarter, eighth = self.network.trunk(normal)
        corners, shared = self.network.corners(normal), self.network.share(eighth)
        score = heatmap(self.network.detect(corners, quarter, eighth))
        reliability = self.network.reliability(shared).sigmoid()
        return score, self.head(shared).permute(0, 2, 3, 1), reliability.squeeze(1), corners[:, 0]


def fold_norms(network: nn.Module) -> nn.Module:
    """A copy for inference with every batch norm folded into the convolution before it."""
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for block in folded.modules():
        if isinstance(block, nn.Sequential):
            for k in range(len(block) - 1):
                if isinstance(block[k], nn.Conv2d) and isinstance(block[k + 1], nn.BatchNorm2d):
                    block[k] = fuse_conv_bn_eval(block[k], block[k + 1])
                    block[k + 1] = nn.Identity()
    return folded


def export_onnx(maps: nn.Module, file: Path) -> None:
    """Write maps of an image (1, 1, H, W) of any size, a multiple of the stride, as float32 ONNX."""
    height, width = {2: "height", 3: "width"}, {1: "height", 2: "width"}
    small = {1: "rows", 2: "columns"}
    axes = {"image": height} | {name: width if name in FULL else small for name in maps.outputs}
    write_onnx(maps, torch.rand(1, 1, 96, 128), axes, file)


def write_onnx(network: nn.Module, example: Tensor, axes: dict[str, dict[int, str]], file: Path) -> None:
    """Write a network with input `image` as float32 ONNX; `axes` names the sizes that may change, output by output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (example,), str(file), input_names=["image"],
            output_names=[name for name in axes if name != "image"], dynamic_axes=axes, opset_version=OPSET,
            dynamo=False,
        )  # fmt: skip
    fold_constants(file)
    onnx.checker.check_model(str(file))


def fold_constants(file: Path) -> None:
    """Replace what does not depend on the image by its value: the exporter writes paddings as little programs."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(file)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(file))
    standard = [entry for entry in model.opset_import if entry.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    onnx.save(model, str(file))


def store_half(source: Path, target: Path, smallest: int = 64) -> None:
    """Weights of at least `smallest` numbers as float16 with a cast behind each: the arithmetic stays float32."""
    model = onnx.load(str(source))
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < smallest:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], to=TensorProto.FLOAT))
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, str(target))
