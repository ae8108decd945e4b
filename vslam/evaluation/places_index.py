"""From sets of images to an index, to answers, and to similarities."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vslam.config import PlaceConfig
from vslam.errors import VslamError
from vslam.evaluation.places_images import ImageSet, Progress, describe, open_images
from vslam.places.descriptor import make_place
from vslam.places.index import Kind, PlaceIndex


def make_network(name: str, settings: dict[str, Any], backend: str) -> Any:
    """A place network by name."""
    return make_place(PlaceConfig(name, {**settings, "backend": backend}))


def build(
    images: ImageSet,
    name: str,
    settings: dict[str, Any],
    backend: str,
    kind: Kind,
    file: Path,
    progress: Progress = lambda rows, _: rows,
) -> PlaceIndex:
    """The index of images by their number; its notes say what `open_index` needs, paths relative to `file`."""
    if not file.absolute().parent.is_dir():
        raise VslamError(f"{file}: there is no folder {file.parent}; make it first")
    place = make_network(name, settings, backend)
    index = PlaceIndex(place.dim, place.model, kind)
    index.add(np.arange(len(images)), describe(place, images, progress))
    home = file.absolute().parent
    if "weights" in settings:
        settings = {**settings, "weights": os.path.relpath(settings["weights"], home)}
    index.notes = {
        "place": name,
        "settings": settings,
        "images": os.path.relpath(images.folder if images.values is None else images.where, home),
        "names": list(images.names),
    }
    return index


@dataclass(frozen=True)
class OpenedIndex:
    """An index of images with the network that made it."""

    file: Path
    index: PlaceIndex
    place: Any

    def ask(
        self, images: ImageSet, k: int, progress: Progress = lambda rows, _: rows
    ) -> tuple[list[list[str]], np.ndarray]:
        """Names of the `k` most similar indexed images of each image, best first, and similarities (Q, k)."""
        ids, scores = self.index.search(describe(self.place, images, progress), k)
        names = self.index.notes["names"]
        return [[names[id] for id in row if id >= 0] for row in ids.tolist()], scores

    def images(self) -> ImageSet | None:
        """The indexed images, or None when they are no longer where they were."""
        try:
            found = open_images(self.file.absolute().parent / self.index.notes["images"])
        except VslamError:
            return None
        names = tuple(self.index.notes["names"])
        return found if found.values is not None else ImageSet(found.where, names, found.folder)


def open_index(file: Path, name: str | None, settings: dict[str, Any], backend: str, k: int) -> OpenedIndex:
    """An index that `build` made, with its network or the one given.

    Raises:
        VslamError: damaged, empty, made by another network, or with fewer than `k` images.
    """
    index = PlaceIndex.load(file)
    notes = index.notes
    if not {"place", "settings", "images", "names"} <= set(notes) or len(notes["names"]) != len(index):
        raise VslamError(f"{file}: an index of something else than images; 'vslam place index' makes one")
    if not len(index):
        raise VslamError(f"{file}: empty index; index some images first")
    if not 1 <= k <= len(index):
        raise VslamError(f"-k {k}: the index {file} holds {len(index)} images; expected 1 to {len(index)}")
    saved = dict(notes["settings"])
    if "weights" in saved:
        saved["weights"] = str(file.absolute().parent / saved["weights"])
    place = make_network(name or notes["place"], {**saved, **settings}, backend)
    if place.model != index.model:
        raise VslamError(
            f"{file}: made by {index.model}, but the network here is {place.model}; index the images again"
        )
    return OpenedIndex(file, index, place)


def similarities(
    place: Any, database: ImageSet, queries: ImageSet, progress: Progress = lambda rows, _: rows
) -> np.ndarray:
    """Inner products (Q, D) float32 of the vectors of two sets; one set is described once."""
    described = describe(place, database, progress)
    same = queries.where == database.where
    return (described if same else describe(place, queries, progress)) @ described.T
