"""Finding points again in keyframes where tracking did not, and merging points that are one."""

from __future__ import annotations

from typing import Any

import numpy as np

from vslam.geometry.gates import MONO_GATE, STEREO_GATE
from vslam.kernels import njit
from vslam.mapping.map import Map
from vslam.matching.window import CELL, search_projected
from vslam.types import Camera

RADIUS_SIGMAS = 4.0  # a point of the map is known this well in a keyframe
SCALE_FACTOR = 1.5


def fuse_around(map_: Map, slot: int, neighbours: np.ndarray, camera: Camera, extractor: Any) -> int:
    """Look for the neighbours' points in keyframe `slot`, and for its points in them. Returns observations added."""
    added = 0
    seen = map_.keyframes.point[neighbours]
    added += find_points(map_, slot, np.unique(seen[seen >= 0]), camera, extractor)
    for neighbour in neighbours:
        own = map_.keyframes.point[slot]
        added += find_points(map_, int(neighbour), np.unique(own[own >= 0]), camera, extractor)
    return added


def find_points(map_: Map, slot: int, rows: np.ndarray, camera: Camera, extractor: Any) -> int:
    """Look for points `rows` in keyframe `slot`: an unused feature becomes an observation, a used one merges points."""
    keyframes = map_.keyframes
    seen = keyframes.point[slot]
    rows = rows[~np.isin(rows, seen[seen >= 0])]
    if not len(rows):
        return 0
    match = _search(map_, slot, rows, camera, extractor)
    hit = np.flatnonzero(match >= 0)
    hit = hit[consistent(map_, slot, rows[hit], match[hit], camera.pinhole)]
    return add_observations(map_, slot, match[hit], rows[hit])


def add_observations(map_: Map, slot: int, features: np.ndarray, rows: np.ndarray) -> int:
    """Keyframe `slot` sees points `rows` (K,), none of which it saw so far, at `features` (K,); where a feature showed
    another point the two are one. Returns the observations added."""
    present = map_.keyframes.point[slot, features]
    free = present < 0
    map_.observe(slot, features[free], rows[free])
    merge_points(map_, rows[~free], present[~free])
    return int(free.sum())


def consistent(map_: Map, slot: int, rows: np.ndarray, features: np.ndarray, pinhole: np.ndarray) -> np.ndarray:
    """(K,) bool: the features lie where the points project, within the 95 % gate, depth included."""
    keyframes = map_.keyframes
    T_cw = keyframes.T_cw[slot]
    p = map_.points.xyz[rows] @ T_cw[:3, :3].T + T_cw[:3, 3]
    z = np.maximum(p[:, 2], 1e-6)
    uv = p[:, :2] / z[:, None] * pinhole[:2] + pinhole[2:4]
    error = (keyframes.xy[slot, features] - uv) / keyframes.sigma[slot, features, None]
    chi2 = (error**2).sum(axis=1)
    d = keyframes.disparity[slot, features]
    has = d > 0
    chi2 += np.where(has, ((d - pinhole[4] / z) / keyframes.disparity_sigma[slot, features]) ** 2, 0.0)
    return (p[:, 2] > 0.05) & (chi2 < np.where(has, STEREO_GATE, MONO_GATE))


def merge_points(map_: Map, some: np.ndarray, others: np.ndarray) -> None:
    """Make one point of each pair: the one seen by more keyframes stays, and takes over the other's observations."""
    points = map_.points
    keep = np.where(points.observations[some] >= points.observations[others], some, others)
    gone = np.where(keep == some, others, some)
    target = np.arange(points.capacity, dtype=np.int32)
    for one, two in zip(keep.tolist(), gone.tolist(), strict=True):  # few: a handful a keyframe
        target[_last(target, two)] = _last(target, one)
    merged = np.flatnonzero(target != np.arange(points.capacity))
    if len(merged):
        target[merged] = [_last(target, row) for row in merged.tolist()]  # pairs may share a point
        redirect(map_.keyframes.id, map_.keyframes.point, target, points.observations)
        np.add.at(points.found, target[merged], points.found[merged])
        np.add.at(points.visible, target[merged], points.visible[merged])
        map_.remove_points(merged)


def _last(target: np.ndarray, row: int) -> int:
    while target[row] != row:
        row = int(target[row])
    return row


@njit
def redirect(ids, point, target, observations):
    """Let keyframes (S, F) see `target[p]` in place of p; one that sees both keeps one observation."""
    last = np.full(len(target), -1, np.int64)  # the slot that was last found to see this point
    for s in range(len(ids)):
        if ids[s] < 0:
            continue
        for f in range(point.shape[1]):
            p = point[s, f]
            if p >= 0 and target[p] == p:
                last[p] = s
        for f in range(point.shape[1]):
            p = point[s, f]
            if p < 0 or target[p] == p:
                continue
            observations[p] -= 1
            if last[target[p]] == s:
                point[s, f] = -1
                continue
            point[s, f] = target[p]
            observations[target[p]] += 1
            last[target[p]] = s


def _search(map_: Map, slot: int, rows: np.ndarray, camera: Camera, extractor: Any) -> np.ndarray:
    frame, points = map_.frames[slot], map_.points
    match, distance = np.empty(len(rows), np.int32), np.empty(len(rows), np.float32)
    search_projected(
        map_.keyframes.T_cw[slot], camera.pinhole, camera.width, camera.height, points.xyz[rows], points.normal[rows],
        points.size[rows], np.zeros(len(rows), np.float32), points.words[rows], frame.xy, frame.features.sigma,
        frame.features.angle, frame.words, np.ones(len(frame), np.uint8), frame.grid.start, frame.grid.items,
        frame.grid.columns, frame.grid.rows, CELL, 0.0, RADIUS_SIGMAS, SCALE_FACTOR if extractor.scale_pyramid else 0.0,
        0.0, np.float32(0.8 * extractor.max_distance), np.float32(1.0), match, distance, np.empty(len(rows), np.uint8),
    )  # fmt: skip
    return match
