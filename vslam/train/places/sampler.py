"""Draws batches of views of places; what is drawn depends on the numbers given alone, so that runs can be resumed."""

from __future__ import annotations

import cv2
import numpy as np

from vslam.errors import VslamError
from vslam.train.data.light import relight
from vslam.train.data.warp import random_homography
from vslam.train.places.build import fit
from vslam.train.places.packs import GROUPS, PlacePack
from vslam.train.places.season import change_season
from vslam.train.places.settings import ViewConfig

COARSEST = 5.0

Spot = tuple[int, int]
"""An image, that is a view under one light: index of its pack, index in it."""


class PlaceSampler:
    """Batches of `places` times two views, with the relation of every pair."""

    def __init__(self, packs: list[PlacePack], config: ViewConfig):
        self.packs, self.config = packs, config
        self.relations = [p.relation(config.min_overlap, config.max_overlap, config.max_turn_deg) for p in packs]
        self._images_of = [_images_by_view(pack) for pack in packs]
        self._light = [_lights(images) for images in self._images_of]
        weight = np.sqrt([places_of(relation) for relation in self.relations])
        self._share = weight / weight.sum()

    def batch(self, seed: int, step: int, places: int, pool: list[Spot] | None = None, hard=None) -> dict:
        """`images` (B, H, W) uint8 and `relation` (B, B) int8, B = 2 places.

        With a `pool` of images and `hard` (its length, n), indices into the pool of other places that look alike, half
        of the places are drawn from the pool, the other half are their look-alikes.
        """
        rng = np.random.default_rng((seed, step))
        if pool is None or hard is None:
            anchors = self._draw_anchors(rng, places)
        else:
            chosen = rng.choice(len(pool), places // 2)
            alike = [int(hard[k][rng.integers(len(hard[k]))]) for k in chosen]
            anchors = [pool[k] for k in chosen] + [pool[k] for k in alike]
        spots = [spot for anchor in anchors for spot in (anchor, self._partner(anchor, rng))]
        return {
            "images": np.stack([self.view(spot, rng) for spot in spots]),
            "relation": self.relate(spots),
        }

    def _draw_anchors(self, rng: np.random.Generator, places: int) -> list[Spot]:
        worlds = rng.choice(len(self.packs), self.config.worlds, p=self._share)
        return [(int(w), int(rng.integers(len(self.packs[w].images)))) for w in np.resize(worlds, places)]

    def _partner(self, spot: Spot, rng: np.random.Generator) -> Spot:
        """An image of the same place, under another light by the chance that the settings give it."""
        pack, image = spot
        view = int(rng.choice(np.flatnonzero(self.relations[pack][self.packs[pack].view[image]] == 1)))
        images, light = self._images_of[pack][view], self._light[pack]
        others = images[light[images] != light[image]]
        is_relit = len(others) > 0 and rng.random() < self.config.other_light
        return pack, int(rng.choice(others if is_relit else images))

    def relate(self, spots: list[Spot]) -> np.ndarray:
        """Relation (B, B) of the views that images show."""
        pack = np.array([p for p, _ in spots])
        view = np.array([self.packs[p].view[image] for p, image in spots])
        same_pack = pack[:, None] == pack
        worlds = np.array([self.packs[p].world for p in pack])
        relation = np.where(worlds[:, None] == worlds, -1, 0).astype(np.int8)
        for p in np.unique(pack):
            own = np.flatnonzero(pack == p)
            relation[np.ix_(own, own)] = self.relations[p][np.ix_(view[own], view[own])]
        relation[~same_pack & (worlds[:, None] == worlds)] = -1
        return relation

    def view(self, spot: Spot, rng: np.random.Generator) -> np.ndarray:
        """An image, uint8 (H, W) of the network's size, cut out, turned and relit at random."""
        cut = cut_out(self.packs[spot[0]].images[spot[1]], rng, self.config)
        if rng.random() < self.config.coarse:
            if rng.random() < self.config.season:
                return coarsen(cut, rng, change_season)
            cut = coarsen(cut, rng)
        return relight(cut, rng, self.config.light)

    def plain(self, spot: Spot, size: tuple[int, int]) -> np.ndarray:
        """An image as it is, the largest middle part of the shape of `size` (width, height)."""
        return fit(self.packs[spot[0]].images[spot[1]], size)

    def any_image(self, rng: np.random.Generator) -> np.ndarray:
        """An image (H, W) of any view under any light, as it is."""
        images = self.packs[int(rng.choice(len(self.packs), p=self._share))].images
        return images[int(rng.integers(len(images)))]

    def draw_pool(self, seed: int, step: int, count: int) -> list[Spot]:
        """Images under any light to look for hard negatives among: in darkness other places look alike."""
        rng = np.random.default_rng((seed, step, 1))
        packs = rng.choice(len(self.packs), count, p=self._share)
        return sorted({(int(p), int(rng.integers(len(self.packs[p].images)))) for p in packs})


def _images_by_view(pack: PlacePack) -> list[np.ndarray]:
    order = np.argsort(pack.view, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(pack.view[order])) + 1)


