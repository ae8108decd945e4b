"""Small packs made of drawn pictures: a photo pack, and a sequence of a plane seen from moving poses."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from vslam.train.data import pack

WIDTH, HEIGHT = 320, 240
K = np.array([[260.0, 0, 159.5], [0, 260.0, 119.5], [0, 0, 1]])


def drawn_picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Overlapping grey rectangles: corners everywhere."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 120, np.uint8)
    for _ in range(120):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        w, h = rng.integers(8, 50, 2)
        cv2.rectangle(image, (x, y), (x + int(w), y + int(h)), int(rng.integers(20, 235)), -1)
    return image


def plane_sequence(count: int = 12) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Views of a picture on the wall z = 2 m, the camera moving sideways and nearer; images, depths (m), poses."""
    wall = drawn_picture(9, 640, 480)
    images, depths, poses = [], [], []
    for k in range(count):
        pose = np.eye(4)
        pose[:3, 3] = [0.03 * k, 0.01 * k, 0.02 * k]
        z = 2.0 - pose[2, 3]
        shift = np.array([[K[0, 0], 0, K[0, 2]], [0, K[1, 1], K[1, 2]], [0, 0, 1]])
        wall_to_metres = np.array([[2 / 260, 0, -2.4], [0, 2 / 260, -1.8], [0, 0, 1.0]])
        to_camera = np.array([[1, 0, -pose[0, 3]], [0, 1, -pose[1, 3]], [0, 0, z]])
        images.append(cv2.warpPerspective(wall, shift @ to_camera @ wall_to_metres, (WIDTH, HEIGHT)))
        depths.append(np.full((HEIGHT, WIDTH), z, np.float32))
        poses.append(pose)
    return images, depths, np.array(poses)


@pytest.fixture(scope="session")
def packs(tmp_path_factory) -> Path:
    """A folder with one pack of pictures and one of a sequence."""
    folder = tmp_path_factory.mktemp("packs")
    pictures = [drawn_picture(seed) for seed in range(6)]
    corners = [cv2.goodFeaturesToTrack(image, 200, 0.01, 5).reshape(-1, 2) for image in pictures]
    pack.write_pack(folder / "photos.npz", pack.encode_images(pictures) | pack.encode_corners(corners), "drawn")
    images, depths, poses = plane_sequence()
    corners = [cv2.goodFeaturesToTrack(image, 200, 0.01, 5).reshape(-1, 2) for image in images]
    arrays = pack.encode_images(images, 98) | pack.encode_corners(corners) | {"poses": poses, "K": K}
    arrays |= pack.encode_depths([np.round(depth * 5000).astype(np.uint16) for depth in depths], 5000.0)
    pack.write_pack(folder / "sequence.npz", arrays, "drawn")
    return folder
