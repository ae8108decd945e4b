"""PyTorch back end: runs the operators of an ONNX file one by one, on the CPU or a GPU.

It exists for machines that have PyTorch anyway, and as a second opinion on the other back ends: the same file, other
arithmetic. Only the operators our exports contain are known.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from vslam.errors import VslamError
from vslam.inference.session import unreadable


class TorchSession:
    """An ONNX graph run by PyTorch. Threads may share it: a run keeps its values to itself."""

    def __init__(self, graph, device: str):
        from onnx import numpy_helper

        self._device = torch.device(device)
        self._constants = {w.name: _tensor(numpy_helper.to_array(w)).to(self._device) for w in graph.initializer}
        self._nodes = [(node, attributes(node)) for node in graph.node]
        self._input = next(value.name for value in graph.input if value.name not in self._constants)
        self.outputs = tuple(output.name for output in graph.output)

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        values = dict(self._constants) | {self._input: torch.from_numpy(image).to(self._device), "": None}
        with torch.inference_mode():
            for node, options in self._nodes:
                results = OPERATORS[node.op_type](options, *(values[name] for name in node.input))
                values[node.output[0]] = results
        return {name: values[name].cpu().numpy() for name in self.outputs}


def open_file(file: Path, device: str = "cpu") -> TorchSession:
    """Open an ONNX file; VslamError when it is damaged or holds an operator that is not known here."""
    try:
        import onnx

        graph = onnx.load(str(file)).graph
    except ImportError:
        raise VslamError("backend 'torch' needs the package onnx to read weights: pip install 'vslam[train]'") from None
    except Exception as error:  # protobuf's kinds
        raise unreadable(file, error) from error
    unknown = sorted({node.op_type for node in graph.node} - set(OPERATORS))
    if unknown:
        raise VslamError(
            f"{file}: operators {', '.join(unknown)} are not known to backend 'torch'; use 'onnx' or 'openvino'"
        )
    return TorchSession(graph, device)


def attributes(node) -> dict:
    """A node's attributes as plain Python values."""
    from onnx import helper

    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array))  # a copy: ONNX hands out read-only views


def _conv(options, x, weight, bias=None):
    pads = options.get("pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:]:
        x, pads = F.pad(x, (pads[1], pads[3], pads[0], pads[2])), [0, 0]
    return F.conv2d(x, weight, bias, options.get("strides", 1), tuple(pads[:2]), groups=options.get("group", 1))


def _batch_norm(options, x, scale, bias, mean, variance):
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, options.get("epsilon", 1e-5))


def _gather(options, x, index):
    if index.ndim:
        raise VslamError("Gather of several rows is not known to backend 'torch'; use 'onnx' or 'openvino'")
    return x.select(options.get("axis", 0), int(index))


def _pad(options, x, pads, *value):
    mode = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}[options.get("mode", "constant")]
    before, after = pads[: x.ndim].tolist(), pads[x.ndim :].tolist()
    if mode != "constant":  # of rows and columns; torch knows no others
        before, after = before[2:], after[2:]
    return F.pad(x, [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair], mode)


def _reduce_sum(options, x, axes=None):
    chosen = options["axes"] if axes is None else [int(a) for a in axes]
    return x.sum(dim=chosen, keepdim=bool(options.get("keepdims", 1)))


def _resize(options, x, region=None, scales=None, sizes=None):
    mode = {"linear": "bilinear", "nearest": "nearest"}[options.get("mode", "nearest")]
    align = {"align_corners": False} if mode == "bilinear" else {}
    if sizes is not None:
        return F.interpolate(x, size=[int(v) for v in sizes[2:]], mode=mode, **align)
    return F.interpolate(x, scale_factor=[float(v) for v in scales[2:]], mode=mode, **align)


def _depth_to_space(options, x):
    if options.get("mode", "DCR") != "CRD":
        raise VslamError("DepthToSpace in mode DCR is not known to backend 'torch'; use 'onnx' or 'openvino'")
    return F.pixel_shuffle(x, options["blocksize"])


