"""The steps of `vslam export`: float ONNX, then int8, then OpenVINO, each checked."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from vslam.errors import VslamError
from vslam.features.learned import as_input, shrink
from vslam.inference.models import find_model
from vslam.inference.session import open_session
from vslam.train.data.build import EXTENSIONS
from vslam.train.places.evaluate import by_session
from vslam.train.places.networks import NETWORKS as PLACES
from vslam.train.places.release import export_place, load_place_network
from vslam.train.places.sequence import export_sequence
from vslam.train.release import BINARY, HALF_TOLERANCE, export_half, load_network, matching

CALIBRATION_IMAGES = 120


def export(
    name: str, checkpoint: Path | None, out: Path, form: str, precision: str, images: Path | None
) -> Iterator[str]:
    """Write a network to `out`; yields lines that say what was written and what it costs.

    Raises:
        VslamError: wrong checkpoint, no calibration images, or the written file disagrees.
    """
    if name == "sequence":
        if checkpoint is None or (form, precision) != ("onnx", "fp16"):
            raise VslamError("sequence is exported from a --checkpoint, with --format onnx and --precision fp16 only")
        export_sequence(checkpoint, out)
        yield f"{out}: {out.stat().st_size / 1e6:.2f} MB, {form}, {precision}"
        return
    pictures = read_images(images) if precision == "int8" else []
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / f"{name}.onnx"
        if checkpoint is None:
            shutil.copyfile(find_model(name).file("fp32"), network)
        elif name in PLACES:
            export_place(load_place_network(checkpoint, name)[0], network)
        else:
            export_half(load_network(checkpoint, name)[0], name, network)
        if precision == "int8":
            network, line = to_int8(name, network, pictures)
            yield line
        if form == "openvino":
            to_openvino(network, out)
        else:
            shutil.copyfile(network, out)
    yield f"{out}: {out.stat().st_size / 1e6:.2f} MB, {form}, {precision}"


def to_int8(name: str, network: Path, images: list[np.ndarray]) -> tuple[Path, str]:
    """An int8 copy beside a float file, and a line that compares what they give."""
    from vslam.train.quantize import quantize

    target = network.with_name(f"{name}-int8.onnx")
    calibration, test = images[::2], images[1::2] or images
    quantize(network, target, calibration)
    if name in PLACES:
        exact, coarse = (by_session(open_session(file, "onnx"))(test[:40]) for file in (network, target))
        return target, f"cosine between descriptors of float and int8: {(exact * coarse).sum(axis=1).mean():.4f}"
    before, after = (matching(open_session(file, "onnx"), test[:40], BINARY[name]) for file in (network, target))
    line = (
        f"matching of warped images, float and int8: right matches {before.right:.1f} and {after.right:.1f}, "
        f"precision {before.precision:.3f} and {after.precision:.3f}"
    )
    return target, line


def to_openvino(network: Path, out: Path) -> None:
    """Convert ONNX to OpenVINO's files (.xml, .bin) and compare their maps.

    Raises:
        VslamError: OpenVINO is missing, or the maps differ.
    """
    from vslam.inference.session import choose_backend

    choose_backend("openvino")
    import openvino

    openvino.save_model(openvino.convert_model(str(network)), str(out), compress_to_fp16=True)
    image = as_input(np.random.default_rng(0).integers(0, 255, (240, 320)).astype(np.uint8))
    expected, found = (open_session(file, "openvino").run(image) for file in (network, out))
    for key, exact in expected.items():
        truth = exact.astype(np.float32)  # int8 descriptors would wrap around
        error = float(np.abs(found[key] - truth).max() / max(1.0, np.abs(truth).max()))
        if error > HALF_TOLERANCE:
            raise VslamError(
                f"{out}: map '{key}' is off by {error:.1e} (allowed {HALF_TOLERANCE}); the export is wrong"
            )


def read_images(folder: Path | None) -> list[np.ndarray]:
    """Up to 120 grey images of a folder, evenly chosen, shrunk to 320x240.

    Raises:
        VslamError: no folder given, or nothing readable in it.
    """
    if folder is None:
        raise VslamError(
            "int8 needs pictures to calibrate on: --images FOLDER (100 or more of what the camera will see)"
        )
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    files = files[:: max(1, len(files) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES]
    found = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]
    images = [shrink(image, (320, 240)) for image in found if image is not None]
    if not images:
        raise VslamError(f"{folder}: no readable images (jpg, png, bmp, webp)")
    return images
