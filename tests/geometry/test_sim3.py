"""Similarities as matrices: made of a scale and a rigid motion, taken apart and turned round."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vslam.geometry import se3, sim3

SEEDS = st.integers(0, 100_000)


def some(seed: int, many: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Scales (N,) from 0.1 to 10 and rigid motions (N, 4, 4)."""
    rng = np.random.default_rng(seed)
    return 10 ** rng.uniform(-1, 1, many), se3.exp(rng.normal(size=(many, 6)))


@given(SEEDS)
def test_parts_come_out_as_they_went_in(seed):
    scale, T = some(seed)
    found, rigid = sim3.split(sim3.compose(scale, T))
    np.testing.assert_allclose(found, scale, rtol=1e-12)
    np.testing.assert_allclose(rigid, T, atol=1e-12)


@given(SEEDS)
def test_there_and_back_is_nothing(seed):
    S = sim3.compose(*some(seed))
    np.testing.assert_allclose(S @ sim3.inverse(S), np.tile(np.eye(4), (4, 1, 1)), atol=1e-9)


@given(SEEDS)
def test_the_rigid_part_is_the_same_camera(seed):
    """Same centre, and every point in the same direction: it is seen at the same pixel."""
    scale, T = some(seed)
    S = sim3.compose(scale, T)
    xyz = np.random.default_rng(seed).normal(size=(5, 3))
    np.testing.assert_allclose(sim3.apply(S, xyz), scale[:, None, None] * sim3.apply(T, xyz), rtol=1e-9)


def test_a_rigid_motion_stays_itself_to_the_last_bit():
    T = some(3)[1]
    scale, rigid = sim3.split(T)
    assert (scale == 1.0).all()
    np.testing.assert_array_equal(rigid, T)
    np.testing.assert_array_equal(sim3.compose(scale, rigid), T)
    np.testing.assert_array_equal(sim3.inverse(T), se3.inverse(T))
