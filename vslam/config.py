"""All settings: one tree of frozen dataclasses, read from YAML; an unknown key is refused."""

from __future__ import annotations

import dataclasses
import re
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from vslam.errors import VslamError

T = TypeVar("T")

TRAINING = "train-"  # names of shipped files with settings of a training run, not of SLAM, begin so
WITHOUT_DOT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")  # 1e-3: a number to people, a word to YAML 1.1


@dataclass(frozen=True)
class ExtractorConfig:
    """Which features, and how many."""

    name: str = "orb"
    max_keypoints: int = 1000  # as many as the C++ systems use at 640x480
    options: dict[str, Any] = field(default_factory=dict)  # the extractor's own settings, see its Config


@dataclass(frozen=True)
class DepthConfig:
    """What to believe of a depth image: sigma = noise_m + noise_per_m2 * (z - noise_near_m)^2 metres."""

    max_m: float = 8.0  # structured light knows little beyond
    max_step: float = 0.05  # relative range within 3x3 pixels; more is an edge, whose depth belongs to either side
    noise_m: float = 0.0012  # structured light (Nguyen et al., 3DIMPVT 2012)
    noise_per_m2: float = 0.0019
    noise_near_m: float = 0.4
    floor_px: float = 0.3  # disparity: calibration and registration of depth to colour, not in the noise model


@dataclass(frozen=True)
class TrackingConfig:
    """From frame to pose."""

    min_keypoints: int = 30  # fewer cannot carry a pose
    min_matches: int = 15  # to the previous frame
    min_inliers: int = 20  # of the map, after the last refinement
    search_px: float = 12.0  # at 640 pixels width, around the predicted place in the next frame
    enough_share: float = 0.4  # of the inliers after the last keyframe; with fewer the motion was not as predicted
    map_search_px: float = 4.0  # around the projection of a map point, plus map_search_sigmas of the keypoint
    map_search_sigmas: float = 6.0
    scale_factor: float = 1.5  # ratio of predicted and found keypoint scale
    max_turn_deg: float = 30.0  # between predicted and found keypoint orientation
    map_ratio: float = 0.9  # best to second best descriptor distance in the map search
    surface_below: int = 100  # with fewer inliers the shape of the scene helps to find the pose
    surface_weight: float = 0.02  # of one grid cell against one keypoint: neighbouring cells err alike
    surface_reach_m: float = 0.2  # how far apart two cells may be at first and still be taken for the same
    surface_min_share: float = 0.5  # of the cells that must fit, for a pose from depth alone
    surface_max_rms_m: float = 0.05
    keyframe_move_m: float = 0.25  # where there is little to see, a keyframe is due after this much motion
    keyframe_turn_deg: float = 12.0
    keyframe_ratio: float = 0.75  # a keyframe is due when this part of the most inliers since the last one is left
    keyframe_min_held: int = 100  # or when fewer points with depth than this are held by the map ...
    keyframe_min_new: int = 70  # ... while more than this are not in it yet
    keyframe_min_gap: int = 1  # frames between keyframes
    keyframe_max_gap: int = 30


@dataclass(frozen=True)
class MappingConfig:
    """From keyframes to a map."""

    optimizer: Literal["numba", "g2o"] = "numba"
    window: int = 10  # keyframes that local bundle adjustment moves
    fixed_window: int = 20  # keyframes around them that hold their place
    local_keyframes: int = 20  # whose points the tracker looks for
    fuse_keyframes: int = 10  # whose points are looked for in a new keyframe, and the reverse
    redundant_share: float = 0.9  # a keyframe goes when this part of its points is seen by three others
    max_waiting: int = 2  # keyframes; tracking waits when mapping is further behind


@dataclass(frozen=True)
class RecognitionConfig:
    """When a place is taken for one seen before: by a loop, or by a lost camera."""

    min_matches: int = 12  # by appearance, for a first pose
    search_px: float = 10.0  # around the projection of a map point through that pose, at 640 pixels width
    min_inliers: int = 40  # points of the map found, after the last refinement
    min_share: float = 0.05  # of the points that should be in view
    candidates: int = 5  # places compared with a frame when lost
    keyframes: int = 5  # around the one that is like it, whose points are looked for


@dataclass(frozen=True)
class LoopConfig:
    """Closing loops: places seen again after a while."""

    close: bool = True
    candidates: int = 2  # places compared with each keyframe
    min_score: float = 0.6  # likeness (cosine) of places worth comparing; the same place has 0.75 to 1
    sequence: int = 0  # so many keyframes are likened together, as a stretch of an older way; 0 or 1: each alone
    min_gap_s: float = 10.0  # a place seen less than this ago is no revisit
    drift_m: float = 0.2  # the error of the way since a place was seen is at most this and drift_deg ...
    drift_deg: float = 5.0
    drift_share: float = 0.03  # ... and this part of its length and turns; more is another place that looks alike
    scale: Literal["fixed", "free"] = "fixed"  # free: the depth camera's metre may have drifted too, ...
    drift_scale: float = 0.15  # ... by at most this part
    least_m: float = 0.03  # a smaller error of the way than this and least_deg is left to tracking and local adjustment
    least_deg: float = 1.0
    least_scale: float = 0.005
    witnesses: int = 2  # of the last keyframes that must see the same loop
    memory: int = 4  # keyframes after which a witness is forgotten
    agree_m: float = 0.1  # between the corrections that two witnesses call for,
    agree_deg: float = 3.0
    agree_scale: float = 0.02
    global_iterations: int = 40  # of bundle adjustment of the whole map after a loop


