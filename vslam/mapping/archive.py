"""Maps that last: a map as a file, with what must be known to go on in it. docs/maps.md says what the file holds."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vslam.config import ExtractorConfig, from_dict
from vslam.errors import VslamError
from vslam.inference.models import manifest
from vslam.mapping.container import check_writable, read_container, write_container
from vslam.mapping.map import Map
from vslam.mapping.storage import map_from_arrays, map_to_arrays
from vslam.registry import load
from vslam.types import Camera

__all__ = ["StoredMap", "check_compatible", "check_writable", "features_key", "load_map", "save_map"]

KIND = "map"
COMPARED = ("width", "height", "fx", "fy", "cx", "cy", "baseline")  # of cameras; disparities are in the map
HOW_COMPUTED = ("weights", "backend", "precision")  # options of extractors that leave descriptors comparable


def _no_ids() -> np.ndarray:
    return np.zeros(0, np.int64)


def _no_vectors() -> np.ndarray:
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class StoredMap:
    """A map with what must be known to go on in it.

    `extractor` is its registered name; `features` decides whether descriptors are comparable, see `features_key`;
    `place_model` names the network of `place_vectors` (K, D) float32 of keyframes `place_ids` (K,) int64, empty for
    none. `images` are the image files of keyframes by id, where known; `meta` anything that JSON can hold; `name` is
    what messages call the map.
    """

    map: Map
    camera: Camera
    extractor: str
    features: str
    place_model: str = ""
    place_ids: np.ndarray = field(default_factory=_no_ids)
    place_vectors: np.ndarray = field(default_factory=_no_vectors)
    images: dict[int, str] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    name: str = "map"


def save_map(file: str | Path, stored: StoredMap) -> int:
    """Write a map whose mapping is at rest; returns the file's bytes. At any moment the file is the old or the new one.

    `meta` gets `vslam`, the version, and `saved`, the time (UTC).

    Raises:
        VslamError: the map is empty, or the file cannot be written.
    """
    from vslam import __version__

    file = Path(file)
    if not len(stored.map):
        raise VslamError(f"{file}: not saved, the map has no keyframe; track some frames first")
    header = {
        "meta": stored.meta | {"vslam": __version__, "saved": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
        "camera": asdict(stored.camera), "extractor": stored.extractor, "features": stored.features,
        "place_model": stored.place_model, "images": {str(keyframe): name for keyframe, name in stored.images.items()},
        "epoch": stored.map.epoch, "features_per_keyframe": stored.map.keyframes.features,
    }  # fmt: skip
    with stored.map.lock:
        arrays = map_to_arrays(stored.map)
    arrays |= {"places/id": stored.place_ids.astype(np.int64), "places/vector": stored.place_vectors.astype(np.float32)}
    return write_container(file, KIND, header, arrays)


def load_map(file: str | Path, max_keypoints: int = 0) -> StoredMap:
    """Read a map; its new keyframes will have room for at least `max_keypoints` features.

    Raises:
        VslamError: not readable, not a map, cut short, damaged, or of another version.
    """
    file = Path(file)
    header, arrays = read_container(file, KIND)
    try:
        camera = _camera(header["camera"])
        features = max(header["features_per_keyframe"], max_keypoints)
        map_ = map_from_arrays(arrays, camera, features, header["epoch"])
        return StoredMap(
            map_, camera, header["extractor"], header["features"], header["place_model"],
            arrays["places/id"], arrays["places/vector"],
            {int(keyframe): name for keyframe, name in header["images"].items()}, header["meta"], str(file),
        )  # fmt: skip
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise VslamError(f"{file}: not a map as this vslam writes it ({error!r}); save the map again") from None


def check_compatible(stored: StoredMap, camera: Camera, features: str, place_model: str = "") -> None:
    """Refuse to go on in a map of another camera, other features or, where both have one, another place network.

    Raises:
        VslamError: what differs.
    """
    other = [name for name in COMPARED if not _same(getattr(stored.camera, name), getattr(camera, name))]
    if other:
        of_map, of_run = (", ".join(f"{name} {getattr(c, name):g}" for name in other) for c in (stored.camera, camera))
        raise VslamError(
            f"{stored.name}: made with another camera ({of_map}; now {of_run}); use the map's camera, or another map"
        )
    if not all(map(_same, _five(stored.camera.distortion), _five(camera.distortion))):
        found, now = list(stored.camera.distortion), list(camera.distortion)
        raise VslamError(
            f"{stored.name}: made with another camera (distortion {found}; now {now}); use the map's camera, "
            "or another map"
        )
    if stored.features != features:
        raise VslamError(
            f"{stored.name}: its features are '{stored.features}', this run's '{features}'; use --extractor "
            f"{stored.extractor} with the map's settings, or another map"
        )
    if stored.place_model and place_model and stored.place_model != place_model:
        raise VslamError(
            f"{stored.name}: its places are described by '{stored.place_model}', this run's by '{place_model}'; "
            "use the map's place network, or another map"
        )


def features_key(config: ExtractorConfig) -> str:
    """One word that is the same where descriptors can be compared: the extractor, unusual settings, network weights.

    Raises:
        VslamError: unknown extractor or option, or weights that cannot be read.
    """
    kind = load("extractors", config.name)
    options = asdict(from_dict(kind.Config, config.options, f"extractor {config.name}"))
    unusual = {
        name: value for name, value in options.items()
        if name not in HOW_COMPUTED and value != getattr(kind.Config(), name)
    }  # fmt: skip
    words = [config.name]
    if options.get("weights"):
        words.append(_sha256(Path(options["weights"]).expanduser()))
    elif config.name in manifest():
        files = manifest()[config.name].files
        words.append(files[sorted(files)[0]]["sha256"])  # fp32 before int8: both are one network
    key = "-".join([words[0], *(word[:12] for word in words[1:])])
    return key + (json.dumps(unusual, sort_keys=True, separators=(",", ":")) if unusual else "")


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise VslamError(f"{file}: weights cannot be read: {error.strerror}; give an ONNX file") from None


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def _five(distortion: tuple[float, ...]) -> tuple[float, ...]:
    return (*distortion, *(0.0,) * (5 - len(distortion)))


def _camera(values: dict[str, Any]) -> Camera:
    return Camera(**values | {"distortion": tuple(values["distortion"])})
