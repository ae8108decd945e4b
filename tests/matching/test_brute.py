"""Nearest neighbours between whole sets, against all distances written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive
from vslam.matching.brute import nearest

no_deadline = settings(deadline=None)  # the first call compiles
sizes = st.integers(0, 12)


def bits(count: int, seed: int, alphabet: int) -> np.ndarray:
    """Descriptors of 16 bytes; a small alphabet makes equal distances, and equal descriptors, likely."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, alphabet, (count, 16), np.uint8, endpoint=True)


def units(count: int, seed: int, size: int = 32) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def check(a: np.ndarray, b: np.ndarray, tolerance: float) -> None:
    index, best, second, back = nearest(a, b)
    d = naive.distances(a, b)
    assert (index.dtype, best.dtype, second.dtype, back.dtype) == (np.int32, np.float32, np.float32, np.int32)
    assert (len(index), len(best), len(second), len(back)) == (len(a), len(a), len(a), len(b))
    if not len(a) or not len(b):
        assert (index == -1).all() and np.isinf(best).all() and np.isinf(second).all() and (back == -1).all()
        return
    ordered = np.sort(np.concatenate([d, np.full((len(a), 1), np.inf)], axis=1), axis=1)
    np.testing.assert_allclose(best, ordered[:, 0], atol=tolerance)
    np.testing.assert_allclose(second, ordered[:, 1], atol=tolerance)
    np.testing.assert_allclose(d[np.arange(len(a)), index], ordered[:, 0], atol=tolerance)
    np.testing.assert_allclose(d[back, np.arange(len(b))], d.min(axis=0), atol=tolerance)
    if tolerance == 0:  # of equals the first
        assert np.array_equal(index, d.argmin(axis=1)) and np.array_equal(back, d.argmin(axis=0))


@no_deadline
@given(sizes, sizes, st.integers(0, 999), st.sampled_from([1, 3, 255]))
def test_hamming_equals_naive_twin(n, m, seed, alphabet):
    check(bits(n, seed, alphabet), bits(m, seed + 1, alphabet), 0)


@no_deadline
@given(sizes, sizes, st.integers(0, 999))
def test_float_equals_naive_twin(n, m, seed):
    # sums of 32 products of float32 below 1
    check(units(n, seed), units(m, seed + 1), 4 * 32 * np.finfo(np.float32).eps)


def test_words_and_bytes_are_the_same_descriptors():
    a, b = bits(20, 0, 255), bits(30, 1, 255)
    for one, other in zip(nearest(a, b), nearest(a.view(np.uint64), b.view(np.uint64)), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("make", [lambda n, s: bits(n, s, 255), units])
def test_layout_of_the_arrays_does_not_matter(make):
    a, b = make(20, 0), make(30, 1)
    for other in (np.asfortranarray(a), np.repeat(a, 2, axis=0)[::2]):
        assert np.array_equal(nearest(other, b)[0], nearest(a, b)[0])


def test_distance_to_itself_is_zero():
    for a in (bits(10, 3, 255), units(10, 3)):
        index, best, *_ = nearest(a, a)
        assert np.array_equal(index, np.arange(10))
        np.testing.assert_allclose(best, 0, atol=1e-6)
