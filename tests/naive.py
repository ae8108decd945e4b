"""Slow, obvious twins of the kernels: loops and definitions, nothing clever."""

from __future__ import annotations

import numpy as np

CIRCLE = [(0, -3), (1, -3), (2, -2), (3, -1), (3, 0), (3, 1), (2, 2), (1, 3)]
"""Half of FAST's circle of radius 3; the other half are the opposite pixels."""


def spread(xy, score, wanted, width, height, per_cell) -> set[int]:
    """Round after round the best point of every cell; of the last round's the strongest. Scores must differ.

    Cells are squares that hold `per_cell` of the wanted points each, were these evenly spread.
    """
    side = max(1.0, np.sqrt(per_cell * width * height / max(1, wanted)))
    left, chosen = set(range(len(xy))), set()
    while left and len(chosen) < wanted:
        best = {}
        for i in left:
            cell = (int(xy[i][0] / side), int(xy[i][1] / side))
            if cell not in best or score[i] > score[best[cell]]:
                best[cell] = i
        strongest = sorted(best.values(), key=lambda i: -score[i])[: wanted - len(chosen)]
        chosen |= set(strongest)
        left -= set(strongest)
    return chosen


def opposite_pairs(image, x, y) -> int:
    """By how much, along every diameter of the circle, one end at least is brighter (or darker) than the centre."""
    ends = [(int(image[y + v, x + u]), int(image[y - v, x - u])) for u, v in CIRCLE]
    centre = int(image[y, x])
    return max(0, min(max(pair) for pair in ends) - centre, centre - max(min(pair) for pair in ends))


def local_maxima(score, width, threshold, margin) -> list[tuple[int, int]]:
    """Pixels (x, y) above the threshold that no neighbour exceeds; of equal neighbours the last in reading order."""
    found = []
    for y in range(margin, score.shape[0] - margin):
        for x in range(margin, width - margin):
            around = score[y - 1 : y + 2, x - 1 : x + 2].ravel().astype(int)
            s = around[4]
            if s > threshold and all(s >= around[:4]) and all(s > around[5:]):
                found.append((x, y))
    return found


def smaller_eigenvalue(image, x, y) -> float:
    """Of the sum of gradient times gradient over 5x5 pixels; gradients are differences of the two neighbours."""
    image = image.astype(float)
    moment = np.zeros((2, 2))
    for v in range(y - 2, y + 3):
        for u in range(x - 2, x + 3):
            gradient = np.array([image[v, u + 1] - image[v, u - 1], image[v + 1, u] - image[v - 1, u]])
            moment += np.outer(gradient, gradient)
    return np.linalg.eigvalsh(moment)[0]


def distances(a, b) -> np.ndarray:
    """(N, M) bits for uint8 descriptors, 2 - 2 cos for unit float ones."""
    if a.dtype == np.uint8:
        return np.bitwise_count(a[:, None] ^ b[None]).sum(axis=2, dtype=int).astype(float)
    return 2.0 - 2.0 * a.astype(float) @ b.astype(float).T


def turn_between(a, b) -> float:
    """Angle between two directions given as angles, 0 to pi."""
    return abs((a - b + np.pi) % (2 * np.pi) - np.pi)


def search_projected(T_cw, camera, near_m, points, frame, gates) -> tuple[np.ndarray, np.ndarray]:
    """Every point against every keypoint; see `vslam.matching.window.search_projected`.

    `points` and `frame` are dictionaries of arrays, `gates` one of numbers.

    Returns:
        match (M,) and visible (M,).
    """
    match, visible = np.full(len(points["xyz"]), -1), np.zeros(len(points["xyz"]), bool)
    wishes = {}  # keypoint: (distance, point)
    for i, xyz in enumerate(points["xyz"]):
        p = T_cw[:3, :3] @ xyz + T_cw[:3, 3]
        if p[2] <= near_m:
            continue
        u, v = camera.project(p[None])[0]
        normal = T_cw[:3, :3] @ points["normal"][i]
        faces = not normal.any() or -normal @ p / np.linalg.norm(p) > 0.5
        if not (0 <= u < camera.width and 0 <= v < camera.height and faces):
            continue
        visible[i] = True
        if not len(frame["xy"]):
            continue
        sigma = np.clip(points["size"][i] / np.linalg.norm(p), frame["sigma"].min(), frame["sigma"].max())
        candidates = []
        for j in range(len(frame["xy"])):
            ratio = max(frame["sigma"][j] / sigma, sigma / frame["sigma"][j])
            if (
                np.hypot(*(frame["xy"][j] - (u, v))) <= gates["radius_px"] + gates["radius_sigmas"] * sigma
                and frame["free"][j]
                and (gates["scale_factor"] == 0 or ratio <= gates["scale_factor"])
                and (gates["max_turn"] == 0 or turn_between(frame["angle"][j], points["angle"][i]) <= gates["max_turn"])
            ):
                d = distances(points["descriptors"][i : i + 1], frame["descriptors"][j : j + 1])[0, 0]
                candidates.append((d, j))
        candidates.sort(key=lambda c: c[0])  # stable
        if not candidates or candidates[0][0] >= gates["max_distance"]:
            continue
        if len(candidates) > 1 and candidates[0][0] > gates["ratio"] * candidates[1][0]:
            continue
        d, j = candidates[0]
        if j not in wishes or d < wishes[j][0]:
            wishes[j] = (d, i)
    for j, (_, i) in wishes.items():
        match[i] = j
    return match, visible


def observations(map_) -> dict[int, list[tuple[int, int]]]:
    """By map point row: the (slot, feature) pairs at which live keyframes see it."""
    seen: dict[int, list[tuple[int, int]]] = {}
    for slot in map_.slot_of.values():
        for feature, row in enumerate(map_.keyframes.point[slot]):
            if row >= 0:
                seen.setdefault(int(row), []).append((slot, feature))
    return seen


def shared_points(map_, slot: int) -> dict[int, int]:
    """By other slot: how many points it shares with `slot`."""
    own = {p for p in map_.keyframes.point[slot] if p >= 0}
    shares = {s: len(own & set(map_.keyframes.point[s])) for s in map_.slot_of.values() if s != slot}
    return {s: count for s, count in shares.items() if count}
