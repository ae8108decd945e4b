"""The one way to compile a kernel: `from vslam.kernels import njit`.

Numba's disk cache does not notice an edit in another file, be it of a kernel or of a constant that a kernel has taken
in, and fails where no folder is writable. So it is sent to a folder of ours whose name carries a hash of all sources
that kernels can take anything from.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numba
from numba import types
from numba.extending import intrinsic

from vslam.cache import cache_folder

PACKAGE = Path(__file__).resolve().parent
ROOMS = ("features", "matching", "tracking", "mapping", "geometry", "datasets/synthetic")
"""Where kernels and their constants are; the package's other folders define neither."""


def _kernel_hash() -> str:
    digest = hashlib.sha256()
    files = [PACKAGE / "kernels.py", *(file for room in ROOMS for file in (PACKAGE / room).rglob("*.py"))]
    for file in sorted(files):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


if not numba.config.CACHE_DIR:  # the user's choice, by NUMBA_CACHE_DIR
    numba.config.CACHE_DIR = str(cache_folder(f"kernels-{_kernel_hash()}"))


def njit(function=None, **options):
    """`numba.njit` that caches on disk and releases the GIL; used bare or with numba's own options.

    Kernels are called from Python and from each other, never from C: without that entry they compile 5 % faster.
    """
    options = {"cache": True, "nogil": True, "no_cfunc_wrapper": True, "error_model": "numpy"} | options
    return numba.njit(**options) if function is None else numba.njit(**options)(function)


def inner(function=None, **options):
    """As `njit`, for a kernel that only other kernels call: without an entry from Python a fifth less to compile."""
    return njit(function, no_cpython_wrapper=True, **options)


@intrinsic
def popcount(typing_context, word):
    """Number of ones of a uint64, one machine instruction."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate
