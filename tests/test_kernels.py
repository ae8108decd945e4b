"""Compiled kernels: the population count, and where their disk cache goes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vslam
from vslam.kernels import ROOMS, njit, popcount

PACKAGE = Path(vslam.__file__).parent
SPREAD = "from vslam.features.spread import spread; import numpy; spread(numpy.zeros((9, 2)), numpy.ones(9), 3, 9, 9)"
CACHE = "import vslam.kernels, numba; print(numba.config.CACHE_DIR)"


@njit
def count_bits(word):
    return popcount(np.uint64(word))


@given(st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_popcount_counts_ones(word):
    assert count_bits(np.uint64(word)) == bin(word).count("1")


def test_njit_releases_the_interpreter_and_caches_by_default():
    assert count_bits.targetoptions["nogil"]
    assert type(count_bits._cache).__name__ != "NullCache"


def python(code: str, package_parent: Path, **environment: str) -> str:
    """Output of a fresh interpreter that finds the package in this folder."""
    clean = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "VSLAM_CACHE", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=package_parent, env=clean | environment, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, to be edited."""
    shutil.copytree(PACKAGE, tmp_path / "here" / "vslam", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "here"


def test_cache_lies_outside_the_package(copy, tmp_path):
    python(SPREAD, copy, VSLAM_CACHE=str(tmp_path / "cache"))
    assert list((tmp_path / "cache").rglob("*.nbi"))
    assert not list(copy.rglob("*.nb?"))


def test_read_only_package_and_home_still_work(copy, tmp_path):
    locked = tmp_path / "locked"
    locked.write_text("a file where a folder should be: nobody can write here, not even the superuser")
    environment = {"VSLAM_CACHE": str(locked / "a"), "XDG_CACHE_HOME": str(locked / "b"), "HOME": str(locked / "c")}
    where = python(CACHE, copy, TMPDIR=str(tmp_path), **environment)
    assert Path(where).is_relative_to(tmp_path) and Path(where).is_dir()


def test_cache_lies_outside_the_package_where_numba_was_imported_before(copy, tmp_path):
    python(f"import numba; {SPREAD}", copy, VSLAM_CACHE=str(tmp_path / "cache"))
    assert list((tmp_path / "cache").rglob("*.nbi"))
    assert not list(copy.rglob("*.nb?"))


def test_named_cache_folder_is_respected(copy, tmp_path):
    assert python(CACHE, copy, NUMBA_CACHE_DIR=str(tmp_path / "mine")) == str(tmp_path / "mine")


def test_every_kernel_is_in_a_room_that_is_watched():
    with_kernels = [file for file in PACKAGE.rglob("*.py") if re.search("\n@(njit|inner)", file.read_text())]
    assert len(with_kernels) > 10
    assert [f for f in with_kernels if not any(f.is_relative_to(PACKAGE / room) for room in ROOMS)] == []


def test_cache_is_the_same_after_an_edit_elsewhere(copy, tmp_path):
    def where() -> str:
        return python(CACHE, copy, VSLAM_CACHE=str(tmp_path / "cache"))

    first = where()
    for file in ("cli/run.py", "evaluation/metrics.py"):
        (copy / "vslam" / file).write_text("# changed\n")
    assert where() == first


def test_cache_is_another_after_a_kernel_file_changes(copy, tmp_path):
    def where() -> str:
        return python(CACHE, copy, VSLAM_CACHE=str(tmp_path / "cache"))

    first = where()
    assert where() == first
    kernel = copy / "vslam" / "features" / "spread.py"
    kernel.write_text(kernel.read_text() + "\n# changed\n")
    assert where() != first


@pytest.mark.parametrize(("file", "constant"), [("features/brief.py", "RADIUS"), ("geometry/gates.py", "STEREO_GATE")])
def test_cache_is_another_after_a_constant_of_kernels_changes(copy, tmp_path, file, constant):
    def where() -> str:
        return python(CACHE, copy, VSLAM_CACHE=str(tmp_path / "cache"))

    first = where()
    source = (copy / "vslam" / file).read_text()
    assert f"\n{constant} = " in source
    (copy / "vslam" / file).write_text(source.replace(f"\n{constant} = ", f"\n{constant} = 1 + "))
    assert where() != first
