"""The place index against comparing everything by hand."""

import threading

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vslam.errors import VslamError
from vslam.places import index as place_index
from vslam.places import stores
from vslam.places.index import PlaceIndex

DIM = 24
KINDS = ("exact", "codes", "hnsw")


def directions(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def filled(kind: str, count: int = 200) -> tuple[PlaceIndex, np.ndarray, np.ndarray]:
    """An index of vectors under ids 1000, 1007, ..."""
    ids, vectors = 1000 + 7 * np.arange(count), directions(count)
    index = PlaceIndex(DIM, "net-1", kind)
    index.add(ids, vectors)
    return index, ids, vectors


@pytest.fixture(autouse=True)
def codes_of_few(monkeypatch):
    """Codes are made of many vectors; here of few, and the few best by their codes are compared. faiss has one thread,
    as in a run: several that wait for each other take long on a busy machine."""
    faiss.omp_set_num_threads(1)
    monkeypatch.setattr(stores, "TRAIN_FROM", 30)
    monkeypatch.setattr(stores, "CANDIDATES", 100)


def naive_search(ids, vectors, queries, k, exclude=()):
    """Slow twin of `PlaceIndex.search`."""
    kept = [row for row, id in enumerate(ids) if id not in set(exclude)]
    scores = queries @ vectors[kept].T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found, best = np.asarray(ids)[kept][order], np.take_along_axis(scores, order, axis=1)
    missing = ((0, 0), (0, k - found.shape[1]))
    return np.pad(found, missing, constant_values=-1), np.pad(best, missing, constant_values=-np.inf)


@pytest.mark.parametrize("kind", KINDS)
def test_search_finds_what_comparing_all_finds(kind):
    index, ids, vectors = filled(kind)
    queries = directions(30, seed=1)
    found, scores = index.search(queries, 5)
    expected, best = naive_search(ids, vectors, queries, 5)
    assert found.dtype == np.int64 and scores.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, best, atol=1e-6)


@settings(max_examples=25)
@given(st.data(), st.sampled_from(KINDS))
def test_any_history_leaves_what_a_dictionary_would_hold(data, kind):
    pool, rng = directions(60, seed=3), np.random.default_rng(data.draw(st.integers(0, 1000)))
    index, twin = PlaceIndex(DIM, "net-1", kind), {}
    for _ in range(data.draw(st.integers(1, 12))):
        if data.draw(st.booleans()) or not twin:
            new = [id for id in rng.permutation(60)[:9].tolist() if id not in twin]
            index.add(new, pool[new])
            twin |= {id: pool[id] for id in new}
        else:
            gone = rng.permutation(60)[: data.draw(st.integers(1, 20))].tolist()
            assert index.remove(gone) == len(twin.keys() & set(gone))
            twin = {id: vector for id, vector in twin.items() if id not in gone}
    assert len(index) == len(twin) and all(id in index for id in twin) and 99 not in index
    exclude = rng.permutation(60)[:5].tolist()
    ids, vectors = list(twin), np.array(list(twin.values()), np.float32).reshape(-1, DIM)
    queries = directions(4, seed=5)
    found, _ = index.search(queries, 7, exclude=exclude)
    np.testing.assert_array_equal(found, naive_search(ids, vectors, queries, 7, exclude)[0])
    for id, vector in twin.items():
        np.testing.assert_array_equal(index.vector(id), vector)
    np.testing.assert_array_equal(index.content()[0], sorted(twin))


@pytest.mark.parametrize("kind", ["codes", "hnsw"])
def test_nearly_all_of_many_are_found(kind):
    vectors = directions(5000, seed=7)
    index = PlaceIndex(DIM, "net-1", kind)
    index.add(np.arange(4000), vectors[:4000])
    index.add(np.arange(4000, 5000), vectors[4000:])  # after the codes were trained
    noisy = vectors[::10] + 0.3 * directions(500, seed=8)
    expected = naive_search(np.arange(5000), vectors, noisy, 1)[0][:, 0]
    assert (index.search(noisy, 1)[0][:, 0] == expected).mean() >= 0.95
    gone = np.setdiff1d(np.arange(0, 5000, 3), expected)
    index.remove(gone)
    assert (index.search(noisy, 1)[0][:, 0] == expected).mean() >= 0.95
    assert not np.isin(index.search(noisy, 20)[0], gone).any()


def test_codes_are_searched_beyond_what_is_excluded():
    vectors = directions(3000, seed=9)
    index = PlaceIndex(DIM, "net-1", "codes")
    index.add(np.arange(3000), vectors)
    query = vectors[:1]
    nearest = naive_search(np.arange(3000), vectors, query, 1500)[0][0]
    found, _ = index.search(query, 3, exclude=nearest[:900])
    expected = naive_search(np.arange(3000), vectors, query, 3, nearest[:900].tolist())[0]
    np.testing.assert_array_equal(found, expected)
    assert (index.search(query, 3, exclude=np.arange(3000))[0] == -1).all()


def test_vectors_of_odd_length_have_codes():
    index = PlaceIndex(7, "net-1", "codes")
    index.add(range(300), directions(300, dim=7))
    np.testing.assert_array_equal(index.search(directions(300, dim=7), 1)[0][:, 0], np.arange(300))


