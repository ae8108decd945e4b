"""Which frames of an RGB-D sequence make good training pairs, by geometry; kept in a file that can be shared.

After the data set of GCNv2 (Tang et al. 2019): frames some time apart, points carried by depth and pose, and every
carried point held against what the other frame measured. A pair file `NAME.pairs.npz` belongs to the sequence pack
`NAME.npz`:

| key | type | meaning |
|---|---|---|
| `pairs` | int32 (P, 2) | frames i and j of the pack |
| `overlap` | float32 (P,) | share of i's keypoints with trusted depth that j truly sees |
| `points` | int32 (P,) | how many these are |
| `rotation_deg`, `translation_m` | float32 (P,) | of the motion from i to j |
| `ncc` | float32 (P,) | median likeness of the pictures about these points, at most 1 |
| `rules` | str () | `PairRules` as JSON: the same rules hold when a pair is drawn |
| `rejected` | str () | JSON: how many candidates failed, by reason |
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from vslam.config import from_dict
from vslam.errors import VslamError
from vslam.train.data.pack import Pack, open_packs, write_arrays
from vslam.train.data.warp import sample_depth, trusted_depth, warp_by_depth, warp_grid

PAIRS = ".pairs.npz"
"""What the names of pair files end in; before it stands the name of their pack."""

PATCH = 11
"""Pixels a side of the patches whose likeness is judged."""


@dataclass(frozen=True)
class PairRules:
    """What a pair of frames, and a point seen in both, must meet."""

    gaps: tuple[int, ...] = (5, 7, 10, 15, 21, 30, 45)  # frames between the two
    min_rotation_deg: float = 2.0  # a pair must turn or move by so much ...
    max_rotation_deg: float = 35.0
    min_translation_m: float = 0.02
    max_translation_m: float = 0.6
    blur_percentile: float = 10.0  # the least sharp frames of a sequence are in no pair
    near_m: float = 0.3  # depth sensors see nothing nearer
    far_m: float = 10.0  # 5 for structured light
    edge: float = 0.05  # relative range of depth in 3x3 pixels: more is an edge, whose depth belongs to either side
    depth_m: float = 0.02  # carried and measured depth agree within this, or within the share below
    depth_share: float = 0.02
    cycle_px: float = 1.0  # the way there and back ends as near to its start
    border_px: float = 8.0
    min_points: int = 60
    bins: tuple[float, ...] = (0.3, 0.5, 0.7, 0.95)  # of overlap, limits included; pairs are drawn evenly from each
    min_ncc: float = 0.4  # likeness of 11x11 pixels: less speaks of wrong poses


@dataclass(frozen=True)
class Judgement:
    """What was found of a candidate; `fault` names the first rule that it breaks, empty when it is good."""

    fault: str = ""
    overlap: float = 0.0
    points: int = 0
    rotation_deg: float = 0.0
    translation_m: float = 0.0
    ncc: float = 0.0


def pair_packs(packs: Path, out: Path, rules: PairRules = PairRules()) -> Iterator[str]:
    """Write a pair file for every sequence pack of a folder that has none yet; yields a line for each.

    Raises:
        VslamError: no packs, no sequences among them, or a sequence without a single good pair.
    """
    sequences = [pack for pack in open_packs(packs) if pack.is_sequence]
    if not sequences:
        raise VslamError(f"{packs}: no sequences among the packs; make some with 'vslam train pack-sequence'")
    for pack in sequences:
        file = out / (pack.name + PAIRS)
        if file.exists():
            yield f"{file}: there already"
            continue
        arrays, rejected = find_pairs(pack, rules)
        if not len(arrays["pairs"]):
            raise VslamError(
                f"{packs / pack.name}.npz: no frames make a pair ({_words(rejected)}); see its poses and depth"
            )
        notes = {"rules": np.array(json.dumps(asdict(rules))), "rejected": np.array(json.dumps(rejected))}
        write_arrays(file, arrays | notes)
        yield f"{file}: {len(arrays['pairs'])} pairs; left out: {_words(rejected)}"


def find_pairs(pack: Pack, rules: PairRules) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The good pairs of a sequence as arrays of a pair file, and how many candidates failed by which rule."""
    judge = PairJudge(pack, rules)
    found: list[tuple[int, int]] = []
    kept: list[Judgement] = []
    rejected: Counter[str] = Counter()
    for i in range(len(pack)):
        for j in (i + gap for gap in rules.gaps if i + gap < len(pack)):
            judgement = judge(i, j)
            if judgement.fault:
                rejected[judgement.fault] += 1
                continue
            found.append((i, j))
            kept.append(judgement)
    arrays = {"pairs": np.array(found, np.int32).reshape(-1, 2)}
    arrays["points"] = np.array([k.points for k in kept], np.int32)
    for name in ("overlap", "rotation_deg", "translation_m", "ncc"):
        arrays[name] = np.array([getattr(k, name) for k in kept], np.float32)
    return arrays, dict(rejected)


