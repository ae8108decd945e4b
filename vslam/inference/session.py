"""One protocol for all back ends: a network file is opened once and run from any thread."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from vslam.errors import VslamError

Backend = Literal["auto", "onnx", "openvino", "torch"]

MODULES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}
"""The package each back end needs."""

EXTRAS = {"onnx": "onnx", "openvino": "openvino", "torch": "train"}
"""The extra of vslam that installs it."""


class Session(Protocol):
    """A network ready to run; `run` may be called by several threads at once and releases the GIL."""

    outputs: tuple[str, ...]

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Named output maps of an input float32 (1, 1, H, W); good until the same thread runs the session again."""
        ...


def open_session(file: Path, backend: Backend = "auto") -> Session:
    """Open an ONNX file on one thread with a back end; `auto` takes OpenVINO where installed, else ONNX Runtime.

    Raises:
        VslamError: no such file, not a network the back end can run, or the back end is not installed.
    """
    if not file.is_file():
        raise VslamError(f"{file}: no such weights; 'vslam models list' names the shipped ones")
    chosen = choose_backend(backend)
    return import_module(f"vslam.inference.{chosen}").open_file(file)


def choose_backend(backend: str) -> str:
    """The back end itself, or for `auto` the fastest one that is installed.

    Raises:
        VslamError: unknown, or not installed; the message names the extra.
    """
    if backend == "auto":
        for name in ("openvino", "onnx", "torch"):
            if find_spec(MODULES[name]):
                return name
        raise VslamError(
            "learned features need a back end; install one: pip install 'vslam[openvino]' or 'vslam[onnx]'"
        )
    if backend not in MODULES:
        raise VslamError(f"backend '{backend}' is unknown; known: auto, {', '.join(MODULES)}")
    if not find_spec(MODULES[backend]):
        raise VslamError(f"backend '{backend}' is not installed; install it: pip install 'vslam[{EXTRAS[backend]}]'")
    return backend


def unreadable(file: Path, error: Exception) -> VslamError:
    """The one line for a file that a back end refuses: damaged, or of an unknown operator set."""
    reason = " ".join(str(error).split())[:160]
    return VslamError(f"{file}: not a network that can be run ({reason}); check it with 'vslam models verify'")