@dataclass(frozen=True)
class PlaceConfig:
    """Which network describes a whole image, for loop closing and relocalisation; `none` for neither."""

    name: str = "gem"
    options: dict[str, Any] = field(default_factory=dict)  # the network's own settings, see its Config


@dataclass(frozen=True)
class Config:
    """Everything a run depends on besides its data."""

    extractor: ExtractorConfig = ExtractorConfig()
    depth: DepthConfig = DepthConfig()
    tracking: TrackingConfig = TrackingConfig()
    mapping: MappingConfig = MappingConfig()
    place: PlaceConfig = PlaceConfig()
    recognition: RecognitionConfig = RecognitionConfig()
    loop: LoopConfig = LoopConfig()


def from_dict(kind: type[T], values: dict[str, Any], where: str) -> T:
    """A dataclass `kind` from nested dictionaries; `where` names the source in error messages.

    Raises:
        VslamError: unknown key, or a value of the wrong type.
    """
    return _build(kind, values, where, "")


def to_dict(config: Any) -> dict[str, Any]:
    """The plain nested dictionaries of a configuration, ready for YAML."""
    return dataclasses.asdict(config)


def load_config(path: str | Path | None = None, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """The defaults, changed by a YAML file (a path, or the name of one in `configs/`), then by `key.sub=value` words.

    Raises:
        VslamError: no such file, not YAML, unknown key, wrong type.
    """
    import yaml

    values: dict[str, Any] = {}
    where = "--set"
    if path is not None:
        where, values = read_values(path)
        from_dict(Config, values, where)  # so that a mistake of the file is blamed on the file
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise VslamError(f"--set {word}: expected key=value, for example extractor.max_keypoints=500")
        *parents, last = key.split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise VslamError(f"--set {word}: '{parent}' is a value, not a group of settings")
        where = f"--set {word}"
        try:
            node[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise VslamError(f"{where}: not a YAML value: {str(error).splitlines()[0]}") from None
        from_dict(Config, values, where)
    return from_dict(Config, values, where)


def read_values(path: str | Path, training: bool = False) -> tuple[str, dict[str, Any]]:
    """A configuration file's name and what it says; `path` and `training` as `find_config` takes them.

    Raises:
        VslamError: no such file, not YAML, no 'key: value' lines.
    """
    import yaml

    file = find_config(path, training)
    try:
        values = yaml.safe_load(file.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise VslamError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise VslamError(f"{file}: expected 'key: value' lines, found a {type(values).__name__}")
    return str(file), values


def find_config(path: str | Path, training: bool = False) -> Path:
    """A configuration file: the path itself, or a recipe shipped with the package by its name.

    Raises:
        VslamError: neither; names the shipped ones, those of `training` runs or of SLAM.
    """
    file = Path(path)
    if file.is_file():
        return file
    for shipped in shipped_folders("configs"):
        named = shipped / f"{path}.yaml"
        if named.is_file():
            return named
    shipped = {found.stem for folder in shipped_folders("configs") for found in folder.glob("*.yaml")}
    known = sorted(name for name in shipped if name.startswith(TRAINING) == training)
    raise VslamError(f"{path}: no such configuration file; shipped ones: {', '.join(known) or 'none'}")


def shipped_folders(name: str) -> list[Path]:
    """Where `configs` or `weights` may be: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return [folder for folder in (package / f"_{name}", package.parent / name) if folder.is_dir()]


def _build(kind: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise VslamError(f"{where}: '{key}' is a group of settings, not '{value}'")
        hints = get_type_hints(kind)
        for name in value:
            if name not in hints:
                known = ", ".join(hints)
                raise VslamError(f"{where}: unknown key '{f'{key}.{name}'.lstrip('.')}'; known: {known}")
        return kind(**{name: _build(hints[name], v, where, f"{key}.{name}".lstrip(".")) for name, v in value.items()})
    origin = get_origin(kind)
    if origin is Literal:
        if value not in get_args(kind):
            raise VslamError(f"{where}: {key} is '{value}'; expected one of {', '.join(map(str, get_args(kind)))}")
        return value
    if origin is types.UnionType:
        if value is None and type(None) in get_args(kind):
            return None
        return _build(next(k for k in get_args(kind) if k is not type(None)), value, where, key)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise VslamError(f"{where}: {key} is '{value}'; expected a list")
        return tuple(_build(get_args(kind)[0], item, where, key) for item in value)
    if origin is dict:
        kind = dict
    if value is None:
        raise VslamError(f"{where}: {key} has no value; expected {kind.__name__}")
    if kind in (int, float) and isinstance(value, str) and WITHOUT_DOT.fullmatch(value):
        value = float(value)
        value = int(value) if value.is_integer() else value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise VslamError(f"{where}: {key} is '{value}'; expected {kind.__name__}")
    return value
