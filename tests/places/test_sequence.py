"""Sequence scores against walking every line by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vslam.places.sequence import MIN_SHARE, sequence_scores


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
