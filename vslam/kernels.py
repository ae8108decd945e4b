"""The one way to compile a kernel: `from vslam.kernels import njit`.

Numba's disk cache does not notice an edit in another file's kernel, and fails where no folder is writable. So, before
numba is imported, its cache is sent to a folder of ours whose name carries a hash of all kernel sources.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from vslam.cache import cache_folder

PACKAGE = Path(__file__).resolve().parent


def _kernel_hash() -> str:
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        source = file.read_bytes()
        if b"njit" in source:
            digest.update(source)
    return digest.hexdigest()[:12]


if "NUMBA_CACHE_DIR" not in os.environ and "numba" not in sys.modules:
    os.environ["NUMBA_CACHE_DIR"] = str(cache_folder(f"kernels-{_kernel_hash()}"))

import numba  # noqa: E402  (the cache folder must be set first)
from numba import types  # noqa: E402
from numba.extending import intrinsic  # noqa: E402


def njit(function=None, **options):
    """`numba.njit` that caches on disk and releases the GIL; used bare or with numba's own options."""
    options = {"cache": True, "nogil": True} | options
    return numba.njit(**options) if function is None else numba.njit(**options)(function)


@intrinsic
def popcount(typing_context, word):
    """Number of ones of a uint64, one machine instruction."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate
