"""Place recognition beside a bag of ORB words and down-sampled pixels: `python -m benchmarks.places [--json FILE]`.

Sets: those of `--data` that are there (a catalogue of public thumbnails: Nordland, Gardens Point, Essex, SPED, and the
tower videos), and renders in `--renders` (TUM layout with info.json): each walk against its own earlier frames, at
least 10 s before, and against the same walk in another light, at least 10 s before or after. Of the tower, only floors
that no network was trained on are asked for, every fifth frame; the database is the other frames of every floor. Right
are those of the same video within 2 s, or, with these left out, within 5 s, when little of the view may be left.

`orb words`: 500 features, 4096 binary words by k-means (faiss) of the training photos in `--photos`, tf-idf, cosine.
`pixels`: 64x32 grey, each 8x8 patch with mean 0 and deviation 1, cosine. Neither is tuned, nor are the networks here.
Processor time is the median over 640x480 images of the embedded sample.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import faiss
import numpy as np

from vslam.config import PlaceConfig
from vslam.datasets.sample import ensure_sample
from vslam.evaluation import places
from vslam.evaluation.places_images import ImageSet, describe, open_images
from vslam.evaluation.places_truth import Tolerance, Truth, by_index, open_truth
from vslam.inference.models import manifest
from vslam.places.descriptor import make_place, unit

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PHOTOS = ("indoor_tower", "coco_ccby", "drone_beach", "road_samples")
TOWER_FLOORS = ("floor5", "floor13", "basement3")
"""Kept out of training and of its validation."""
TOWER_NEAR, TOWER_FAR = 2, 5
"""Frames, one a second."""
APART_S = 10.0
TOLERANCES = {"nordland": 10, "gardens_point": 2, "essex3in1": 0, "sped": 0}
NEAR = {"flat": Tolerance(1.0, "m"), "street": Tolerance(10.0, "m")}
ORDERED_LENGTH = 10


@dataclass(frozen=True)
class Task:
    """One row of sets in the table; `gap` as in `places.compare`; `barred` (Q, D) pairs are not compared."""

    name: str
    database: ImageSet
    queries: ImageSet
    truth: Truth
    gap: places.Gap | None = None
    barred: np.ndarray | None = None
    is_ordered: bool = True


class Pixels:
    """Down-sampled, patch-normalised grey values, as SeqSLAM compares them."""

    model = "pixels"

    def describe_many(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors (N, 2048)."""
        small = np.stack([cv2.resize(image, (64, 32), interpolation=cv2.INTER_AREA) for image in images])
        patches = small.reshape(-1, 4, 8, 8, 8).transpose(0, 1, 3, 2, 4).astype(np.float32)
        patches -= patches.mean(axis=(3, 4), keepdims=True)
        patches /= patches.std(axis=(3, 4), keepdims=True) + 1.0
        return unit(patches.reshape(len(images), -1))


