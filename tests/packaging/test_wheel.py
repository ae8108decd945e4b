"""The package as users get it: built, installed in a virtual environment of its own, used from another folder."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import vslam

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("vslam", "configs", "weights", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"


def call(*words, **options) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist of a copy of the checkout, and the wheel made from that sdist."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, source / part)
    call(sys.executable, "-c", BUILD.format(kind="sdist"), dist, cwd=source)
    shutil.unpack_archive(next(dist.glob("*.tar.gz")), source / "unpacked", filter="data")
    unpacked = next((source / "unpacked").iterdir())
    call(sys.executable, "-c", BUILD.format(kind="wheel"), dist, cwd=unpacked)
    return dist


@pytest.fixture(scope="module")
def scripts(built, tmp_path_factory) -> Path:
    """`bin` of a virtual environment with the wheel; what it needs is borrowed from the one of the tests."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    packages = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    wheel = next(built.glob("*.whl"))
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")  # last: pip must not see what is borrowed
    return environment / "bin"


def installed_folder(scripts: Path, elsewhere: Path) -> Path:
    folder = Path(call(scripts / "python", "-c", "import vslam; print(vslam.__path__[0])", cwd=elsewhere).strip())
    assert folder.is_relative_to(scripts.parent)
    return folder


def test_commands_work_from_another_folder(scripts, tmp_path):
    assert call(scripts / "vslam", "--version", cwd=tmp_path) == f"vslam {vslam.__version__}\n"
    assert "eval" in call(scripts / "vslam", "--help", cwd=tmp_path)
    assert "--deterministic" in call(scripts / "python", "-m", "vslam", "run", "--help", cwd=tmp_path)


def test_settings_and_weights_are_inside(scripts, tmp_path):
    code = "import vslam; print(vslam.load_config('sift').extractor.name)"
    assert call(scripts / "python", "-c", code, cwd=tmp_path) == "sift\n"
    package = installed_folder(scripts, tmp_path)
    for name, pattern in (("configs", "*.yaml"), ("weights", "*.onnx"), ("weights", "*.json")):
        ours = {file.name for file in (ROOT / name).glob(pattern)}
        assert {file.name for file in (package / f"_{name}").glob(pattern)} == ours
    assert (package / "evaluation" / "report_template.html").exists()


def test_every_module_of_the_checkout_is_inside(scripts, tmp_path):
    package = installed_folder(scripts, tmp_path)
    ours = {file.relative_to(ROOT / "vslam") for file in (ROOT / "vslam").rglob("*.py")}
    assert {file.relative_to(package) for file in package.rglob("*.py")} == ours


def test_nowhere_to_write_but_the_temporary_folder(scripts, tmp_path):
    package = installed_folder(scripts, tmp_path)
    before = set(package.rglob("*"))
    environment = {key: value for key, value in os.environ.items() if key not in ("VSLAM_CACHE", "NUMBA_CACHE_DIR")}
    environment |= {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none", "PYTHONDONTWRITEBYTECODE": "1"}
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment["TMPDIR"] = str(temporary)
    code = """if True:
        import numpy as np
        from vslam import Frontend
        image = np.kron(np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8), np.ones((8, 8), np.uint8))
        print(len(Frontend().extract(image)) > 10)
        """
    assert call(scripts / "python", "-c", code, cwd=tmp_path, env=environment) == "True\n"
    assert set(package.rglob("*")) == before
    assert any(temporary.rglob("*.nbi")), "compiled kernels are kept somewhere"
