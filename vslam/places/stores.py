"""The two ways in which faiss keeps vectors for `PlaceIndex`: all compared, or a graph that is walked."""

from __future__ import annotations

from typing import ClassVar

import faiss
import numpy as np

LINKS = 32
"""Neighbours of a vector in the graph (twice as many on its lowest level)."""
BUILD_WIDTH, SEARCH_WIDTH = 80, 128
"""Candidates kept while a vector is added, and while one is looked for: `python -m benchmarks.place_index`."""
DEAD_SHARE = 0.25
"""The graph is built anew when this part of it has been removed."""


class Exact:
    """Every vector is compared."""

    kind: ClassVar[str] = "exact"

    def __init__(self, dim: int):
        self.index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """Ids (N,) int64, none there yet, with vectors (N, dim) float32."""
        self.index.add_with_ids(vectors, ids)

    def remove(self, ids: np.ndarray) -> None:
        """Ids (N,) int64, all of them there."""
        self.index.remove_ids(faiss.IDSelectorBatch(ids))

    def search(self, vectors: np.ndarray, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and inner products (Q, k), best first; -1 where there is none."""
        params = None
        if len(exclude):
            left_out = faiss.IDSelectorBatch(exclude)
            chosen = faiss.IDSelectorNot(left_out)
            params = faiss.SearchParameters(sel=chosen)
        scores, ids = self.index.search(vectors, k, params=params)
        return ids, scores

    def vector(self, id: int) -> np.ndarray:
        """The vector (dim,) of an id that is there."""
        return self.index.reconstruct(id)

    def content(self) -> tuple[np.ndarray, np.ndarray]:
        """All ids (N,) and vectors (N, dim)."""
        flat = faiss.downcast_index(self.index.index)
        return faiss.vector_to_array(self.index.id_map), flat.reconstruct_n(0, flat.ntotal)

    @property
    def nbytes(self) -> int:
        """Vectors, ids, and the map from id to row (a hash node of about 32 bytes each)."""
        return self.index.ntotal * (self.index.d * 4 + 8 + 32)

    @property
    def rows(self) -> int:
        """Vectors kept."""
        return self.index.ntotal

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads: the ids, then the vectors."""
        ids, vectors = self.content()
        return ids.tobytes() + vectors.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, dim: int, rows: int) -> Exact:
        """Raises ValueError for bytes of another length."""
        store = cls(dim)
        vectors = np.frombuffer(data, np.float32, offset=8 * rows).reshape(rows, dim)
        store.add(np.frombuffer(data, np.int64, rows), vectors)
        return store


class Graph:
    """A navigable graph (HNSW; Malkov and Yashunin, PAMI 2018) over rows; removed rows stay as stepping stones."""

    kind: ClassVar[str] = "hnsw"

    def __init__(self, dim: int):
        self._begin(dim)

    def _begin(self, dim: int) -> None:
        self.index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = BUILD_WIDTH
        self._ids = np.zeros(0, np.int64)
        self._rows: dict[int, int] = {}
        self._dead: set[int] = set()  # rows

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """As `Exact.add`."""
        first = self.index.ntotal
        self.index.add(vectors)
        if first + len(ids) > len(self._ids):  # grown by doubling
            self._ids = np.resize(self._ids, max(2 * len(self._ids), first + len(ids))) if first else ids.copy()
        self._ids[first : first + len(ids)] = ids
        self._rows.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))

    def remove(self, ids: np.ndarray) -> None:
        """As `Exact.remove`."""
        self._dead.update(self._rows.pop(id) for id in ids.tolist())
        if len(self._dead) > DEAD_SHARE * self.index.ntotal:
            ids, vectors = self.content()
            self._begin(self.index.d)
            self.add(ids, vectors)

    def search(self, vectors: np.ndarray, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Exact.search`, but a near one may be missed."""
        left_out = self._dead.union(row for row in map(self._rows.get, exclude.tolist()) if row is not None)
        chosen, selector = None, None
        if left_out:
            allowed = np.ones(self.index.ntotal, bool)
            allowed[list(left_out)] = False
            chosen = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(chosen)
        params = faiss.SearchParametersHNSW(sel=selector, efSearch=max(SEARCH_WIDTH, 2 * k))
        scores, rows = self.index.search(vectors, k, params=params)
        ids = np.full(rows.shape, -1, np.int64)
        ids[rows >= 0] = self._ids[rows[rows >= 0]]
        return ids, scores

    def vector(self, id: int) -> np.ndarray:
        """As `Exact.vector`."""
        return self.index.reconstruct(self._rows[id])

    def content(self) -> tuple[np.ndarray, np.ndarray]:
        """As `Exact.content`."""
        rows = np.fromiter(self._rows.values(), np.int64, len(self._rows))
        return self._ids[rows], self.index.reconstruct_batch(rows).reshape(-1, self.index.d)

    @property
    def nbytes(self) -> int:
        """Vectors, links, ids, and the map from id to row (about 100 bytes an entry of a Python dictionary)."""
        links = self.index.hnsw.neighbors.size() * 4 + self.index.hnsw.offsets.size() * 8 + self.index.ntotal * 4
        return self.index.ntotal * self.index.d * 4 + links + self._ids.nbytes + 100 * len(self._rows)

    def to_bytes(self) -> bytes:
        """What `from_bytes` reads: the ids of all rows, -1 for removed ones, then the graph."""
        ids = self._ids[: self.index.ntotal].copy()
        ids[list(self._dead)] = -1
        return ids.tobytes() + faiss.serialize_index(self.index).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, dim: int, rows: int) -> Graph:
        """Raises RuntimeError or ValueError for bytes that are no graph of so many rows, removed ones included."""
        store = cls(dim)
        index = faiss.deserialize_index(np.frombuffer(data, np.uint8, offset=8 * rows))
        if not isinstance(index, faiss.IndexHNSWFlat) or (index.d, index.ntotal) != (dim, rows):
            raise ValueError(f"holds {type(index).__name__} of {index.ntotal} vectors")
        store.index = index
        store._ids = np.frombuffer(data[: 8 * rows], np.int64).copy()
        store._rows = {id: row for row, id in enumerate(store._ids.tolist()) if id >= 0}
        store._dead = set(np.flatnonzero(store._ids < 0).tolist())
        return store

    @property
    def rows(self) -> int:
        """Vectors in the graph, removed ones included."""
        return self.index.ntotal
