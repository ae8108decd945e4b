"""Builds packs from folders of photos and from RGB-D sequences in TUM layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import yaml

from vslam.errors import VslamError
from vslam.train.data import corners, pack

SIZE = (320, 240)
"""Width and height of packed images: the input size the networks are made for."""

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def pack_images(folder: Path, file: Path, source: str, crops: int = 2, step: int = 1, seed: int = 0) -> int:
    """Pack every `step`-th image below `folder`: once scaled down, and `crops` times cut out at full resolution.

    Returns the number of packed images. Raises VslamError when the folder holds none that can be read.
    """
    return pack_files(find_images(folder)[::step], file, source, crops, seed, folder)


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)


def pack_files(
    files: list[Path], file: Path, source: str, crops: int = 2, seed: int = 0, folder: Path | None = None
) -> int:
    """As `pack_images`, of these files."""
    rng = np.random.default_rng(seed)
    images: list[np.ndarray] = []
    for path in files:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if image is not None:
            images.extend(views_of_photo(image, crops, rng))
    if not images:
        raise VslamError(f"{folder or file}: no readable images (jpg, png, bmp, webp)")
    found_corners = [corners.photo_corners(image, rng) for image in images]
    pack.write_pack(file, pack.encode_images(images) | pack.encode_corners(found_corners), source)
    return len(images)


def views_of_photo(image: np.ndarray, crops: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The photo scaled to cover 320x240 and cut to it, and random cuts where it is much larger."""
    width, height = SIZE
    scale = max(width / image.shape[1], height / image.shape[0])
    shape = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    whole = cv2.resize(image, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    views = [_cut(whole, rng)]
    if image.shape[1] >= 1.5 * width and image.shape[0] >= 1.5 * height:
        views += [_cut(image, rng) for _ in range(crops)]
    return views


def _cut(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x = rng.integers(0, image.shape[1] - SIZE[0] + 1)
    y = rng.integers(0, image.shape[0] - SIZE[1] + 1)
    return np.ascontiguousarray(image[y : y + SIZE[1], x : x + SIZE[0]])


def pack_sequence(folder: Path, file: Path, source: str, step: int = 1, seed: int = 0) -> int:
    """Pack every `step`-th frame of an RGB-D sequence in TUM layout with `camera.yaml` and exact poses.

    Frames are scaled to 320x240 (depth by the nearest pixel, which invents no depth at edges). Returns the number of
    frames. Raises VslamError when images, depth, poses or intrinsics are missing.
    """
    matrix, depth_scale = read_camera(folder)
    rows = associated_rows(folder)[::step]
    images, depths, poses = [], [], []
    for image_file, depth_file, pose in rows:
        image = cv2.imread(str(image_file), cv2.IMREAD_GRAYSCALE)
        depth = cv2.imread(str(depth_file), cv2.IMREAD_UNCHANGED)
        if image is None or depth is None or depth.dtype != np.uint16:
            raise VslamError(f"{image_file}: image or its 16-bit depth cannot be read; training pairs need both")
        images.append(cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA))
        depths.append(cv2.resize(depth, SIZE, interpolation=cv2.INTER_NEAREST))
        poses.append(pose)
    arrays = pack.encode_images(images) | pack.encode_depths(depths, depth_scale)
    arrays |= {"poses": np.array(poses), "K": _scale_matrix(matrix, image.shape)}
    metres = [depth.astype(np.float32) / np.float32(depth_scale) for depth in depths]
    found = corners.sequence_corners(images, metres, arrays["poses"], arrays["K"], np.random.default_rng(seed))
    arrays |= pack.encode_corners(found)
    pack.write_pack(file, arrays, source)
    return len(images)


def _scale_matrix(matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Intrinsics of the image scaled to SIZE; pixel centres at whole numbers, hence the half pixels."""
    sx, sy = SIZE[0] / shape[1], SIZE[1] / shape[0]
    scaled = np.diag([sx, sy, 1.0]) @ matrix
    scaled[0, 2] += sx / 2 - 0.5
    scaled[1, 2] += sy / 2 - 0.5
    return scaled


def read_camera(folder: Path) -> tuple[np.ndarray, float]:
    """Intrinsics (3, 3) and depth units per metre of `camera.yaml`."""
    try:
        camera = yaml.safe_load((folder / "camera.yaml").read_text())
        matrix = np.array([[camera["fx"], 0, camera["cx"]], [0, camera["fy"], camera["cy"]], [0, 0, 1]], float)
        return matrix, float(camera["depth_scale"])
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise VslamError(f"{folder}/camera.yaml: needs fx, fy, cx, cy, depth_scale ({error})") from None


def read_rows(file: Path) -> list[list[str]]:
    """Words of each line that is no comment."""
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        missing = f"{error.strerror}; training pairs need colour, depth and poses"
        raise VslamError(f"{file}: {missing}") from None
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]


def associated_rows(folder: Path, tolerance: float = 0.02) -> list[tuple[Path, Path, np.ndarray]]:
    """(image, depth, T_world_camera) of frames whose depth and pose are nearer than `tolerance` s."""
    colour, depth, truth = (read_rows(folder / name) for name in ("rgb.txt", "depth.txt", "groundtruth.txt"))
    depth_times, truth_times = (np.array([float(row[0]) for row in rows]) for rows in (depth, truth))
    found = []
    for row in colour:
        time = float(row[0])
        d, g = np.abs(depth_times - time).argmin(), np.abs(truth_times - time).argmin()
        if max(abs(depth_times[d] - time), abs(truth_times[g] - time)) <= tolerance:
            found.append((folder / row[1], folder / depth[d][1], pose_matrix([float(v) for v in truth[g][1:8]])))
    if len(found) < 2:
        raise VslamError(f"{folder}: fewer than two frames with depth and pose")
    return found


def pose_matrix(values: list[float]) -> np.ndarray:
    """`tx ty tz qx qy qz qw` to a 4x4 matrix."""
    x, y, z, w = np.array(values[3:]) / np.linalg.norm(values[3:])
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = values[:3]
    return matrix