def _space_to_depth(options, x):
    block = options["blocksize"]  # ONNX orders channels (row, column, channel)
    n, c, h, w = x.shape
    cells = x.view(n, c, h // block, block, w // block, block)
    return cells.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block * block, h // block, w // block)


def _unsqueeze(options, x, axes):
    for axis in sorted(int(a) for a in axes):
        x = x.unsqueeze(axis)
    return x


def _reduce_mean(options, x, axes=None):
    chosen = options["axes"] if axes is None else [int(a) for a in axes]
    return x.mean(dim=chosen, keepdim=bool(options.get("keepdims", 1)))


def _slice(options, x, starts, ends, axes=None, steps=None):
    chosen = range(len(starts)) if axes is None else [int(a) for a in axes]
    window = [slice(None)] * x.ndim
    for k, axis in enumerate(chosen):
        window[axis] = slice(
            int(starts[k]), min(int(ends[k]), x.shape[axis]), int(steps[k]) if steps is not None else 1
        )
    return x[tuple(window)]


def _average_pool(options, x):
    count_padding = bool(options.get("count_include_pad", 0))
    pads = options.get("pads", [0, 0])[:2]
    return F.avg_pool2d(x, options["kernel_shape"], options.get("strides", 1), pads, count_include_pad=count_padding)


def _max_pool(options, x):
    return F.max_pool2d(x, options["kernel_shape"], options.get("strides", 1), options.get("pads", [0, 0])[:2])


def _cast(options, x):
    return x.to({1: torch.float32, 6: torch.int32, 7: torch.int64, 10: torch.float16}[options["to"]])


def _constant(options):
    from onnx import numpy_helper

    return _tensor(numpy_helper.to_array(options["value"]))


def _linear_range(scale, zero, x):
    shape = [1] * x.ndim
    if scale.ndim and scale.numel() > 1:
        shape[0] = -1
    return scale.reshape(shape), zero.reshape(shape).float()


def _quantize(options, x, scale, zero):
    step, origin = _linear_range(scale, zero, x)
    limits = torch.iinfo(zero.dtype)
    return (torch.round(x / step) + origin).clamp(limits.min, limits.max).to(zero.dtype)


def _dequantize(options, x, scale, zero):
    step, origin = _linear_range(scale, zero, x)
    return (x.float() - origin) * step


OPERATORS = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "Relu": lambda o, x: F.relu(x),
    "Elu": lambda o, x: F.elu(x, o.get("alpha", 1.0)),
    "Sigmoid": lambda o, x: torch.sigmoid(x),
    "Softmax": lambda o, x: torch.softmax(x, dim=o.get("axis", -1)),
    "Add": lambda o, a, b: a + b,
    "Sub": lambda o, a, b: a - b,
    "Mul": lambda o, a, b: a * b,
    "Div": lambda o, a, b: a / b,
    "Sqrt": lambda o, x: x.sqrt(),
    "Pow": lambda o, a, b: a.pow(b),
    "Clip": lambda o, x, low=None, high=None: x.clamp(low, high),
    "MatMul": lambda o, a, b: a @ b,
    "Flatten": lambda o, x: x.flatten(o.get("axis", 1)),
    "Shape": lambda o, x: torch.tensor(x.shape),
    "Concat": lambda o, *xs: torch.cat(xs, dim=o["axis"]),
    "Transpose": lambda o, x: x.permute(o["perm"]).contiguous(),
    "Reshape": lambda o, x, shape: x.reshape([x.shape[k] if n == 0 else int(n) for k, n in enumerate(shape)]),
    "Unsqueeze": _unsqueeze,
    "Squeeze": lambda o, x, axes: x.squeeze(tuple(int(a) for a in axes)),
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Slice": _slice,
    "MaxPool": _max_pool,
    "Cast": _cast,
    "Constant": _constant,
    "Pad": _pad,
    "Gather": _gather,
    "Identity": lambda o, x: x,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
