"""Camera files, and which camera a folder was recorded with."""

from __future__ import annotations

import math
import os
import re
from dataclasses import asdict, replace
from pathlib import Path

from vslam.config import from_dict
from vslam.errors import VslamError
from vslam.types import Camera, Pinhole

REQUIRED = ("fx", "fy", "cx", "cy", "width", "height", "fps", "depth_scale")
EXAMPLE = "{fx: 525.0, fy: 525.0, cx: 319.5, cy: 239.5, width: 640, height: 480, fps: 30, depth_scale: 5000}"

KINECT_READOUT_S = 480 * 54.2e-6
"""Of the first Kinect's colour camera at 640x480: a row takes 54.2 microseconds (its exposure against its shutter width
in rows, measured in OpenKinect/libfreenect, pull request 670)."""
# "Calibration of the color camera", file formats page of the TUM RGB-D benchmark (Sturm et al., IROS 2012).
TUM_CAMERAS = {
    "1": Camera(
        517.3,
        516.5,
        318.6,
        255.3,
        640,
        480,
        distortion=(0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
        readout=KINECT_READOUT_S,
    ),
    "2": Camera(
        520.9,
        521.0,
        325.1,
        249.7,
        640,
        480,
        distortion=(0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
        readout=KINECT_READOUT_S,
    ),
    "3": Camera(535.4, 539.2, 320.1, 247.6, 640, 480),
}
_TUM_NAME = re.compile(r"(?<![a-z0-9])(?:freiburg|fr)([123])(?![a-z0-9])", re.IGNORECASE)


def read_camera(path: str | Path, readout: float = 0.0) -> Camera:
    """A camera from YAML: `fx fy cx cy width height fps depth_scale`, optional `baseline` (m), `distortion`, `readout`
    (s; where the file does not say, the `readout` given).

    Raises:
        VslamError: no such file, not YAML, a key unknown or missing, a value that no camera has.
    """
    path = Path(path)
    values = read_yaml(path)
    if values.pop("model", "pinhole") != "pinhole":
        raise VslamError(f"{path}: model must be pinhole (distortion: [k1, k2, p1, p2, k3] is part of it)")
    values.pop("depth_max", None)  # written by simulators: their depth images hold nothing beyond it
    values.pop("depth_camera", None)  # see registration.py
    missing = [key for key in REQUIRED if key not in values]
    unknown = [key for key in values if key not in Camera.__dataclass_fields__]
    if missing and not unknown:
        raise VslamError(f"{path}: missing {', '.join(missing)}; a complete file is, for example, {EXAMPLE}")
    if not unknown and not values.get("distortion", ()):
        values["distortion"] = []
    camera = from_dict(Camera, {"readout": readout} | values, str(path))
    check_camera(camera, str(path))
    return camera


def read_yaml(path: Path) -> dict:
    """The keys and values of a camera file.

    Raises:
        VslamError: no such file, or not of that form.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise VslamError(f"{path}: cannot be read as a camera file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise VslamError(f"{path}: not YAML: {str(error).splitlines()[0]}; expected lines such as {EXAMPLE}") from None
    if not isinstance(values, dict):
        raise VslamError(f"{path}: no 'key: value' lines; a complete file is, for example, {EXAMPLE}")
    return {str(key): value for key, value in values.items()}


def check_camera(camera: Camera, where: str) -> None:
    """Refuse what no camera can be; `where` names the source.

    Raises:
        VslamError: a value that is not finite or not positive, a principal point outside the image.
    """
    check_pinhole(camera, where)
    for name in ("fps", "depth_scale", "baseline"):
        check_positive(camera, name, where)
    if not 0 <= camera.readout <= 1 / camera.fps:  # also refuses NaN
        raise VslamError(
            f"{where}: readout is {camera.readout}; it must be seconds from 0 (global shutter) to "
            f"{1 / camera.fps:.4f}, the time of a frame"
        )
    if len(camera.distortion) not in (0, 4, 5) or not all(map(math.isfinite, camera.distortion)):
        raise VslamError(
            f"{where}: distortion is {list(camera.distortion)}; expected five numbers [k1, k2, p1, p2, k3] or none"
        )


def check_pinhole(camera: Pinhole, where: str) -> None:
    """Refuse intrinsics that no pinhole camera, of colour or of depth, can have; `where` names the source.

    Raises:
        VslamError: a focal length or size that is not positive, a principal point outside the image.
    """
    for name in ("fx", "fy", "width", "height"):
        cure = "; for ICL-NUIM write 480.0, its poses are turned to match" if name == "fy" else ""
        check_positive(camera, name, where, cure)
    for name, size in (("cx", camera.width), ("cy", camera.height)):
        value = getattr(camera, name)
        if not 0 <= value <= size - 1:  # also refuses NaN
            side = "width" if name == "cx" else "height"
            raise VslamError(
                f"{where}: {name} is {value}, outside the image of {side} {size}; give intrinsics for this image size"
            )


def check_positive(camera: Pinhole, name: str, where: str, cure: str = "") -> None:
    """VslamError for a value that is not a positive, finite number."""
    value = getattr(camera, name)
    if not (math.isfinite(value) and value > 0):
        raise VslamError(f"{where}: {name} is {value}; it must be a positive number{cure}")


def write_camera(path: str | Path, camera: Camera) -> None:
    """Write what `read_camera` reads, under a temporary name first."""
    values = asdict(camera) | {"distortion": [float(value) for value in camera.distortion]}
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
    unfinished.replace(path)


def camera_file_of(folder: Path, camera_file: str | Path | None = None) -> Path | None:
    """The camera file given, else `camera.yaml` in the folder if there is one."""
    if camera_file is not None:
        return Path(camera_file)
    return folder / "camera.yaml" if (folder / "camera.yaml").exists() else None


def find_camera(folder: Path, camera_file: str | Path | None = None, default: Camera | None = None) -> Camera:
    """The camera of a sequence: the file given, else `camera.yaml` in the folder, else what the folder's name says
    (`freiburg1` or `fr1` as a whole word, and so on), else `default`. The latter two also tell the readout of the
    shutter, where a file does not.

    Raises:
        VslamError: none of these, or a file that is wrong.
    """
    name = _TUM_NAME.search(folder.resolve().name)
    usual = replace(TUM_CAMERAS[name[1]]) if name else default
    readout = 0.0 if usual is None else usual.readout
    file = camera_file_of(folder, camera_file)
    if file is not None:
        return read_camera(file, readout)
    if usual is not None:
        return usual
    raise VslamError(
        f"{folder}: which camera? No camera.yaml here, and the folder's name holds no freiburg1, fr2 or the like; "
        f"write this line with your camera's figures into camera.yaml: {EXAMPLE}"
    )
