"""Matchers: laws of mutual and ratio matching, and planted truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive
from tests.world import make_features
from vslam.errors import VslamError
from vslam.matching.matcher import MutualMatcher, RatioMatcher
from vslam.types import Features

no_deadline = settings(deadline=None)  # the first call compiles
MATCHERS = [MutualMatcher(), RatioMatcher(), MutualMatcher(40.0), RatioMatcher(40.0, 0.7)]


def featured(descriptors: np.ndarray) -> Features:
    return make_features(np.zeros((len(descriptors), 2)), descriptors)


def random_bits(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8), np.uint8)


def random_units(count: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@no_deadline
@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 999), st.sampled_from([random_bits, random_units]))
def test_mutual_pairs_are_nearest_both_ways(n, m, seed, make):
    a, b = make(n, seed), make(m, seed + 1)
    matches = MutualMatcher().match(featured(a), featured(b))
    d = naive.distances(a, b)
    expected = [(i, d[i].argmin()) for i in range(n) if m and d[:, d[i].argmin()].argmin() == i]
    assert matches.pairs.tolist() == [list(map(int, pair)) for pair in expected]
    assert (matches.pairs.dtype, matches.distance.dtype) == (np.int32, np.float32)
    np.testing.assert_allclose(matches.distance, [d[i, j] for i, j in expected], atol=1e-5)


@no_deadline
@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 999), st.sampled_from(MATCHERS))
def test_matches_are_one_to_one_and_near(n, m, seed, matcher):
    matches = matcher.match(featured(random_bits(n, seed)), featured(random_bits(m, seed + 1)))
    assert matches.pairs.shape == (len(matches), 2) and len(matches.distance) == len(matches)
    assert all(len(set(column)) == len(matches) for column in matches.pairs.T)
    assert (matches.distance <= (matcher.max_distance or np.inf)).all()


@no_deadline
@given(st.integers(1, 15), st.integers(1, 15), st.integers(0, 999))
def test_swapping_the_sets_swaps_the_pairs(n, m, seed):
    a, b = featured(random_units(n, seed)), featured(random_units(m, seed + 1))  # no two distances are equal
    there, back = MutualMatcher().match(a, b), MutualMatcher().match(b, a)
    assert sorted(map(tuple, there.pairs)) == sorted((i, j) for j, i in back.pairs)


@no_deadline
@given(st.integers(2, 15), st.integers(2, 15), st.integers(0, 999), st.floats(0.3, 1.0))
def test_ratio_is_of_euclidean_distances_or_bits(n, m, seed, ratio):
    for make, root in ((random_bits, lambda d: d), (random_units, np.sqrt)):
        a, b = make(n, seed), make(m, seed + 1)
        mutual, strict = (x.match(featured(a), featured(b)).pairs for x in (MutualMatcher(), RatioMatcher(None, ratio)))
        quotient = {}
        for i, j in mutual:
            d = np.sort(root(np.maximum(naive.distances(a[i : i + 1], b)[0], 0)))
            quotient[i, j] = d[0] / d[1] if d[1] else 1.0
        kept = set(map(tuple, strict))
        assert kept <= set(quotient)
        assert all(q < ratio + 1e-4 for pair, q in quotient.items() if pair in kept)
        assert all(q > ratio - 1e-4 for pair, q in quotient.items() if pair not in kept)


@pytest.mark.parametrize("matcher", [MutualMatcher(64.0), RatioMatcher(64.0)])
def test_planted_pairs_are_found(matcher):
    """40 of 100 descriptors come again with 20 of 256 bits flipped; random ones differ by 128 +- 8 bits."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (100, 32), np.uint8) for _ in range(2))
    rows, places = rng.permutation(100)[:40], rng.permutation(100)[:40]
    flips = np.zeros((40, 256), np.uint8)
    flips[:, :20] = 1
    b[places] = a[rows] ^ np.packbits(rng.permuted(flips, axis=1), axis=1)
    matches = matcher.match(featured(a), featured(b))
    assert set(map(tuple, matches.pairs)) == set(zip(rows, places, strict=True))
    assert (matches.distance == 20).all()


@pytest.mark.parametrize("matcher", MATCHERS)
def test_empty_sets_give_no_matches(matcher):
    none, some = featured(random_bits(0, 0)), featured(random_bits(5, 0))
    for a, b in ((none, none), (none, some), (some, none)):
        assert len(matcher.match(a, b)) == 0 and matcher.match(a, b).pairs.shape == (0, 2)


@pytest.mark.parametrize("matcher", MATCHERS)
def test_descriptors_of_different_kinds_are_refused(matcher):
    for other in (random_units(5, 0), np.zeros((5, 16), np.uint8)):
        with pytest.raises(VslamError, match=r"cannot match uint8 of length 8 with .* same extractor"):
            matcher.match(featured(random_bits(5, 0)), featured(other))