def _lights(images_of: list[np.ndarray]) -> np.ndarray:
    """Which of its view's lights each image (M,) has: the k-th image of a view has light k."""
    found = np.zeros(sum(map(len, images_of)), np.int64)
    for images in images_of:
        found[images] = np.arange(len(images))
    return found


def cut_out(image: np.ndarray, rng: np.random.Generator, config: ViewConfig) -> np.ndarray:
    """A window of the network's shape from an image (H, W), at random place, magnification, turn and perspective."""
    size = np.array([config.width, config.height], float)
    whole = np.array(image.shape[1::-1], float)
    fit = (size / whole).max()  # from source to view pixels, the window as large as it can be
    zoom = fit * np.exp(rng.uniform(0, np.log(config.zoom)))
    room = np.maximum(whole - size / zoom, 0) / 2
    centre = whole / 2 - 0.5 + rng.uniform(-1, 1, 2) * room
    scale = np.array([[zoom, 0, 0], [0, zoom, 0], [0, 0, 1.0]])
    scale[:2, 2] = size / 2 - 0.5 - zoom * centre
    bend = random_homography(rng, (config.width, config.height), config.angle_deg, (1.0, 1.08), config.perspective, 0.0)
    matrix = bend @ scale
    return cv2.warpPerspective(image, matrix, (config.width, config.height), borderMode=cv2.BORDER_REFLECT_101)


def places_of(relation: np.ndarray) -> float:
    """How many different places views (V, V) show: a walk sees each place many times, a collection of photos once."""
    return len(relation) / (relation == 1).sum(axis=1).mean()


def coarsen(image: np.ndarray, rng: np.random.Generator, change=None) -> np.ndarray:
    """The image (H, W) as a camera of fewer pixels, by a factor up to COARSEST, would see it; same size and type.

    `change(grey, rng)` is what happens to its small picture, float32 in 0 to 1: `change_season` for a web camera.
    """
    factor = np.exp(rng.uniform(0, np.log(COARSEST)))
    size = tuple(max(8, round(side / factor)) for side in image.shape[::-1])
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if change is not None:
        small = (change(small.astype(np.float32) / 255, rng) * 255 + 0.5).astype(np.uint8)
    return cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR)


class ClassSampler(PlaceSampler):
    """Batches of views with their classes, all of one group (CosPlace); the group changes every `group_steps`."""

    def __init__(self, packs: list[PlacePack], config: ViewConfig, group_steps: int):
        super().__init__(packs, config)
        self._group_steps = group_steps
        self.classes: list[dict[Spot, int]] = [{} for _ in range(GROUPS)]
        self._members: list[list[list[Spot]]] = []
        for p, pack in enumerate(packs):
            number, group = pack.classes(config.cell, config.heading_deg)
            for image, view in enumerate(pack.view):
                n, g = int(number[view]), int(group[view])
                self.classes[g].setdefault((p, n), len(self.classes[g]))
                self._add(g, self.classes[g][p, n], (p, image))
        if not any(self._members):
            raise VslamError("packs: no classes; pack walks, videos or photos with 'vslam train pack-places'")

    def _add(self, group: int, label: int, spot: Spot) -> None:
        while len(self._members) < GROUPS:
            self._members.append([])
        while len(self._members[group]) <= label:
            self._members[group].append([])
        self._members[group][label].append(spot)

    def counts(self) -> list[int]:
        """Number of classes of each group."""
        return [len(group) for group in self.classes]

    def first_members(self, group: int, count: int = 2) -> list[list[Spot]]:
        """Up to `count` images of each class of a group."""
        return [spots[:count] for spots in self._members[group]]

    def batch(self, seed: int, step: int, places: int, pool=None, hard=None) -> dict:
        """`images` (B, H, W), `labels` (B,) int64, `group` int64 and `relation` (B, B), B = 2 places."""
        rng = np.random.default_rng((seed, step))
        turn = np.random.default_rng((seed, step // self._group_steps, 2))
        group = int(turn.choice([g for g in range(GROUPS) if self._members[g]]))
        labels = np.repeat(rng.integers(len(self._members[group]), size=places), 2)
        members = [self._members[group][label] for label in labels]
        spots = [spots[int(rng.integers(len(spots)))] for spots in members]
        return {
            "images": np.stack([self.view(spot, rng) for spot in spots]),
            "labels": labels.astype(np.int64),
            "group": np.array(group),
            "relation": self.relate(spots),
        }
