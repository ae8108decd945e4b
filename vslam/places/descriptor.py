"""Whole images as one vector each, from networks of our own: NetVLAD, GeM and CosPlace.

An image is resized in proportion, up or down, until it touches the box that the network was trained with; each side is
then rounded to a whole multiple of the network's stride. So the shape changes by at most half a stride a side, and
nothing that the camera did not see (a padded edge) enters the vector. Small pictures grow, for a network knows things
by their size in its input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from vslam.config import PlaceConfig, from_dict
from vslam.errors import VslamError
from vslam.inference.models import find_model
from vslam.inference.session import Session, open_session
from vslam.registry import load

STRIDE = 16
"""Inputs are whole multiples of this many pixels."""
BATCH = 8
"""Images of one size that run together. The rest run one by one: a new size of batch is a new network to compile."""
BOX = (320, 240)
"""Width and height of the input of networks that do not say theirs."""


@dataclass(frozen=True)
class Config:
    """Settings of the place networks (`place.options`)."""

    backend: Literal["auto", "onnx", "openvino", "torch"] = "auto"
    precision: Literal["auto", "fp32", "int8"] = "auto"
    weights: str = ""  # an ONNX file of your own; empty: the shipped network
    image_size: tuple[int, ...] = ()  # width, height of the box images are resized into; empty: as trained
    scales: tuple[float, ...] = (1.0,)  # of that box; the vectors of several are averaged


class GlobalDescriptor:
    """What the networks share: images in, unit vectors out. Threads may share one.

    Attributes:
        dim: length of a vector.
        model: network, its file's sha256 and unusual settings; vectors compare only within one model.
    """

    network = ""
    Config = Config
    dim: int
    model: str

    def __init__(self, options: Config = Config()):
        self._session, box = self._open(options)
        self._boxes = [(round(box[0] * scale), round(box[1] * scale)) for scale in options.scales]
        self.dim = self._first_run()

    def describe(self, image: np.ndarray) -> np.ndarray:
        """The vector (dim,) float32 of unit length of a grey uint8 image (H, W)."""
        return self.describe_many([image])[0]

    def describe_many(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors (N, dim) float32 of unit length of grey uint8 images (H, W); equal sizes run together."""
        total = np.zeros((len(images), self.dim), np.float32)
        for box in self._boxes:
            inputs = [fit(image, box) for image in images]
            for rows in batches([each.shape for each in inputs]):
                total[rows] += self._run([inputs[row] for row in rows])
        return unit(total)

    def _run(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Unit vectors (N, dim) of equally sized inputs."""
        tensor = np.multiply(np.stack(inputs)[:, None], np.float32(1 / 255), dtype=np.float32)
        vectors = np.array(self._session.run(tensor)["place"], np.float32)  # a copy: the session reuses its memory
        for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):
            if np.ptp(inputs[row]) > 0:
                raise VslamError(
                    f"{self.model}: gives numbers that are not finite; check it with 'vslam models verify'"
                )
            vectors[row] = 0.0  # nothing to see: some networks divide by the length of nothing
        return unit(vectors)

    def _open(self, options: Config) -> tuple[Session, tuple[int, ...]]:
        """The network, and the box (width, height) of its input; names the model."""
        if not options.scales or min(options.scales) <= 0:
            raise VslamError(f"place {self.network}: scales {list(options.scales)}: expected numbers above 0")
        if options.image_size and (len(options.image_size) != 2 or min(options.image_size) < STRIDE):
            found = list(options.image_size)
            raise VslamError(f"place {self.network}: image_size {found}: expected width, height of at least {STRIDE}")
        box: tuple[int, ...] = BOX
        if options.weights:
            file = Path(options.weights).expanduser()
        else:
            shipped = find_model(self.network)
            file, box = shipped.file(options.precision), tuple(shipped.metrics.get("image_size", BOX))
        session = open_session(file, options.backend)
        if "place" not in session.outputs:
            found = ", ".join(session.outputs)
            raise VslamError(f"{file}: gives {found}, not 'place'; convert it with 'vslam models convert'")
        self.model = f"{self.network}-{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
        if options.image_size and options.image_size != box:
            self.model += "-{}x{}".format(*options.image_size)
        if options.scales != (1.0,):
            self.model += "-scales-" + ",".join(f"{scale:g}" for scale in options.scales)
        return session, options.image_size or box

    def _first_run(self) -> int:
        """The length of a vector, by trying; also compiles the network for its usual size."""
        size = [side + -side % STRIDE for side in self._boxes[0][::-1]]
        found = np.shape(self._session.run(np.zeros((1, 1, *size), np.float32))["place"])
        if len(found) != 2 or found[0] != 1 or not found[1]:
            raise VslamError(f"{self.model}: 'place' has shape {found}, need (1, D); export the network again")
        return int(found[1])


class NetVlad(GlobalDescriptor):
    """Residuals of local features to learned centres (Arandjelovic et al., CVPR 2016)."""

    network = "netvlad"


class Gem(GlobalDescriptor):
    """Generalised mean of local features (Radenovic et al., PAMI 2018)."""

    network = "gem"


class CosPlace(GlobalDescriptor):
    """GeM trained by classifying places (Berton et al., CVPR 2022)."""

    network = "cosplace"


def make_place(config: PlaceConfig) -> Any:
    """The place network that a configuration names, or None for `none`.

    Raises:
        VslamError: unknown network or option.
    """
    if config.name == "none":
        return None
    kind = load("places", config.name)
    return kind(from_dict(kind.Config, config.options, f"place {config.name}"))


def fit(image: np.ndarray, box: tuple[int, ...]) -> np.ndarray:
    """The image (H, W) as large as fits into `box` (width, height), each side a multiple of the stride."""
    factor = min(box[0] / image.shape[1], box[1] / image.shape[0])
    width, height = (max(STRIDE, round(side * factor / STRIDE) * STRIDE) for side in image.shape[::-1])
    if (height, width) == image.shape:
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def batches(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Rows that run together: `BATCH` of one shape, or a single one."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for row, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(row)
    groups: list[list[int]] = []
    for rows in by_shape.values():
        whole = len(rows) - len(rows) % BATCH
        groups += [rows[first : first + BATCH] for first in range(0, whole, BATCH)]
        groups += [[row] for row in rows[whole:]]
    return groups


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows (N, D) of unit length; one without a direction points to all sides alike."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    even = np.float32(1 / np.sqrt(vectors.shape[1]))
    return np.where(lengths > 1e-12, vectors / np.maximum(lengths, 1e-12), even).astype(np.float32)