class PairJudge:
    """Judges candidates of one sequence; keeps decoded frames, as neighbours are asked for again and again."""

    def __init__(self, pack: Pack, rules: PairRules):
        self.pack, self.rules = pack, rules
        self.sharp = sharp_frames(pack, rules.blur_percentile)
        self._depth = lru_cache(maxsize=2 * max(rules.gaps))(self._trusted)
        self._image = lru_cache(maxsize=2 * max(rules.gaps))(pack.image)

    def __call__(self, i: int, j: int) -> Judgement:
        """The cheap rules first, then the points, then the pictures."""
        rules, T_j_i = self.rules, np.linalg.inv(self.pack.poses[j]) @ self.pack.poses[i]
        turn, way = rotation_deg(T_j_i), float(np.linalg.norm(T_j_i[:3, 3]))
        motion = {"rotation_deg": turn, "translation_m": way}
        if not (self.sharp[i] and self.sharp[j]):
            return Judgement("blurred", **motion)
        if turn > rules.max_rotation_deg or way > rules.max_translation_m:
            return Judgement("moves too far", **motion)
        if turn < rules.min_rotation_deg and way < rules.min_translation_m:
            return Judgement("hardly moves", **motion)
        corners, depths = self.pack.corners(i), (self._depth(i), self._depth(j))
        _, seen, depth_known = carried_points(corners, *depths, self.pack.K, T_j_i, rules)
        overlap, points = float(seen.sum() / max(depth_known.sum(), 1)), int(seen.sum())
        known = motion | {"overlap": overlap, "points": points}
        if points < rules.min_points:
            return Judgement("too few points", **known)
        if not rules.bins[0] <= overlap <= rules.bins[-1]:
            return Judgement("overlap", **known)
        known["ncc"] = self._likeness(i, j, T_j_i, corners[seen])
        return Judgement("" if known["ncc"] > rules.min_ncc else "pictures differ", **known)

    def _trusted(self, index: int) -> np.ndarray:
        return trusted_depth(self.pack.depth(index), self.rules.near_m, self.rules.far_m, self.rules.edge)

    def _likeness(self, i: int, j: int, T_j_i: np.ndarray, xy: np.ndarray) -> float:
        """Median likeness about points (N, 2) of frame i, frame j seen through the motion."""
        x, y, seen = warp_grid(self._depth(i), self._depth(j), self.pack.K, T_j_i)
        carried = cv2.remap(self._image(j), x, y, cv2.INTER_LINEAR)
        values = patch_likeness(self._image(i), carried, seen, xy)
        return float(np.median(values)) if len(values) else 0.0


def carried_points(
    xy: np.ndarray, depth_a: np.ndarray, depth_b: np.ndarray, K: np.ndarray, T_b_a: np.ndarray, rules: PairRules
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (N, 2) of one frame in another by trusted depth; which are truly seen there (N,), and of which the depth
    is known at all (N,)."""
    there, seen = warp_by_depth(xy, depth_a, depth_b, K, T_b_a, rules.depth_share, rules.cycle_px, rules.depth_m)
    limit = np.array(depth_b.shape[::-1]) - 1 - rules.border_px
    inside = (there >= rules.border_px).all(axis=1) & (there <= limit).all(axis=1)
    return there, seen & inside, sample_depth(depth_a, xy) > 0


def patch_likeness(a: np.ndarray, b: np.ndarray, seen: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Zero-mean normalised correlation of 11x11 pixels of two images about points (N, 2), where nine tenths of a patch
    is `seen` (H, W) and it is not flat; float64 (M,), M <= N."""
    half, found = PATCH // 2, []
    for x, y in np.round(xy).astype(int):
        window = slice(y - half, y + half + 1), slice(x - half, x + half + 1)
        inside = seen[window]
        if inside.shape != (PATCH, PATCH) or inside.mean() < 0.9:
            continue
        p, q = a[window][inside].astype(np.float64), b[window][inside].astype(np.float64)
        p, q = p - p.mean(), q - q.mean()
        size = np.sqrt((p @ p) * (q @ q))
        if size > inside.sum():  # a grey level or more of spread in both
            found.append(p @ q / size)
    return np.array(found)


def sharp_frames(pack: Pack, percentile: float) -> np.ndarray:
    """Which frames (N,) are not among the least sharp ones of their sequence."""
    values = np.array([sharpness(pack.image(k)) for k in range(len(pack))])
    return values >= np.percentile(values, percentile)


def sharpness(image: np.ndarray) -> float:
    """Variance of the Laplacian of an image (H, W) uint8, smoothed against noise."""
    return float(cv2.Laplacian(cv2.GaussianBlur(image, (0, 0), 1.0), cv2.CV_32F).var())


def rotation_deg(T: np.ndarray) -> float:
    """Angle of a rigid motion (4, 4)."""
    return float(np.degrees(np.arccos(np.clip((np.trace(T[:3, :3]) - 1) / 2, -1, 1))))


def with_pairs(pack: Pack, folder: Path) -> Pack:
    """A sequence pack with its pair file; other packs as they are.

    Raises:
        VslamError: no such file, not one of pairs, or of another sequence.
    """
    if not pack.is_sequence:
        return pack
    file = folder / (pack.name + PAIRS)
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in ("pairs", "overlap", "rules")}
    except FileNotFoundError:
        raise VslamError(f"{file}: no pairs of pack '{pack.name}'; make them with 'vslam train pair'") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise VslamError(f"{file}: not a file of pairs ({error}); make one with 'vslam train pair'") from None
    if not len(arrays["pairs"]) or arrays["pairs"].max() >= len(pack):
        raise VslamError(f"{file}: names frames that pack '{pack.name}' does not have; pair it again")
    return Pack(pack.name, pack.arrays | arrays)


def rules_of(pack: Pack) -> PairRules:
    """The rules that a pack's pairs were found by."""
    values = json.loads(str(pack.arrays["rules"]))
    return from_dict(PairRules, values, f"{pack.name}{PAIRS}")


def rows_by_bin(overlap: np.ndarray, bins: tuple[float, ...]) -> list[np.ndarray]:
    """Rows (M,) of the pairs in each bin of overlap that has any."""
    which = np.clip(np.searchsorted(bins, overlap, side="right") - 1, 0, len(bins) - 2)
    rows = [np.flatnonzero(which == k) for k in range(len(bins) - 1)]
    return [each for each in rows if len(each)]


def _words(rejected: dict[str, int]) -> str:
    return ", ".join(f"{count} {fault}" for fault, count in sorted(rejected.items())) or "none"
