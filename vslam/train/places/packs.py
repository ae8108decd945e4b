"""Place packs: one `.npz` a world, small enough to lie in memory whole.

| key | type | meaning |
|---|---|---|
| `images` | uint8 (M, H, W) | grey |
| `view` | int32 (M,) | the view each image shows: the same one again under another light |
| `overlap` | uint8 (V, V) | percent of view i's pixels that view j sees; 255 = nobody knows |
| `world` | str () | packs of the same world may show the same places |
| `time` | float64 (V,) | seconds; only of walks |
| `poses` | float64 (V, 4, 4) | `T_world_camera`, world z up; only of walks |
| `reach` | float64 () | median depth, m; only of walks |
| `source` | str () | where the images come from, and their licence |
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vslam.errors import VslamError
from vslam.train.places.overlap import UNKNOWN, turn_between


@dataclass(frozen=True)
class PlacePack:
    """One opened pack."""

    name: str
    world: str
    images: np.ndarray
    view: np.ndarray
    overlap: np.ndarray
    time: np.ndarray | None = None
    poses: np.ndarray | None = None
    reach: float = 0.0

    def relation(self, min_overlap: int, max_overlap: int, max_turn_deg: float) -> np.ndarray:
        """int8 (V, V): 1 = two views show the same place, 0 = different ones, -1 = neither can be said."""
        known = self.overlap != UNKNOWN
        low, high = np.minimum(self.overlap, self.overlap.T), np.maximum(self.overlap, self.overlap.T)
        same = low >= min_overlap
        if self.poses is not None:
            same &= turn_between(self.poses) <= np.radians(max_turn_deg)
        np.fill_diagonal(same, True)
        found = np.where(same, 1, np.where(high <= max_overlap, 0, -1)).astype(np.int8)
        found[~(known & known.T)] = -1
        return found

    def classes(self, cell: float, heading_deg: float) -> tuple[np.ndarray, np.ndarray]:
        """Class (V,) of each view and the group (V,) of that class, both int64, for classification (CosPlace).

        A class is a square of `cell` median depths and a range of headings; neighbours in place or heading are in
        different ones of eight groups, so that those of one group never show the same place. Views without poses:
        two neighbours are a class, and every eighth class is in the same group.
        """
        if self.poses is None:
            number = np.arange(len(self.overlap)) // 2
            return number, number % GROUPS
        place = np.floor(self.poses[:, :2, 3] / (cell * self.reach)).astype(np.int64)
        angle = np.arctan2(self.poses[:, 1, 2], self.poses[:, 0, 2])
        bins = max(2, 2 * round(180 / heading_deg))
        heading = np.floor((angle + np.pi) / (2 * np.pi) * bins).astype(np.int64) % bins
        keys = np.column_stack([place, heading])
        _, number = np.unique(keys, axis=0, return_inverse=True)
        group = (place[:, 0] % 2) * 4 + (place[:, 1] % 2) * 2 + heading % 2
        return number.reshape(-1), group


GROUPS = 8
"""2 x 2 cells and 2 headings."""


def open_place_pack(file: Path) -> PlacePack:
    """Read a pack.

    Raises:
        VslamError: not a place pack, or its parts do not fit together.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        pack = PlacePack(
            file.stem, str(arrays["world"]), arrays["images"], arrays["view"], arrays["overlap"],
            arrays.get("time"), arrays.get("poses"), float(arrays.get("reach", 0.0)),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise VslamError(f"{file}: not a place pack ({error}); make one with 'vslam train pack-places'") from None
    views = len(pack.overlap)
    if len(pack.view) != len(pack.images) or len(np.unique(pack.view)) != views or pack.view.max() != views - 1:
        raise VslamError(f"{file}: images and views do not fit together; make it again with 'vslam train pack-places'")
    return pack


def open_place_packs(folder: Path) -> list[PlacePack]:
    """All packs of a folder, by name.

    Raises:
        VslamError: there are none.
    """
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise VslamError(f"{folder}: no place packs (*.npz); make some with 'vslam train pack-places'")
    return [open_place_pack(file) for file in files]