def test_auto_changes_to_codes_and_answers_as_before(monkeypatch):
    monkeypatch.setattr(place_index, "CODES_FROM", 2500)
    index, vectors = PlaceIndex(DIM, "net-1"), directions(3000)
    index.add(range(2500), vectors[:2500])
    assert index._store.kind == "exact"
    index.add(range(2500, 3000), vectors[2500:])
    assert index._store.kind == "codes" and len(index) == 3000
    np.testing.assert_array_equal(index.search(vectors, 1)[0][:, 0], np.arange(3000))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_is_minus_one(kind):
    index = PlaceIndex(DIM, "net-1", kind)
    ids, scores = index.search(directions(2), 3)
    assert (ids == -1).all() and (scores == -np.inf).all() and ids.shape == (2, 3)
    index.add([5], directions(1))
    ids, scores = index.search(directions(1), 3)
    np.testing.assert_array_equal(ids, [[5, -1, -1]])
    assert scores[0, 0] == pytest.approx(1.0, abs=1e-6) and (scores[0, 1:] == -np.inf).all()
    assert (index.search(directions(1), 3, exclude=[5])[0] == -1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_refused_places_leave_the_index_as_it_was(kind):
    index, _, vectors = filled(kind, 10)
    spoiled = vectors[:1].copy()
    spoiled[0, 3] = np.nan
    with pytest.raises(VslamError, match="id 1007 is there already"):
        index.add([1, 1007], vectors[:2])
    with pytest.raises(VslamError, match="repeats or is negative"):
        index.add([2, 2], vectors[:2])
    with pytest.raises(VslamError, match="repeats or is negative"):
        index.add([-1], vectors[:1])
    with pytest.raises(VslamError, match="2 ids for 1 vectors"):
        index.add([1, 2], vectors[:1])
    with pytest.raises(VslamError, match="not finite"):
        index.add([1], spoiled)
    with pytest.raises(VslamError, match="not finite"):
        index.search(spoiled, 1)
    with pytest.raises(VslamError, match=rf"shape \(1, 5\), need \(N, {DIM}\)"):
        index.search(vectors[:1, :5], 1)
    with pytest.raises(VslamError, match="k is 0"):
        index.search(vectors[:1], 0)
    with pytest.raises(KeyError):
        index.vector(1)
    assert len(index) == 10 and 1 not in index


def test_unknown_kind_is_named():
    with pytest.raises(VslamError, match="kind 'tree' is unknown"):
        PlaceIndex(DIM, "net-1", "tree")


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_index_comes_back(kind, tmp_path):
    index, ids, vectors = filled(kind)
    index.remove(ids[::9])
    index.notes = {"images": ["a/1.png", "\u00e4.png"], "place": "gem"}
    index.save(tmp_path / "places.index")
    again = PlaceIndex.load(tmp_path / "places.index", model="net-1")
    assert (again.dim, again.model, again.kind, again.notes) == (DIM, "net-1", kind, index.notes)
    assert len(again) == len(index) and ids[9] not in again and ids[1] in again
    for a, b in zip(index.search(vectors, 4), again.search(vectors, 4), strict=True):
        np.testing.assert_array_equal(a, b)
    again.add(ids[::9], vectors[::9])
    np.testing.assert_array_equal(again.search(vectors, 1)[0][:, 0], ids)
    assert [file.name for file in tmp_path.iterdir()] == ["places.index"]


@pytest.mark.parametrize("kind", KINDS)
def test_any_cut_or_flipped_bit_is_one_line(kind, tmp_path):
    index, _, _ = filled(kind, 40)
    data, file = index.to_bytes(), tmp_path / "places.index"
    rng = np.random.default_rng(0)
    for size in [0, 4, 20, 51, 60, *rng.integers(52, len(data), 20).tolist(), len(data) - 1]:
        file.write_bytes(data[:size])
        with pytest.raises(VslamError, match=r"places\.index: (not a|cut off|damaged or cut off) place index"):
            PlaceIndex.load(file)
    for place in [0, 9, 13, 46, *rng.integers(52, len(data), 40).tolist()]:
        spoiled = bytearray(data)
        spoiled[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(spoiled)
        with pytest.raises(VslamError) as caught:
            PlaceIndex.load(file)
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_other_versions_models_and_places_are_refused(tmp_path):
    index, _, _ = filled("exact", 5)
    file = tmp_path / "places.index"
    data = bytearray(index.to_bytes())
    data[8] = 2
    file.write_bytes(data)
    with pytest.raises(VslamError, match=r"format 2, this vslam reads up to 1; update vslam"):
        PlaceIndex.load(file)
    index.save(file)
    with pytest.raises(VslamError, match=r"made by net-1, not net-2"):
        PlaceIndex.load(file, model="net-2")
    with pytest.raises(VslamError, match="No such file"):
        PlaceIndex.load(tmp_path / "none.index")
    with pytest.raises(VslamError, match="cannot be written"):
        index.save(tmp_path / "nowhere" / "places.index")


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    index, ids, _ = filled("exact", 5)
    file = tmp_path / "places.index"
    index.save(file)
    index.remove(ids)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place_index.os, "fsync", full)
    with pytest.raises(VslamError, match="No space left"):
        index.save(file)
    assert len(PlaceIndex.load(file)) == 5
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("kind", KINDS)
def test_threads_add_remove_and_search_at_once(kind):
    vectors = directions(600)
    index, wrong = PlaceIndex(DIM, "net-1", kind), []
    index.add(range(100), vectors[:100])

    def add() -> None:
        for id in range(100, 600):
            index.add([id], vectors[id : id + 1])
            if id % 3 == 0:
                index.remove([id])

    def search() -> None:
        for row in range(300):
            found, scores = index.search(vectors[row % 100][None], 3)
            if found[0, 0] != row % 100 or not scores[0, 0] > 0.999:
                wrong.append(row)

    threads = [threading.Thread(target=work) for work in (add, search, search)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(index) == 600 - len([id for id in range(100, 600) if id % 3 == 0])


def test_memory_is_stated():
    sizes = {kind: filled(kind, 200)[0].nbytes for kind in KINDS}
    assert all(200 * DIM * 4 < size < 200 * (DIM * 4 + 1000) for size in sizes.values())
    assert sizes["exact"] < sizes["hnsw"]
