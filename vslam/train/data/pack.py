"""Packed training data: one `.npz` a source, small enough to travel to another machine.

A pack holds N grey images of one size, and, for a sequence, depth and poses. Keys:

| key | type | meaning |
|---|---|---|
| `jpeg`, `jpeg_end` | uint8 (B,), int64 (N,) | JPEG files one after the other; where each ends |
| `corners`, `corner_end` | uint16 (M, 2), int64 (N,) | keypoints to learn, 1/128 px, best first, image after image |
| `depth`, `depth_end` | uint8 (D,), int64 (N,) | 16-bit PNG files; only in sequences |
| `depth_scale` | float64 () | depth units per metre |
| `poses` | float64 (N, 4, 4) | `T_world_camera` |
| `K` | float64 (3, 3) | intrinsics in pixels of the packed images |
| `source` | str () | where the images come from, and their licence |

A label file `NAME.labels.npz` holds keypoints for the N images of the pack `NAME.npz`, which take the place of its own:

| key | type | meaning |
|---|---|---|
| `corners`, `corner_end` | as above | |
| `scores` | float32 (M,) | of each keypoint, mean over the warps |
| `detector` | str () | the network that found them, and the sha256 of its weights |
| `warps`, `threshold` | int64 (), float64 () | how it was asked |
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vslam.errors import VslamError

LABELS = ".labels.npz"
"""What the names of label files end in; before it stands the name of their pack."""

CORNER_UNIT = 128.0
"""Fractions of a pixel in which corners are stored."""


@dataclass(frozen=True)
class Pack:
    """One opened pack; images are decoded when asked for."""

    name: str
    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays["jpeg_end"])

    @property
    def is_sequence(self) -> bool:
        """Whether depth and poses are there."""
        return "poses" in self.arrays

    @property
    def K(self) -> np.ndarray:
        return self.arrays["K"]

    @property
    def poses(self) -> np.ndarray:
        return self.arrays["poses"]

    def image(self, index: int) -> np.ndarray:
        """Grey image, uint8 (H, W)."""
        return cv2.imdecode(self._slice("jpeg", "jpeg_end", index), cv2.IMREAD_GRAYSCALE)

    def depth(self, index: int) -> np.ndarray:
        """Depth in metres, float32 (H, W), 0 = none."""
        coded = cv2.imdecode(self._slice("depth", "depth_end", index), cv2.IMREAD_UNCHANGED)
        return (coded / self.arrays["depth_scale"]).astype(np.float32)

    def corners(self, index: int) -> np.ndarray:
        """Keypoints to learn, float32 (M, 2) pixels, best first; none before they were computed."""
        if "corners" not in self.arrays:
            return np.zeros((0, 2), np.float32)
        return self._slice("corners", "corner_end", index).astype(np.float32) / np.float32(CORNER_UNIT)

    def _slice(self, key: str, ends: str, index: int) -> np.ndarray:
        end = self.arrays[ends]
        return self.arrays[key][end[index - 1] if index else 0 : end[index]]


def open_pack(file: Path) -> Pack:
    """Read a pack.

    Raises:
        VslamError: not a pack, or depth without poses.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise VslamError(f"{file}: not a training pack ({error}); make one with 'vslam train pack'") from None
    if "jpeg_end" not in arrays:
        raise VslamError(f"{file}: holds no images; make a pack with 'vslam train pack'")
    if "depth" in arrays and not {"poses", "K", "depth_scale"} <= set(arrays):
        raise VslamError(f"{file}: has depth but no poses; pack the sequence again from a folder with groundtruth.txt")
    return Pack(file.stem, arrays)


def open_packs(folder: Path, labels: Path | None = None) -> list[Pack]:
    """All packs of a folder, by name; with the keypoints of a folder of label files in the place of their own.

    Raises:
        VslamError: there are none, or a label file is missing or of another pack.
    """
    files = sorted(file for file in folder.glob("*.npz") if not file.name.endswith((LABELS, ".pairs.npz")))
    if not files:
        raise VslamError(f"{folder}: no training packs (*.npz); make some with 'vslam train pack-images'")
    packs = [open_pack(file) for file in files]
    return packs if labels is None else [relabelled(pack, labels / (pack.name + LABELS)) for pack in packs]


def relabelled(pack: Pack, file: Path) -> Pack:
    """The pack with the keypoints of a label file.

    Raises:
        VslamError: no such file, not one of labels, or for another number of images.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            labels = {key: stored[key] for key in ("corners", "corner_end")}
    except FileNotFoundError:
        raise VslamError(f"{file}: no labels of pack '{pack.name}'; make them with 'vslam train label'") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise VslamError(f"{file}: not a file of labels ({error}); make one with 'vslam train label'") from None
    if len(labels["corner_end"]) != len(pack):
        count = len(labels["corner_end"])
        raise VslamError(f"{file}: labels of {count} images, pack '{pack.name}' has {len(pack)}; label it again")
    return Pack(pack.name, pack.arrays | labels)


def join(chunks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Arrays one after the other, and where each ends."""
    return np.concatenate(chunks), np.cumsum([len(chunk) for chunk in chunks]).astype(np.int64)


def encode_images(images: list[np.ndarray], quality: int = 90) -> dict[str, np.ndarray]:
    """The `jpeg` and `jpeg_end` arrays of grey uint8 images."""
    coded = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].ravel() for image in images]
    jpeg, jpeg_end = join(coded)
    return {"jpeg": jpeg, "jpeg_end": jpeg_end}


def encode_depths(depths: list[np.ndarray], scale: float) -> dict[str, np.ndarray]:
    """The `depth`, `depth_end`, `depth_scale` arrays of uint16 depth images."""
    coded = [cv2.imencode(".png", depth)[1].ravel() for depth in depths]
    depth, depth_end = join(coded)
    return {"depth": depth, "depth_end": depth_end, "depth_scale": np.float64(scale)}


def encode_corners(corners: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The `corners` and `corner_end` arrays of float (M, 2) pixels."""
    fixed = [np.clip(np.round(xy * CORNER_UNIT), 0, 65535).astype(np.uint16).reshape(-1, 2) for xy in corners]
    points, ends = join(fixed)
    return {"corners": points, "corner_end": ends}


def write_pack(file: Path, arrays: dict[str, np.ndarray], source: str) -> None:
    """Write a pack under its name only when it is complete."""
    write_arrays(file, arrays | {"source": np.array(source)})


def write_arrays(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays to an `.npz` under its name only when it is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".part")
    with open(partial, "wb") as out:
        np.savez(out, **arrays)
    partial.replace(file)
