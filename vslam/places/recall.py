"""Where has this been seen? Local maps of the places that look most like an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vslam.places.index import PlaceIndex
from vslam.types import LocalMap


class Recall:
    """Places of the map by their look, for a lost camera.

    Args:
        place: the descriptor of whole images.
        index: its vectors of the keyframes.
        around: gives the local map around a keyframe, None where it is no more.
        turn_to: makes the local map around a keyframe the one that is tracked.
    """

    def __init__(
        self,
        place: Any,
        index: PlaceIndex,
        around: Callable[[int], LocalMap | None],
        turn_to: Callable[[int], None],
        candidates: int,
    ):
        self._place, self._index, self._around, self._candidates = place, index, around, candidates
        self.turn_to = turn_to

    def places(self, image: np.ndarray) -> Iterator[LocalMap]:
        """The places most like a grey image (H, W), most alike first."""
        if not len(self._index):
            return
        ids, _ = self._index.search(self._place.describe(image)[None], min(self._candidates, len(self._index)))
        for keyframe in ids[0]:
            place = self._around(int(keyframe)) if keyframe >= 0 else None
            if place is not None:
                yield place
