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
    """A network in OpenVINO, compiled anew for each size of image (a third faster than one for any size).

    A request shared by threads gives wrong results, so each thread gets its own.
    """

    def __init__(self, core: openvino.Core, model: openvino.Model):
        self._core, self._model = core, model
        self._compiled: dict[tuple[int, ...], openvino.CompiledModel] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self.outputs = tuple(output.get_any_name() for output in model.outputs)

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        requests = self._local.__dict__.setdefault("requests", {})
        if image.shape not in requests:
            requests[image.shape] = self._compile(image.shape).create_infer_request()
        request = requests[image.shape]
        image = np.ascontiguousarray(image)  # the request reads this very memory
        request.set_input_tensor(openvino.Tensor(image, shared_memory=True))
        request.infer(share_inputs=True, share_outputs=True)  # no copies
        return {name: request.get_output_tensor(k).data for k, name in enumerate(self.outputs)}

    def _compile(self, shape: tuple[int, ...]) -> openvino.CompiledModel:
        with self._lock:
            if shape not in self._compiled:
                fixed = self._model.clone()
                fixed.reshape(list(shape))
                self._compiled[shape] = self._core.compile_model(fixed, "CPU", PROPERTIES)
            return self._compiled[shape]


def open_file(file: Path) -> OpenVinoSession:
    """Open an ONNX or OpenVINO file; VslamError when it is damaged or has an unknown operator set."""
    core = openvino.Core()
    try:
        return OpenVinoSession(core, core.read_model(str(file)))
    except Exception as error:  # RuntimeError and its own kinds
        raise unreadable(file, error) from error
