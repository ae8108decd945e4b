"""A map as COLMAP's text files, which tools for 3D Gaussian splatting and dense reconstruction read.

The format: https://colmap.github.io/format.html#text-format. What differs from ours: the centre of the top-left pixel
is (0.5, 0.5), quaternions begin with w, ids begin with 1.

The map's keypoints are undistorted, the images that people have are not. So the files describe the images as they are:
the camera with its distortion, and keypoints where they were seen. `undistorted` describes images without distortion,
as `write_images` makes them: a pinhole, which is all that some tools read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vslam.datasets import Dataset
from vslam.datasets.trajectory import write_atomically
from vslam.errors import VslamError
from vslam.mapping.archive import StoredMap
from vslam.mapping.map import Map
from vslam.types import Camera

CENTRE = 0.5  # of the top-left pixel
CAMERA_ID = 1
HEADS = {
    "cameras.txt": "# Camera list with one line of data per camera:\n#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n",
    "images.txt": "# Image list with two lines of data per image:\n"
    "#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n#   POINTS2D[] as (X, Y, POINT3D_ID)\n",
    "points3D.txt": "# 3D point list with one line of data per point:\n"
    "#   POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)\n",
}


class Observations(NamedTuple):
    """Who sees what: keyframe ids (M,), features (M,), point rows (M,), and reprojection errors (M,) pixels."""

    keyframe: np.ndarray
    feature: np.ndarray
    row: np.ndarray
    error: np.ndarray


def write_colmap(folder: str | Path, stored: StoredMap, undistorted: bool = False) -> None:
    """Write `cameras.txt`, `images.txt` and `points3D.txt`; image ids are keyframe ids + 1, point ids rows + 1.

    Raises:
        VslamError: the folder cannot be made or written.
    """
    folder = made_folder(folder)
    camera = replace(stored.camera, distortion=()) if undistorted else stored.camera
    names = image_names(stored, ".png" if undistorted else "")
    seen = observations(stored.map, camera)
    texts = {
        "cameras.txt": _camera_line(camera),
        "images.txt": "".join(_image_lines(stored, names, is_distorted(camera))),
        "points3D.txt": "".join(_point_lines(stored.map, seen)),
    }
    for name, text in texts.items():
        write_atomically(folder / name, HEADS[name] + text)


def write_images(folder: str | Path, stored: StoredMap, dataset: Dataset) -> int:
    """Write the keyframes' images without distortion, as PNG, to go with `undistorted` text; returns how many.

    Raises:
        VslamError: the folder cannot be written, or the sequence is another one or has an image that cannot be read.
    """
    folder = made_folder(folder)
    index_of = {float(timestamp): k for k, timestamp in enumerate(dataset.timestamps)}
    names = image_names(stored, ".png")
    missing = [id for id in names if stored.map.timestamp_of[id] not in index_of]
    if missing:
        raise VslamError(
            f"{stored.name}: {len(missing)} of {len(names)} keyframes are not of sequence {dataset.name}; "
            "give the --dataset and --path that the map was made from"
        )
    for id, name in names.items():
        image = dataset.load(index_of[stored.map.timestamp_of[id]]).image
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, _undistorted_png(image, stored.camera))
    return len(names)


def keyframe_images(map_: Map, dataset: Any, first: int = 0) -> dict[int, str]:
    """Image files of keyframes by id, relative to the folder that holds all images; empty where there are no files.

    Only keyframes from id `first` on are looked for in `dataset`: those before it are of another recording.
    """
    files = getattr(dataset, "images", None)
    if not files:
        return {}
    root = os.path.commonpath([os.path.dirname(file) for file in files])
    at = {float(time): os.path.relpath(file, root) for time, file in zip(dataset.timestamps, files, strict=True)}
    times = map_.timestamp_of
    return {id: at[times[id]] for id in range(first, len(times)) if times[id] in at}


def image_names(stored: StoredMap, suffix: str = "") -> dict[int, str]:
    """A name for each keyframe's image, by id: the file's where it is known, with another `suffix` if one is given.

    Names differ, and hold no white space, which the format cannot say.
    """
    names: dict[int, str] = {}
    taken = set()
    for id in stored.map.slot_of:
        name = Path("_".join(stored.images.get(id, f"{stored.map.timestamp_of[id]:.6f}.png").split()))
        name = name.with_suffix(suffix or name.suffix)
        if name in taken:  # from two sequences
            name = name.with_name(f"{id}-{name.name}")
        taken.add(name)
        names[id] = str(name)
    return names


def observations(map_: Map, camera: Camera) -> Observations:
    """All observations, keyframe by keyframe; errors are those in the image of `camera`, its distortion included."""
    keyframes = map_.keyframes
    ids, slots = np.array(list(map_.slot_of)), np.array(list(map_.slot_of.values()))
    place, feature = np.nonzero(keyframes.point[slots] >= 0)
    row = keyframes.point[slots[place], feature]
    T_cw = keyframes.T_cw[slots[place]]
    xyz = np.einsum("mij,mj->mi", T_cw[:, :3, :3], map_.points.xyz[row]) + T_cw[:, :3, 3]
    seen = [_keypoints(map_, slot, is_distorted(camera)) for slot in slots.tolist()]
    first = np.concatenate([[0], np.cumsum([len(xy) for xy in seen])])
    xy = np.concatenate(seen)[first[place] + feature]
    return Observations(ids[place], feature, row, np.linalg.norm(project(camera, xyz) - xy, axis=1))


def project(camera: Camera, xyz: np.ndarray) -> np.ndarray:
    """Pixels (N, 2) of points (N, 3) in the camera frame, as the camera sees them: distorted."""
    if not is_distorted(camera) or not len(xyz):
        return camera.project(xyz)
    import cv2

    return cv2.projectPoints(xyz, np.zeros(3), np.zeros(3), camera.K, np.array(camera.distortion))[0].reshape(-1, 2)


def is_distorted(camera: Camera) -> bool:
    """Whether the camera has any distortion."""
    return any(camera.distortion)


def made_folder(folder: str | Path) -> Path:
    """The folder, made if need be.

    Raises:
        VslamError: it cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VslamError(f"{folder}: cannot be made: {error.strerror}; give another folder") from None
    return folder


