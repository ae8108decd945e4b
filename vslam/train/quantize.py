"""int8 weights and activations by calibration on images; what decides places stays in float."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from vslam.features.learned import as_input
from vslam.inference.session import open_session

NARROW = "descriptors"
"""The map that int8 files give out as int8."""

OPTIONS = {
    "ActivationSymmetric": False,
    "OpTypesToExcludeOutputQuantization": ["Conv"],  # once, behind the Relu: rounded before it too, half a step is lost
}


class ImageReader(CalibrationDataReader):
    """Hands uint8 images (H, W) to the calibration, one by one."""

    def __init__(self, images: list[np.ndarray]):
        self._left = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._left, None)
        return None if image is None else {"image": as_input(image)}


def float_convolutions(model: onnx.ModelProto) -> list[str]:
    """Convolutions that stay in float: the last 1x1 of the heads but the descriptor's, and those over one channel."""
    consumers: dict[str, list[str]] = {}
    for node in reversed(model.graph.node):
        kind = node.op_type
        if kind == "Add" and consumers.get(node.output[0]) == ["Relu"]:
            kind = "Relu"  # the end of a residual block
        for name in node.input:
            consumers.setdefault(name, []).append(kind)
    found = []
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        is_hidden = consumers.get(node.output[0]) in (["Relu"], ["Transpose"])  # descriptors are turned channels last
        channels = next(w.dims[1] for w in model.graph.initializer if w.name == node.input[1])
        if not is_hidden or channels == 1:
            found.append(node.name)
    return found


def quantize(source: Path, target: Path, images: list[np.ndarray]) -> None:
    """Write an int8 copy of a float ONNX file: QDQ form, per channel, calibrated on uint8 images (H, W)."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(str(prepared))
        quantize_static(
            str(prepared), str(target), ImageReader(images), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv"],
            nodes_to_exclude=float_convolutions(model), extra_options=OPTIONS,
        )  # fmt: skip
    if NARROW in {output.name for output in onnx.load(str(target)).graph.output}:
        narrow(target, largest(source, images))


def largest(source: Path, images: list[np.ndarray]) -> float:
    """What 9999 of 10000 descriptor values of a float file stay below on images, by magnitude."""
    session = open_session(source, "onnx")
    return float(np.quantile([np.abs(session.run(as_input(image))[NARROW]).ravel() for image in images[:20]], 0.9999))


def narrow(file: Path, limit: float) -> None:
    """Give descriptors out as int8 of one step for all: signs and directions stay, and a quarter of the memory."""
    model = onnx.load(str(file))
    turn = next(node for node in model.graph.node if NARROW in node.output)
    names = [f"{NARROW}_scale", f"{NARROW}_zero", f"{NARROW}_narrow"]
    values = [np.array(limit / 127, np.float32), np.array(0, np.int8)]
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for v, n in zip(values, names[:2], strict=True))
    rounding = helper.make_node("QuantizeLinear", [turn.input[0], *names[:2]], [names[2]])
    turn.input[0] = names[2]
    model.graph.node.insert(list(model.graph.node).index(turn), rounding)
    output = next(output for output in model.graph.output if output.name == NARROW)
    output.type.tensor_type.elem_type = TensorProto.INT8
    onnx.save(model, str(file))
