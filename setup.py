"""What vslam is, and what it needs. docs/dependencies.md says why."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "vslam" / "__init__.py").read_text(), re.MULTILINE)[1]

# Folders beside the package that are shipped inside it: vslam.config.shipped_folders() finds them in both places.
SHIPPED = {f"vslam._{name}": name for name in ("configs", "weights") if (ROOT / name).is_dir()}

REQUIRED = [
    "numpy>=2.0",
    "scipy>=1.13",
    "numba>=0.61",
    "opencv-contrib-python-headless>=4.14,<6",
    "onnxruntime>=1.20",
    "g2opy>=2.3",
    "faiss-cpu>=1.9",
    "pyyaml>=6.0",
    "tqdm>=4.60",
]
EXTRAS = {
    "openvino": ["openvino>=2025.0"],
    "viewer": ["rerun-sdk>=0.24"],
    "train": ["torch>=2.6", "onnx>=1.17", "tensorboard>=2.16"],
    "test": ["pytest>=8", "hypothesis>=6.100", "evo>=1.30", "import-linter>=2.1", "ruff>=0.9", "setuptools>=70.1"],
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})

setup(
    name="vslam",
    version=VERSION,
    description="Real-time visual SLAM in Python",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    packages=[*find_packages(include=["vslam", "vslam.*"]), *SHIPPED],
    package_dir=SHIPPED,
    package_data={
        "vslam.evaluation": ["*.html"],
        "vslam._configs": ["*.yaml"],
        "vslam._weights": ["*.onnx", "*.json", "*.md", "*.csv"],
    },
    entry_points={"console_scripts": ["vslam = vslam.cli.main:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
