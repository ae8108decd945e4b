"""Rules of the package that a reader relies on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"numpy", "scipy", "numba", "cv2", "yaml", "tqdm", "g2opy", "faiss", "onnxruntime", "openvino", "torch"}


def test_imports_go_downwards():
    pytest.importorskip("importlinter")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    linter = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert linter.returncode == 0, linter.stdout + linter.stderr


def loaded_by(code: str) -> set[str]:
    """Which heavy packages Python has loaded after `code`."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return HEAVY & set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"], ["eval", "--help"]], ids=" ".join)
def test_help_loads_nothing_heavy(words):
    code = f"""
try:
    from vslam.cli.main import main
    main({words})
except SystemExit as end:
    assert end.code == 0"""
    assert loaded_by(code) == set()


def test_public_names_are_lazy_and_complete():
    assert loaded_by("import vslam; dir(vslam)") == set()
    import vslam

    assert all(getattr(vslam, name) is not None for name in vslam.__all__)


def test_front_end_needs_no_slam():
    assert not loaded_by("from vslam import Frontend; Frontend()") & {"g2opy", "faiss", "onnxruntime", "torch"}
