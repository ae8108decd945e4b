"""The ways to keep vectors for `PlaceIndex`: all compared, all compared roughly and the best again, or a graph."""

from __future__ import annotations

from typing import ClassVar

import faiss
import numpy as np

CANDIDATES = 200
"""The best by their codes, which are compared exactly."""
TRAIN_FROM, TRAIN_ON = 2000, 10_000
"""Codes are made from so many vectors on, from so many of them at most, and anew whenever there are twice as many."""
LINKS = 32
"""Neighbours of a vector in the graph (twice as many on its lowest level)."""
BUILD_WIDTH, SEARCH_WIDTH = 80, 128
"""Candidates kept while a vector is added, and while one is looked for: `python -m benchmarks.place_index`."""
DEAD_SHARE = 0.25
"""Codes and graph are made anew when this part of them has been removed."""


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
        store.add(*_ids_and_vectors(data, dim, rows))
        return store


class Codes:
    """Every vector is compared by a short code, 4 bits for two numbers; the most promising ones are compared exactly.

    Product quantisation scanned in registers (Andre et al., ICMR 2017).
    """

    kind: ClassVar[str] = "codes"

    def __init__(self, dim: int):
        self.dim = dim
        self._begin(np.zeros(0, np.int64), np.zeros((0, dim), np.float32))

    def _begin(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        self._ids, self._vectors, self._used = ids, vectors, len(ids)  # grown by a quarter; so many rows are in use
        self._is_free = np.ones(self._used, bool)  # rows that may be found; removed ones may not
        self._row_of = dict(zip(ids.tolist(), range(self._used), strict=True))
        self._codes, self._train_at = None, TRAIN_FROM
        if self._used >= self._train_at:
            self._train()

    def add(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        """As `Exact.add`."""
        first, self._used = self._used, self._used + len(ids)
        if self._used > len(self._ids):
            more = max(self._used, len(self._ids) * 5 // 4) - len(self._ids)
            self._ids = np.concatenate([self._ids, np.zeros(more, np.int64)])
            self._vectors = np.concatenate([self._vectors, np.zeros((more, self.dim), np.float32)])
        self._ids[first : self._used], self._vectors[first : self._used] = ids, vectors
        self._is_free = np.concatenate([self._is_free, np.ones(len(ids), bool)])
        self._row_of.update(zip(ids.tolist(), range(first, self._used), strict=True))
        if self._used >= self._train_at:
            self._train()
        elif self._codes is not None:
            self._codes.add(vectors)

    def remove(self, ids: np.ndarray) -> None:
        """As `Exact.remove`."""
        self._is_free[[self._row_of.pop(id) for id in ids.tolist()]] = False
        if len(self._row_of) < (1 - DEAD_SHARE) * self._used:
            self._begin(*self.content())

    def search(self, vectors: np.ndarray, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Exact.search`, but a near one may be missed."""
        is_free = self._is_free.copy()
        is_free[[self._row_of[id] for id in exclude.tolist() if id in self._row_of]] = False
        ids = np.full((len(vectors), k), -1, np.int64)
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        for query, vector in enumerate(vectors):
            rows = self._promising(vector, k + CANDIDATES, is_free)
            exact = self._vectors[rows] @ vector
            best = np.argsort(-exact, kind="stable")[:k]
            ids[query, : len(best)], scores[query, : len(best)] = self._ids[rows[best]], exact[best]
        return ids, scores

    def vector(self, id: int) -> np.ndarray:
        """As `Exact.vector`."""
        return self._vectors[self._row_of[id]].copy()

    def content(self) -> tuple[np.ndarray, np.ndarray]:
        """As `Exact.content`."""
        rows = np.flatnonzero(self._is_free)
        return self._ids[rows], self._vectors[rows]

    @property
    def rows(self) -> int:
        """As `Exact.rows`."""
        return len(self._row_of)

    @property
    def nbytes(self) -> int:
        """Vectors, ids, codes, and the map from id to row (about 100 bytes an entry of a Python dictionary)."""
        codes = 0 if self._codes is None else self._used * self.dim // 4
        return self._vectors.nbytes + self._ids.nbytes + self._is_free.nbytes + codes + 100 * self.rows

    def to_bytes(self) -> bytes:
        """As `Exact.to_bytes`: codes are made anew."""
        ids, vectors = self.content()
        return ids.tobytes() + vectors.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, dim: int, rows: int) -> Codes:
        """As `Exact.from_bytes`."""
        store = cls(dim)
        store._begin(*(each.copy() for each in _ids_and_vectors(data, dim, rows)))
        return store

    def _promising(self, vector: np.ndarray, wanted: int, is_free: np.ndarray) -> np.ndarray:
        """Rows, about `wanted` of those that are free, that may be the most similar ones."""
        if self._codes is None or wanted >= is_free.sum():
            return np.flatnonzero(is_free)
        asked = wanted if is_free.all() else 2 * wanted
        while True:
            rows = self._codes.search(vector[None], min(asked, self._used))[1][0]
            free = rows[(rows >= 0) & is_free[rows]]
            if len(free) >= wanted or asked >= self._used:
                return free
            asked *= 2  # the best were among the others

    def _train(self) -> None:
        parts = self.dim if self.dim % 2 else self.dim // 2
        codes = faiss.IndexPQFastScan(self.dim, parts, 4, faiss.METRIC_INNER_PRODUCT)
        codes.pq.cp.niter = 10
        codes.train(self._vectors[: self._used : -(-self._used // TRAIN_ON)])
        codes.add(self._vectors[: self._used])
        self._codes, self._train_at = codes, 2 * self._used


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


def _ids_and_vectors(data: bytes, dim: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.frombuffer(data, np.int64, rows)
    return ids, np.frombuffer(data, np.float32, offset=8 * rows).reshape(rows, dim)
