"""`PlaceIndex`: which of the places seen so far looks like this one?"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vslam.errors import VslamError
from vslam.places.stores import Codes, Exact, Graph

Kind = Literal["auto", "exact", "codes", "hnsw"]
CODES_FROM = 20_000
"""Places from which `auto` compares codes: comparing the vectors takes half a millisecond of processor time here."""
Store = Exact | Codes | Graph
STORES: dict[str, type[Store]] = {store.kind: store for store in (Exact, Codes, Graph)}
MAGIC, VERSION = b"VSLAMPIX", 1
HEADER = struct.Struct("<8sI32sQ")
"""Magic, version, SHA-256 of all that follows it, bytes of the JSON header; then that header, then the store."""


class PlaceIndex:
    """Vectors of places by id, searched by inner product; any thread may add, remove and search.

    Args:
        dim: length of a vector.
        model: what made the vectors (`GlobalDescriptor.model`); those of another model are not comparable.
        kind: `exact` compares with every place; `codes` with short codes first, then exactly with the best of them;
            `hnsw` walks a graph, which takes long to build. `auto` begins exactly and changes to codes for good when
            there are more than `CODES_FROM` places. docs/places.md has times and what is missed.

    Attributes:
        notes: whatever is to be saved with the index, as JSON can hold it.
    """

    def __init__(self, dim: int, model: str, kind: Kind = "auto"):
        if kind != "auto" and kind not in STORES:
            raise VslamError(f"place index: kind '{kind}' is unknown; known: auto, {', '.join(STORES)}")
        self.dim, self.model, self.kind = dim, model, kind
        self.notes: dict[str, Any] = {}
        self._store: Store = STORES["exact" if kind == "auto" else kind](dim)
        self._known: set[int] = set()
        self._lock = threading.Lock()

    def add(self, ids: Iterable[int] | np.ndarray, vectors: np.ndarray) -> None:
        """Add places: ids (N,) of at least 0, none of them there yet, with vectors (N, dim); all or none.

        Raises:
            VslamError: an id repeats, is there already or is negative, or a vector is not finite.
        """
        ids, vectors = _as_ids(ids), self._checked(vectors)
        if len(ids) != len(vectors):
            raise VslamError(f"place index: {len(ids)} ids for {len(vectors)} vectors")
        new = set(ids.tolist())
        if len(new) < len(ids) or (len(ids) and min(new) < 0):
            raise VslamError(f"place index: an id repeats or is negative in {ids.tolist()[:10]}; ids are unique")
        with self._lock:
            if not new.isdisjoint(self._known):
                raise VslamError(f"place index: id {min(new & self._known)} is there already; remove it first")
            self._store.add(ids, vectors)
            self._known |= new
            if self.kind == "auto" and isinstance(self._store, Exact) and len(self._known) > CODES_FROM:
                content = self._store.content()
                self._store = Codes(self.dim)
                self._store.add(*content)

    def remove(self, ids: Iterable[int] | np.ndarray) -> int:
        """Forget places; returns how many of the ids (N,) were there."""
        with self._lock:
            there = self._known.intersection(_as_ids(ids).tolist())
            if there:
                self._store.remove(np.array(sorted(there), np.int64))
                self._known -= there
            return len(there)

    def search(
        self, vectors: np.ndarray, k: int, exclude: Iterable[int] | np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `k` most similar places of each vector (Q, dim), best first, none of `exclude`.

        Returns:
            ids (Q, k) int64 and scores (Q, k) float32, inner products; -1 and -inf where there are no more places.
        """
        vectors = self._checked(vectors)
        if k < 1:
            raise VslamError(f"place index: k is {k}; expected at least 1")
        left_out = _as_ids(() if exclude is None else exclude)
        with self._lock:
            ids, scores = self._store.search(vectors, k, left_out)
        return ids, np.where(ids >= 0, scores, np.float32(-np.inf))

    def vector(self, id: int) -> np.ndarray:
        """The vector (dim,) float32 of a place.

        Raises:
            KeyError: there is no such id.
        """
        with self._lock:
            if id not in self._known:
                raise KeyError(id)
            return self._store.vector(int(id))

    def content(self) -> tuple[np.ndarray, np.ndarray]:
        """All ids (N,) int64, rising, and their vectors (N, dim) float32."""
        with self._lock:
            ids, vectors = self._store.content()
        order = np.argsort(ids)
        return ids[order], vectors[order]

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, id: int) -> bool:
        return id in self._known

    @property
    def nbytes(self) -> int:
        """Memory held, bytes; the set of known ids is taken as 60 bytes each."""
        with self._lock:
            return self._store.nbytes + 60 * len(self._known)

    def to_bytes(self) -> bytes:
        """The index as `save` writes it."""
        with self._lock:
            facts = {"dim": self.dim, "model": self.model, "kind": self.kind, "notes": self.notes}
            facts |= {"store": self._store.kind, "rows": self._store.rows}
            content = self._store.to_bytes()
        header = json.dumps(facts, allow_nan=False).encode()
        size = struct.pack("<Q", len(header))
        checksum = hashlib.sha256(size)
        checksum.update(header)
        checksum.update(content)
        return MAGIC + struct.pack("<I", VERSION) + checksum.digest() + size + header + content

    @classmethod
    def from_bytes(cls, data: bytes, where: str, model: str | None = None) -> PlaceIndex:
        """The index of `to_bytes`; `where` names the source in errors, see `load`."""
        header, content = _unpack(data, where)
        try:
            facts = json.loads(header)
            index = cls(facts["dim"], facts["model"], facts["kind"])
            index.notes = facts["notes"]
            if model is None or index.model == model:
                index._store = STORES[facts["store"]].from_bytes(content, facts["dim"], facts["rows"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise VslamError(f"{where}: damaged place index ({' '.join(str(error).split())[:120]})") from None
        if model is not None and index.model != model:
            raise VslamError(f"{where}: made by {index.model}, not {model}; index the images again, or use its network")
        index._known = set(index._store.content()[0].tolist())
        return index

    def save(self, path: str | Path) -> None:
        """Write the index under a temporary name, sync, rename: the old file is whole until the new one is.

        Raises:
            VslamError: the folder does not exist or cannot be written.
        """
        file = Path(path)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as stream:
                stream.write(self.to_bytes())
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
        except OSError as error:
            raise VslamError(f"{file}: cannot be written: {error.strerror}") from None
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path, model: str | None = None) -> PlaceIndex:
        """The index of a file.

        Raises:
            VslamError: no such file, not an index, damaged, of a newer version, or of another model than `model`.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise VslamError(f"{path}: cannot be read: {error.strerror}; 'vslam place index' makes an index") from None
        return cls.from_bytes(data, str(path), model)

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (N, dim) as contiguous float32."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise VslamError(f"place index: vectors of shape {vectors.shape}, need (N, {self.dim})")
        if not np.isfinite(vectors).all():
            raise VslamError("place index: a vector holds numbers that are not finite")
        return vectors


def _as_ids(ids: Iterable[int] | np.ndarray) -> np.ndarray:
    """Ids (N,) int64."""
    return np.ascontiguousarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64).reshape(-1)


def _unpack(data: bytes, where: str) -> tuple[bytes, bytes]:
    """The header and the store's bytes, once the checksum agrees."""
    if data[: len(MAGIC)] != MAGIC:
        raise VslamError(f"{where}: not a place index; 'vslam place index' makes one")
    if len(data) < HEADER.size:
        raise VslamError(f"{where}: cut off place index ({len(data)} bytes); index the images again")
    _, version, checksum, size = HEADER.unpack_from(data)
    if version > VERSION:
        raise VslamError(f"{where}: place index of format {version}, this vslam reads up to {VERSION}; update vslam")
    body = memoryview(data)[HEADER.size - 8 :]
    if hashlib.sha256(body).digest() != checksum:
        raise VslamError(f"{where}: damaged or cut off place index (checksum differs); index the images again")
    return bytes(body[8 : 8 + size]), bytes(body[8 + size :])