def _camera_line(camera: Camera) -> str:
    """PINHOLE, OPENCV with four coefficients, or FULL_OPENCV with five: its other three are of a denominator."""
    k1, k2, p1, p2, k3 = (*camera.distortion, *(0.0,) * (5 - len(camera.distortion)))
    parameters = [camera.fx, camera.fy, camera.cx + CENTRE, camera.cy + CENTRE]
    model = "PINHOLE"
    if k3:
        model, parameters = "FULL_OPENCV", [*parameters, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0]
    elif is_distorted(camera):
        model, parameters = "OPENCV", [*parameters, k1, k2, p1, p2]
    return " ".join([str(CAMERA_ID), model, str(camera.width), str(camera.height), *map(_decimal, parameters)]) + "\n"


def _image_lines(stored: StoredMap, names: dict[int, str], distorted: bool) -> Iterable[str]:
    from scipy.spatial.transform import Rotation

    map_ = stored.map
    for id, slot in map_.slot_of.items():
        T_cw = map_.keyframes.T_cw[slot]
        x, y, z, w = Rotation.from_matrix(T_cw[:3, :3]).as_quat(canonical=True)
        pose = " ".join(f"{value:.12g}" for value in (w, x, y, z, *T_cw[:3, 3]))
        yield f"{id + 1} {pose} {CAMERA_ID} {names[id]}\n"
        xy = _keypoints(map_, slot, distorted).astype(np.float64) + CENTRE
        point = np.full(len(xy), -1)
        shown = map_.keyframes.point[slot, : map_.keyframes.count[slot]]
        point[: len(shown)] = np.where(shown >= 0, shown + 1, -1)
        yield " ".join(f"{x:.4f} {y:.4f} {id}" for (x, y), id in zip(xy.tolist(), point.tolist(), strict=True)) + "\n"


def _point_lines(map_: Map, seen: Observations) -> Iterable[str]:
    points = map_.points
    count = np.bincount(seen.row, minlength=points.capacity)
    mean = np.bincount(seen.row, seen.error, points.capacity) / np.maximum(count, 1)
    order = np.argsort(seen.row, kind="stable")
    track = np.stack([seen.keyframe + 1, seen.feature], axis=1)[order]
    rows = np.flatnonzero(points.alive)
    tracks = np.split(track, np.cumsum(count[rows]))[:-1]
    for row, at in zip(rows.tolist(), tracks, strict=True):
        xyz = " ".join(f"{value:.9g}" for value in points.xyz[row].tolist())
        rgb = " ".join(map(str, points.rgb[row].tolist()))
        yield f"{row + 1} {xyz} {rgb} {mean[row]:.6g} {' '.join(map(str, at.ravel().tolist()))}\n"


def _keypoints(map_: Map, slot: int, distorted: bool) -> np.ndarray:
    frame = map_.frames[slot]
    return frame.features.xy if distorted else frame.xy


def _undistorted_png(image: np.ndarray, camera: Camera) -> bytes:
    import cv2

    if is_distorted(camera):
        image = cv2.undistort(image, camera.K, np.array(camera.distortion))
    return cv2.imencode(".png", image)[1].tobytes()


def _decimal(value: float) -> str:
    return np.format_float_positional(value, trim="0")
