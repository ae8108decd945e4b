"""A place network small enough to know its answer by heart."""

from pathlib import Path

import numpy as np


def write_network(file: Path, normalise: bool = False, output: str = "place", filters: int = 6) -> Path:
    """Averages of a few 4x4 filters over the image, (N, filters); `normalise` divides by their length, even if 0."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(filters, 1, 4, 4)).astype(np.float32)
    weights -= weights.mean(axis=(1, 2, 3), keepdims=True)  # blind to a constant image
    last = "mean" if normalise else output
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["filtered"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Relu", ["filtered"], ["positive"]),
        helper.make_node("ReduceMean", ["positive"], [last], axes=[2, 3], keepdims=0),
    ]
    if normalise:
        nodes += [
            helper.make_node("Mul", ["mean", "mean"], ["squares"]),
            helper.make_node("ReduceMean", ["squares"], ["square"], axes=[1], keepdims=1),
            helper.make_node("Sqrt", ["square"], ["length"]),
            helper.make_node("Div", ["mean", "length"], [output]),
        ]
    shapes = {"image": ["n", 1, "h", "w"], output: ["n", filters]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    constants = [numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(file))
    return file
