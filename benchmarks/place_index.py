"""`PlaceIndex` by number of places: `python -m benchmarks.place_index [--kinds exact codes hnsw] [--json FILE]`.

Made-up descriptors of 256 numbers. `walk`: a camera strays through a space of 16 hidden dimensions that a fixed random
network turns into descriptors; queries are revisits, the same hidden places a little beside. `random`: directions
without any order, and queries that resemble none of them; the hardest there is, and no descriptor is so bad.
Processor milliseconds of the calling thread (faiss has one), medians over single queries; recall@1 against exact
search.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from vslam.places.index import PlaceIndex

DIM, HIDDEN, QUERIES = 256, 16, 400
NEIGHBOURS = 300
"""Ids left out of a query, as loop closing leaves out what is in view."""


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def walk(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places (count, DIM) along a path that stays within a ball, and revisits (QUERIES, DIM)."""
    layers = rng.normal(size=(HIDDEN, 64)), rng.normal(size=(64, DIM))

    def describe(hidden: np.ndarray) -> np.ndarray:
        return unit(np.maximum(hidden @ layers[0], 0.0) @ layers[1] + 0.5 * rng.normal(size=(len(hidden), DIM)))

    hidden = np.empty((count, HIDDEN))
    here = rng.normal(size=HIDDEN)
    for row, step in enumerate(rng.normal(scale=0.1, size=(count, HIDDEN))):
        here = 0.995 * here + step
        hidden[row] = here
    visited = hidden[rng.integers(0, count, QUERIES)]
    return describe(hidden), describe(visited + 0.05 * rng.normal(size=visited.shape))


def random(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places (count, DIM) and queries (QUERIES, DIM) without order."""
    return unit(rng.normal(size=(count, DIM))), unit(rng.normal(size=(QUERIES, DIM)))


def median_ms(function: Callable[[np.ndarray], object], rows: np.ndarray) -> float:
    times = []
    for row in rows:
        began = time.thread_time()
        function(row[None])
        times.append(1e3 * (time.thread_time() - began))
    return float(np.median(times))


def measure(kind: str, places: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Building, asking, leaving out, removing; `truth` (QUERIES,) are the rows of the most similar places."""
    index, count = PlaceIndex(DIM, "benchmark", kind), len(places)
    began = time.thread_time()
    index.add(np.arange(count - 100), places[:-100])
    build_s = time.thread_time() - began
    began = time.thread_time()
    for id in range(count - 100, count):
        index.add([id], places[id : id + 1])
    add_ms = 10 * (time.thread_time() - began)
    found = {
        "build_s": build_s,
        "add_ms": add_ms,
        "query_ms": median_ms(lambda row: index.search(row, 10), queries),
        "excluding_ms": median_ms(lambda row: index.search(row, 10, np.arange(count - NEIGHBOURS, count)), queries),
        "recall_at_1": float((index.search(queries, 1)[0][:, 0] == truth).mean()),
        "bytes_per_place": index.nbytes / count,
    }
    gone = np.setdiff1d(np.arange(0, count, 10), truth)
    began = time.thread_time()
    index.remove(gone[:1])
    remove_ms = 1e3 * (time.thread_time() - began)
    index.remove(gone[1:])
    removed = {
        "remove_ms": remove_ms,
        "removed_query_ms": median_ms(lambda row: index.search(row, 10), queries),
        "removed_recall_at_1": float((index.search(queries, 1)[0][:, 0] == truth).mean()),
    }
    return found | removed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 20_000, 50_000, 100_000])
    parser.add_argument("--kinds", nargs="+", default=["exact", "codes"], help="hnsw takes minutes to build")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    rows = []
    head = "build s   add ms  query ms   excl. ms  recall@1  remove ms  then query ms  recall@1   bytes/place"
    print(f"{'data':8}{'places':>8} {'kind':6} {head}")
    for make in (walk, random):
        for count in arguments.counts:
            places, queries = make(count, np.random.default_rng(0))
            truth = np.concatenate([(part @ places.T).argmax(axis=1) for part in np.array_split(queries, 8)])
            for kind in arguments.kinds:
                found = measure(kind, places, queries, truth)
                rows.append({"data": make.__name__, "places": count, "kind": kind, **found})
                print(
                    f"{make.__name__:8}{count:8} {kind:6}{found['build_s']:8.2f} {found['add_ms']:8.3f}"
                    f"{found['query_ms']:10.3f}{found['excluding_ms']:11.3f}{found['recall_at_1']:10.3f}"
                    f"{found['remove_ms']:11.3f}{found['removed_query_ms']:15.3f}{found['removed_recall_at_1']:10.3f}"
                    f"{found['bytes_per_place']:14.0f}",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
