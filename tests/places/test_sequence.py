"""Sequence scores against walking every line by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vslam.places.index import PlaceIndex
from vslam.places.sequence import MIN_SHARE, Stretch, sequence_scores


def naive_scores(similarity, length, speeds):
    """Slow twin of `sequence_scores`."""
    queries, places = similarity.shape
    best = np.full((queries, places), -np.inf)
    for q in range(queries):
        for d in range(places):
            if not np.isfinite(similarity[q, d]):
                continue
            for speed in speeds:
                steps = range(min(length, q + 1))
                cells = [(q - i, d - round(speed * i)) for i in steps]
                inside = [similarity[cell] for cell in cells if 0 <= cell[1] < places]
                seen = [value for value in inside if np.isfinite(value)]
                if len(seen) >= MIN_SHARE * len(cells):
                    best[q, d] = max(best[q, d], np.mean(seen))
    return best


@given(
    st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 12), st.integers(1, 7),
    st.sampled_from([(1.0,), (0.8, 1.0, 1.2), (-1.0, 1.0), (0.0, 2.5)]),
)  # fmt: skip
def test_scores_are_those_of_every_line(seed, queries, places, length, speeds):
    rng = np.random.default_rng(seed)
    similarity = rng.normal(size=(queries, places))
    similarity[rng.random(similarity.shape) < 0.2] = -np.inf
    found = sequence_scores(similarity, length, speeds)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive_scores(similarity, length, speeds), rtol=1e-4, atol=1e-5)


def test_lines_of_one_image_change_nothing():
    similarity = np.random.default_rng(0).normal(size=(8, 9)).astype(np.float32)
    np.testing.assert_array_equal(sequence_scores(similarity, 1), similarity)


@pytest.mark.parametrize("step", [1, -1])
def test_a_stretch_is_found_that_single_images_miss(step):
    rng = np.random.default_rng(1)
    similarity = rng.normal(size=(60, 60)).astype(np.float32)
    order = np.arange(60)[::step]
    similarity[np.arange(60), order] += 2.0
    alone = (similarity.argmax(axis=1) == order).mean()
    together = (sequence_scores(similarity, 10, (float(step),)).argmax(axis=1) == order)[10:].mean()
    assert together > 0.95 > 0.6 > alone


# -- keyframes --------------------------------------------------------------------------------------------------

LENGTH, DIM = 6, 32


def way(seed: int, places: int = 40) -> np.ndarray:
    """Unit vectors (N, DIM) of places, each a little like the next."""
    steps = np.random.default_rng(seed).normal(size=(places + 2, DIM)).astype(np.float32)
    vectors = steps[2:] + steps[1:-1] + steps[:-2]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def looked_up(database: dict[int, np.ndarray], queries: np.ndarray, known: tuple[int, ...] = ()):
    """The best places of a stretch of keyframes that comes long after those of `database`, by id."""
    index = PlaceIndex(DIM, "made up")
    index.add(list(database), np.stack(list(database.values())))
    time = {place: float(place) for place in database}
    stretch = Stretch(LENGTH)
    for k, vector in enumerate(queries):
        stretch.add(vector, 1000.0 + k, known)
    return stretch.search(index, time, 5)


@pytest.mark.parametrize("step", [1, 2, -1, -2])
def test_a_stretch_of_keyframes_is_found_in_either_direction(step):
    """Keyframes at half or all of the places, most of the old ones since removed in one part of the way."""
    old = way(0)
    there = {k: vector for k, vector in enumerate(old) if k not in (3, 17, 21, 22)}
    end = 24
    ids, scores = looked_up(there, old[[end - step * back for back in range(LENGTH - 1, -1, -1)]])
    assert abs(ids[0] - end) <= 1 and scores[0] > 0.6
    assert (np.diff(scores) <= 0).all()


def test_a_place_that_only_looks_alike_is_ranked_below_a_stretch():
    """The last image is a twin of place 5, and a worse one of place 30, which the way there leads to."""
    old, noise = way(1), 0.5 * way(2)
    queries = old[25:31] + noise[25:31]
    queries[-1] = old[5] + 0.6 * old[30]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    alone = (old @ queries[-1]).argmax()
    assert alone == 5 and looked_up(dict(enumerate(old)), queries)[0][0] == 30


def test_known_and_young_places_are_not_compared():
    old = way(3)
    ids, _ = looked_up(dict(enumerate(old)), old[20:26], known=(24, 25, 26))
    assert not {24, 25, 26} & set(ids.tolist())
    assert len(looked_up({k + 2000: vector for k, vector in enumerate(old)}, old[20:26])[0]) == 0


def test_turning_round_is_no_revisit_until_the_way_back_is_old():
    """Out and back: places less than ten seconds old are left out of the line, which is too short then to count."""
    out = way(4)
    index, stretch = PlaceIndex(DIM, "made up"), Stretch(LENGTH)
    index.add(range(40), out)
    time = {k: float(k) for k in range(40)}
    best = {}
    for t in range(40, 50):
        stretch.add(out[79 - t], t - 10.0, ())
        ids, scores = stretch.search(index, time, 1)
        best[79 - t] = (ids[0], scores[0])
    assert all(score < 0.6 for place, (_, score) in best.items() if place > 33)
    assert best[30][0] == 30 and best[30][1] > 0.9
