"""ONNX Runtime back end: one thread a call, no spinning; one session serves all threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from vslam.inference.session import unreadable


class OnnxSession:
    """A network in ONNX Runtime; its `run` is thread-safe."""

    def __init__(self, session: onnxruntime.InferenceSession):
        self._session = session
        self._input = session.get_inputs()[0].name
        self.outputs = tuple(output.name for output in session.get_outputs())

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        values = self._session.run(None, {self._input: image})
        return dict(zip(self.outputs, values, strict=True))


def open_file(file: Path) -> OnnxSession:
    """Open an ONNX file; VslamError when it is damaged or has an unknown operator set."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return OnnxSession(onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]))
    except Exception as error:  # its exception classes share no public root
        raise unreadable(file, error) from error
