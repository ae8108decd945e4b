"""A map as named arrays and back: what cannot be recomputed, so that the map is the same again, row for row.

Recomputed are the descriptors as kernels take them, the lookup grids, and which rows are free.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vslam.mapping.container import Arrays
from vslam.mapping.map import Keyframes, Map, Points, Retired
from vslam.matching.distance import searchable
from vslam.matching.window import CELL
from vslam.types import Camera, Features, Frame, Grid, Surface

PER_FEATURE = ("point", "xy", "sigma", "angle", "disparity", "disparity_sigma")  # of a keyframe
OF_FEATURES = ("xy", "sigma", "score", "octave", "angle", "descriptors")
OF_FRAME = ("xy", "disparity", "disparity_sigma", "rgb")
OF_SURFACE = ("xyz", "normal", "sigma")


def map_to_arrays(map_: Map) -> Arrays:
    """Everything of the map, by slot and row."""
    points, keyframes = map_.points, map_.keyframes
    rows, slots = np.flatnonzero(points.alive), np.flatnonzero(keyframes.id >= 0)
    arrays: Arrays = {"points/row": rows.astype(np.int32)}
    arrays |= {f"points/{name}": getattr(points, name)[rows] for name in points.fields if name != "alive"}
    arrays |= {"keyframes/slot": slots.astype(np.int32)}
    for name in keyframes.fields:
        values = getattr(keyframes, name)
        if name in PER_FEATURE:
            values = np.concatenate([values[slot, : keyframes.count[slot]] for slot in slots])
        else:
            values = values[slots]
        arrays[f"keyframes/{name}"] = values
    arrays |= _frames_to_arrays([map_.frames[slot] for slot in slots.tolist()])
    arrays["timestamps"] = np.array(map_.timestamp_of, np.float64)
    retired = map_.retired
    arrays["retired/id"] = np.array(list(retired), np.int32)
    arrays["retired/parent"] = np.array([each.parent for each in retired.values()], np.int32)
    arrays["retired/T_self_parent"] = np.array([each.T_self_parent for each in retired.values()]).reshape(-1, 4, 4)
    return arrays


def _frames_to_arrays(frames: list[Frame]) -> Arrays:
    arrays: Arrays = {"frames/count": np.array([len(frame) for frame in frames], np.int32)}
    filled = [frame for frame in frames if len(frame)] or frames[:1]  # arrays of nothing may have any width
    for name in OF_FRAME:
        arrays[f"frames/{name}"] = np.concatenate([getattr(frame, name) for frame in filled])
    for name in OF_FEATURES:
        arrays[f"features/{name}"] = np.concatenate([getattr(frame.features, name) for frame in filled])
    arrays["surfaces/has"] = np.array([frame.surface is not None for frame in frames], np.uint8)
    surfaces = [frame.surface for frame in frames if frame.surface is not None]
    if surfaces:
        for name in OF_SURFACE:
            arrays[f"surfaces/{name}"] = np.stack([getattr(surface, name) for surface in surfaces])
    return arrays


def map_from_arrays(arrays: Arrays, camera: Camera, features: int, epoch: int) -> Map:
    """The map of these arrays; its keyframes have places for so many `features`.

    Raises:
        KeyError, ValueError, IndexError, TypeError: the arrays are not those of a map.
    """
    map_ = Map()
    map_.epoch = epoch
    map_.timestamp_of = arrays["timestamps"].tolist()
    map_.points = _points(arrays)
    map_.keyframes = _keyframes(arrays, features)
    ids, slots = map_.keyframes.id, arrays["keyframes/slot"]
    timestamps = [map_.timestamp_of[ids[slot]] for slot in slots]
    frames = dict(zip(slots.tolist(), _frames(arrays, timestamps, camera), strict=True))
    for slot in slots[np.argsort(ids[slots])].tolist():  # dictionaries as if the keyframes had come one by one
        map_.slot_of[int(ids[slot])], map_.frames[slot] = slot, frames[slot]
    retired = zip(arrays["retired/id"], arrays["retired/parent"], arrays["retired/T_self_parent"], strict=True)
    map_.retired.update({int(id): Retired(int(parent), T) for id, parent, T in retired})
    _check_books(map_)
    return map_


def _points(arrays: Arrays) -> Points:
    rows = arrays["points/row"]
    points = Points(arrays["points/words"])
    points.claim(rows)
    points.alive[rows] = 1
    for name in points.fields:
        if name != "alive":
            getattr(points, name)[rows] = arrays[f"points/{name}"]
    return points


def _keyframes(arrays: Arrays, features: int) -> Keyframes:
    slots, counts = arrays["keyframes/slot"], arrays["keyframes/count"]
    keyframes = Keyframes(features)
    keyframes.claim(slots)
    for name in keyframes.fields:
        if name not in PER_FEATURE:
            getattr(keyframes, name)[slots] = arrays[f"keyframes/{name}"]
    keyframes.point[slots] = -1
    for name in PER_FEATURE:
        values = getattr(keyframes, name)
        for slot, part in zip(slots, _parts(arrays[f"keyframes/{name}"], counts), strict=True):
            values[slot, : len(part)] = part
    return keyframes


def _frames(arrays: Arrays, timestamps: list[float], camera: Camera) -> Iterator[Frame]:
    counts = arrays["frames/count"]
    of_features = zip(*(_parts(arrays[f"features/{name}"], counts) for name in OF_FEATURES), strict=True)
    of_frame = zip(*(_parts(arrays[f"frames/{name}"], counts) for name in OF_FRAME), strict=True)
    for timestamp, described, values, surface in zip(timestamps, of_features, of_frame, _surfaces(arrays), strict=True):
        features = Features(*described)
        xy, disparity, disparity_sigma, rgb = values
        yield Frame(
            timestamp, features, xy, disparity, disparity_sigma, searchable(features.descriptors),
            lookup_grid(xy, camera), rgb, surface,
        )  # fmt: skip


def _surfaces(arrays: Arrays) -> Iterator[Surface | None]:
    stored = iter(range(int(arrays["surfaces/has"].sum())))
    for has in arrays["surfaces/has"]:
        k = next(stored) if has else None
        yield None if k is None else Surface(*(arrays[f"surfaces/{name}"][k].copy() for name in OF_SURFACE))


def _parts(values: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """The rows of each frame, as arrays of their own: a frame that goes frees its memory."""
    if counts.min(initial=0) < 0 or counts.sum() != len(values):
        raise ValueError(f"{len(values)} rows for {counts.sum()} features")
    return [part.copy() for part in np.split(values, np.cumsum(counts)[:-1])]


def lookup_grid(xy: np.ndarray, camera: Camera) -> Grid:
    """The features (N, 2) of each square of the image; those outside belong to the border's squares."""
    columns, rows = camera.width // CELL + 1, camera.height // CELL + 1
    column = np.clip((xy[:, 0].astype(np.float64) / CELL).astype(np.int64), 0, columns - 1)
    row = np.clip((xy[:, 1].astype(np.float64) / CELL).astype(np.int64), 0, rows - 1)
    cell = row * columns + column
    start = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=columns * rows))])
    return Grid(start.astype(np.int32), np.argsort(cell, kind="stable").astype(np.int32), columns, rows)


def _check_books(map_: Map) -> None:
    """What kernels rely on without looking.

    Raises:
        ValueError: keyframes that hold points which are not there, or hang on keyframes which are not.
    """
    points, keyframes = map_.points, map_.keyframes
    seen = keyframes.point[keyframes.id >= 0]
    if seen.min(initial=-1) < -1 or seen.max(initial=-1) >= points.capacity or not points.alive[seen[seen >= 0]].all():
        raise ValueError("keyframes see points that are not there")
    known = set(map_.slot_of)
    waiting = dict(map_.retired)
    while waiting:
        settled = {id for id, each in waiting.items() if each.parent in known}
        if not settled:
            raise ValueError("removed keyframes hang on nothing")
        known |= settled
        waiting = {id: each for id, each in waiting.items() if id not in settled}
