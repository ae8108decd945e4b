"""The similarity between point sets: exact where they are exact, found among wrong pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vslam.geometry import se3, sim3
from vslam.geometry.alignment import umeyama
from vslam.geometry.similarity import fit_similarity, ransac_similarity

SEEDS = st.integers(0, 100_000)


def drawn(seed: int, points: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (N, 3), any similarity (4, 4), and the points after it."""
    rng = np.random.default_rng(seed)
    source = spread * rng.normal(size=(points, 3)) + rng.normal(size=3)
    S = sim3.compose(10 ** rng.uniform(-2, 2), se3.exp(rng.normal(size=6) * (3, 3, 3, 2, 2, 2)))
    return source, S, sim3.apply(S, source)


@given(SEEDS, st.integers(4, 30))
def test_any_similarity_is_recovered(seed, points):
    source, S, target = drawn(seed, points)
    np.testing.assert_allclose(sim3.apply(fit_similarity(source, target), source), target, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(fit_similarity(source, target), S, rtol=1e-5, atol=1e-5 * np.abs(S).max())


@given(SEEDS)
def test_three_points_are_enough(seed):
    source, _, target = drawn(seed, 3)
    np.testing.assert_allclose(sim3.apply(fit_similarity(source, target), source), target, rtol=1e-6, atol=1e-6)


@given(SEEDS, st.integers(4, 20), st.floats(0.0, 0.5))
def test_many_at_once_are_each_the_least_squares_one(seed, points, noise):
    """The twin is `umeyama`, one pair of sets at a time; mirrored sets get the best rotation, too."""
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(5, points, 3))
    target = sim3.apply(sim3.compose(2.0, se3.exp(rng.normal(size=(5, 6)))), source * rng.choice([1, -1]))
    target += noise * rng.normal(size=target.shape)
    for a, b, S in zip(source, target, fit_similarity(source, target), strict=True):
        scale, R, t = umeyama(a, b, with_scale=True)
        np.testing.assert_allclose(S[:3, :3], scale * R, atol=1e-8)
        np.testing.assert_allclose(S[:3, 3], t, atol=1e-8)


@pytest.mark.parametrize("right", [1.0, 0.7, 0.4])
def test_wrong_pairs_are_left_out(right):
    source, S, target = drawn(5, 100)
    rng = np.random.default_rng(0)
    wrong = rng.permutation(100)[: round(100 * (1 - right))]
    target[wrong] = target.mean(axis=0) + target.std() * rng.normal(size=(len(wrong), 3))

    def fits(tried):
        return np.linalg.norm(sim3.apply(tried, source) - target, axis=-1) < 1e-3 * target.std()

    found, agree = ransac_similarity(source, target, fits, 300, np.random.default_rng(1))
    np.testing.assert_array_equal(np.flatnonzero(~agree), np.sort(wrong))
    np.testing.assert_allclose(found, S, rtol=1e-5, atol=1e-5 * np.abs(S).max())


@pytest.mark.parametrize("points", [0, 2])
def test_too_few_pairs_agree_on_nothing(points):
    source = np.ones((points, 3))
    found, agree = ransac_similarity(
        source, source, lambda S: np.ones((len(S), points), bool), 10, np.random.default_rng()
    )
    np.testing.assert_array_equal(found, np.eye(4))
    assert not agree.any()


def test_points_in_one_place_agree_on_nothing():
    source = np.ones((5, 3))
    _, agree = ransac_similarity(source, source, lambda S: np.ones((len(S), 5), bool), 10, np.random.default_rng(0))
    assert not agree.any()