class OrbWords:
    """A bag of visual words (Sivic and Zisserman, ICCV 2003) of ORB, as DBoW2 has it, without its tree."""

    model = "orb words"

    def __init__(self, photos: Path, words: int = 4096, features: int = 500):
        self._orb = cv2.ORB_create(features)
        files = sorted(file for name in PHOTOS for file in (photos / name).glob("*.jpg"))
        found = [self._features(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)) for file in files]
        bits = np.unpackbits(np.concatenate(found), axis=1).astype(np.float32)
        kmeans = faiss.Kmeans(256, words, niter=10, seed=1, max_points_per_centroid=40)
        kmeans.train(bits)
        self._words = faiss.IndexBinaryFlat(256)
        self._words.add(np.packbits(kmeans.centroids > 0.5, axis=1))
        self._idf = np.ones(words, np.float32)
        has_word = np.stack([self._count(each) for each in found]) > 0
        self._idf = np.log(len(files) / np.maximum(has_word.sum(axis=0), 1)).astype(np.float32)

    def describe_many(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors (N, words)."""
        return unit(np.stack([self._count(self._features(image)) * self._idf for image in images]))

    def _features(self, image: np.ndarray) -> np.ndarray:
        if image.shape[1] < 320:  # thumbnails: ORB needs room for its patches
            factor = 320 / image.shape[1]
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        found = self._orb.detectAndCompute(image, None)[1]
        return np.zeros((0, 32), np.uint8) if found is None else found

    def _count(self, descriptors: np.ndarray) -> np.ndarray:
        nearest = self._words.search(descriptors, 1)[1][:, 0] if len(descriptors) else np.zeros(0, np.int64)
        return np.bincount(nearest, minlength=len(self._idf)).astype(np.float32) / max(len(nearest), 1)


def public_tasks(data: Path) -> Iterator[Task]:
    """The sets of the catalogue that are there."""
    nordland = data / "nordland_64x32" / "nordland_64x32.npz"
    if nordland.is_file():
        yield pair_task("nordland", f"{nordland}:summer", f"{nordland}:winter")
    for name in ("gardens_point", "essex3in1", "sped"):
        for folder in sorted(data.glob(f"{name}*")):
            yield pair_task(name, folder / "reference", folder / "query")
    if (data / "ie_tower" / "index.csv").is_file():
        yield tower_task(data / "ie_tower", 0, TOWER_NEAR)
        yield tower_task(data / "ie_tower", TOWER_NEAR, TOWER_FAR)


def pair_task(name: str, database: Path | str, queries: Path | str) -> Task:
    """Image i of the database shows place i, as does image i of the queries."""
    sets = open_images(database), open_images(queries)
    return Task(name, *sets, by_index(*sets, TOLERANCES[name]), is_ordered=name in ("nordland", "gardens_point"))


def tower_task(folder: Path, beyond: int, within: int) -> Task:
    """Every fifth frame of the kept floors in the other frames of all floors, but those up to `beyond` s away."""
    with open(folder / "index.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    queries = [row for row in rows if row["split"] == "query" and row["floor"] in TOWER_FLOORS]
    database = [row for row in rows if row["split"] == "gallery"]
    video_q, video_d = (np.array([row["video"] for row in part]) for part in (queries, database))
    frame_q, frame_d = (np.array([int(row["frame"]) for row in part]) for part in (queries, database))
    apart = np.abs(frame_q[:, None] - frame_d)
    is_same = video_q[:, None] == video_d
    right = is_same & (apart > beyond) & (apart <= within)
    sets = (ImageSet(str(folder), tuple(row["path"] for row in part), folder) for part in (database, queries))
    truth = Truth(
        right, np.arange(len(queries)), np.arange(len(database)), f"{beyond + 1} to {within} s apart in the same video"
    )
    return Task(f"ie_tower {beyond + 1}-{within} s", *sets, truth, barred=is_same & (apart <= beyond), is_ordered=False)


def render_tasks(folder: Path) -> Iterator[Task]:
    """Each walk with itself, and with the same walk in other lights."""
    walks = []
    for file in sorted(folder.glob("*/info.json")):
        made = json.loads(file.read_text())["arguments"]
        walks.append((file.parent, made["scene"], (made["scene"], made["seed"], made["path"]), made["light"]))
    for walk, scene, world, light in walks:
        others = [each for each in walks if each[2] == world and each[0] != walk]
        images = open_images(walk)
        if not others:
            truth = open_truth(["poses"], images, images, NEAR[scene])
            yield Task(walk.name, images, images, truth, places.Gap(APART_S, "s"))
        for other, _, _, other_light in others if light == "plain" else []:
            queries = open_images(other)
            truth = open_truth(["poses"], images, queries, NEAR[scene])
            barred = np.abs(queries.timestamps[:, None] - images.timestamps) < APART_S
            truth = replace(truth, right=truth.right & ~barred)
            yield Task(f"{walk.name} in {other_light}", images, queries, truth, barred=barred)


def score(method: Any, task: Task) -> dict[str, Any]:
    """The figures of a method on a set."""
    database = describe(method, task.database)
    same = task.gap is not None
    similarity = (database if same else describe(method, task.queries)) @ database.T
    if task.barred is not None:
        similarity[task.barred] = -np.inf
    length = ORDERED_LENGTH if task.is_ordered else 0
    found = places.compare(task.database, task.queries, task.truth, method.model, similarity, task.gap, length)
    figures = found.scores["image"].figures()
    sequence = found.scores.get(f"sequence of {length}")
    return figures | {"rule": task.truth.rule, "sequence_auc": sequence.auc if sequence else None}


def cpu_ms(method: Any, images: list[np.ndarray]) -> float:
    """Median processor time of all threads for one image, ms."""
    method.describe_many(images[:1])
    times = []
    for image in images:
        began = time.process_time()
        method.describe_many([image])
        times.append(1e3 * (time.process_time() - began))
    return float(np.median(times))


def chosen_methods(names: list[str] | None, precisions: list[str], photos: Path) -> dict[str, Any]:
    """What is compared, by the name in the table."""
    names = names or ["pixels", "orb", *(name for name in ("gem", "cosplace", "netvlad") if name in manifest())]
    methods: dict[str, Any] = {}
    for name in names:
        if name in ("pixels", "orb"):
            method = Pixels() if name == "pixels" else OrbWords(photos)
            methods[method.model] = method
            continue
        for precision in precisions:
            label = name if precision == "auto" else f"{name} {precision}"
            methods[label] = make_place(PlaceConfig(name, {"precision": precision}))
    return methods


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED / "places")
    parser.add_argument("--photos", type=Path, default=SHARED / "photos")
    parser.add_argument("--renders", type=Path, help="folder of rendered walks")
    parser.add_argument("--methods", nargs="+", help="pixels, orb, gem, cosplace, netvlad (all that are there)")
    parser.add_argument("--sets", nargs="+", default=[""], help="only those whose names begin so")
    parser.add_argument("--precision", nargs="+", default=["auto"], help="of the networks")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)
    methods = chosen_methods(arguments.methods, arguments.precision, arguments.photos)
    files = sorted((ensure_sample() / "rgb").iterdir())[:60]
    sample = [cv2.resize(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), (640, 480)) for file in files]
    times = {name: cpu_ms(method, sample) for name, method in methods.items()}
    print("ms an image: " + ", ".join(f"{name} {ms:.1f}" for name, ms in times.items()), flush=True)
    print(f"\n{'set':22}{'queries':>8} {'method':16}    R@1    R@5   R@10    AUC  R at 100 % P   AUC of 10")
    rows = []
    tasks = [*public_tasks(arguments.data), *(render_tasks(arguments.renders) if arguments.renders else ())]
    for task in (task for task in tasks if task.name.startswith(tuple(arguments.sets))):
        for name, method in methods.items():
            found = score(method, task)
            rows.append({"set": task.name, "method": name, "ms": times[name], **found})
            recalls = "".join(f"{100 * found[f'recall_at_{n}']:7.1f}" for n in places.DEPTHS)
            sequence = "-" if found["sequence_auc"] is None else f"{found['sequence_auc']:.3f}"
            print(
                f"{task.name:22}{found['queries_with_match']:8} {name:16}{recalls}{found['auc']:7.3f}"
                f"{100 * found['recall_at_full_precision']:14.1f}{sequence:>12}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
