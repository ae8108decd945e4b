"""Plug-ins by name: extractors, matchers, datasets and so on, imported only when asked for.

Another package adds its own through the entry-point groups `vslam.extractors`, `vslam.matchers`,
`vslam.datasets`, `vslam.backends`, `vslam.places`; a value is `"module:Class"`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from vslam.errors import VslamError

BUILT_IN: dict[str, dict[str, str]] = {
    "extractors": {
        "orb": "vslam.features.orb:Orb",
        "sift": "vslam.features.sift:Sift",
        "superpoint": "vslam.features.learned:SuperPoint",
        "gcnv2": "vslam.features.learned:Gcnv2",
        "gcnv2-tiny": "vslam.features.learned:Gcnv2Tiny",
    },
    "matchers": {
        "mutual": "vslam.matching.matcher:MutualMatcher",
        "ratio": "vslam.matching.matcher:RatioMatcher",
    },
    "places": {
        "netvlad": "vslam.places.descriptor:NetVlad",
        "gem": "vslam.places.descriptor:Gem",
        "cosplace": "vslam.places.descriptor:CosPlace",
    },
    "datasets": {
        "sample": "vslam.datasets.sample:open_sample",
        "tum": "vslam.datasets.tum:open_tum",
        "icl": "vslam.datasets.icl:open_icl",
        "seven_scenes": "vslam.datasets.seven_scenes:open_seven_scenes",
    },
}


BACKENDS, PRECISIONS = ("auto", "onnx", "openvino", "torch"), ("auto", "fp32", "int8")
"""What command lines offer for networks; `vslam.inference` and `manifest.json` know them."""


def names(kind: str) -> list[str]:
    """All known names of a kind (`"extractors"` ...), built-in ones first."""
    added = [point.name for point in entry_points(group=f"vslam.{kind}")]
    return [*BUILT_IN[kind], *(name for name in added if name not in BUILT_IN[kind])]


def load(kind: str, name: str) -> Any:
    """The class or function registered under `name`.

    Raises:
        VslamError: unknown name; the message lists the known ones.
    """
    target = BUILT_IN[kind].get(name)
    if target is None:
        found = entry_points(group=f"vslam.{kind}", name=name)
        if not found:
            raise VslamError(f"unknown {kind[:-1]} '{name}'; known: {', '.join(names(kind))}")
        return next(iter(found)).load()
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
