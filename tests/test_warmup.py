"""Warming up: afterwards a run compiles nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import gc, sys
from dataclasses import replace
import numpy as np
from numba.core.dispatcher import Dispatcher
from tests.world import CAMERA, filmed
from vslam.config import load_config
from vslam.system import System
from vslam.warmup import warm_up

def compiled():
    kernels = [o for o in gc.get_objects() if isinstance(o, Dispatcher) and o.py_func.__module__.startswith("vslam.")]
    return {(k.py_func.__module__, k.py_func.__name__, str(s)) for k in kernels for s in k.overloads}

config = load_config(None, sys.argv[1:])
warm_up(config, quiet=True)
warm = compiled()
frames = [replace(f, image=np.repeat(f.image[..., None], 3, axis=2)) for f in filmed(30)]
for k in (12, 13):
    frames[k] = replace(frames[k], image=np.zeros_like(frames[k].image))
frames[16] = replace(frames[16], depth=None)
frames[20] = replace(frames[20], image=np.zeros_like(frames[20].image), depth=None)
frames[22] = replace(frames[22], depth=np.zeros_like(frames[22].depth))
with System(replace(CAMERA, distortion=(0.01, 0.0, 0.0, 0.0, 0.0)), config) as system:
    for frame in frames:
        system.track(frame)
for kernel in sorted(compiled() - warm):
    print(*kernel)
"""


@pytest.mark.parametrize("word", ["extractor.name=orb", "extractor.name=sift", "mapping.optimizer=g2o"])
def test_after_warming_up_a_run_compiles_nothing(word):
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", CODE, word], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == ""
