"""OpenVINO back end: one thread, float32 where the network is not int8, one request for each calling thread."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import openvino

from vslam.inference.session import unreadable

# bfloat16 is the default on processors that have the instructions, even where it is slower than float32
PROPERTIES = {
    "INFERENCE_PRECISION_HINT": "f32",
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "ENABLE_CPU_PINNING": False,
}


class OpenVinoSession:
    """A network in OpenVINO. A request shared by threads gives wrong results, so each thread gets its own."""

    def __init__(self, compiled: openvino.CompiledModel):
        self._compiled = compiled
        self._local = threading.local()
        self.outputs = tuple(output.get_any_name() for output in compiled.outputs)

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        request.infer([image])
        return {name: request.get_output_tensor(k).data.copy() for k, name in enumerate(self.outputs)}


def open_file(file: Path) -> OpenVinoSession:
    """Open an ONNX or OpenVINO file; VslamError when it is damaged or has an unknown operator set."""
    core = openvino.Core()
    try:
        return OpenVinoSession(core.compile_model(core.read_model(str(file)), "CPU", PROPERTIES))
    except Exception as error:  # RuntimeError and its own kinds
        raise unreadable(file, error) from error
