"""Spreading keypoints: as many as wanted, each once, everywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive
from vslam.features.spread import PER_CELL, spread

WIDTH, HEIGHT = 320, 240
no_deadline = settings(deadline=None)  # the first call compiles


@st.composite
def clouds(draw):
    count, seed = draw(st.integers(0, 200)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    xy = (rng.uniform(0, 1, (count, 2)) ** draw(st.sampled_from([1, 4])) * (WIDTH, HEIGHT)).astype(np.float32)
    return xy, rng.permutation(count).astype(np.float32)


@no_deadline
@given(clouds(), st.integers(0, 250))
def test_spread_gives_what_is_wanted_without_duplicates(cloud, wanted):
    chosen = spread(*cloud, wanted, WIDTH, HEIGHT)
    assert len(chosen) == min(wanted, len(cloud[0]))
    assert len(set(chosen)) == len(chosen)
    assert all(0 <= i < len(cloud[0]) for i in chosen)


@no_deadline
@given(clouds(), st.integers(1, 250))
def test_spread_equals_naive_twin(cloud, wanted):
    assert set(spread(*cloud, wanted, WIDTH, HEIGHT)) == naive.spread(*cloud, wanted, WIDTH, HEIGHT, PER_CELL)


def test_weak_points_elsewhere_win_over_strong_ones_in_a_heap():
    """4 x 3 cells of 80 pixels, a strong heap in one, a cell's share in each of the others: these lose to nobody."""
    rng = np.random.default_rng(0)
    column, row = np.divmod(np.arange(12), 3)
    corner = np.repeat(80 * np.stack([column, row], axis=1), PER_CELL, axis=0)
    xy = corner + rng.uniform(1, 79, (12 * PER_CELL, 2))
    lonely = xy[PER_CELL:]  # all but those of the first cell
    heap = rng.uniform(30, 50, (500, 2))
    score = np.concatenate([rng.uniform(1, 2, len(lonely)), 1000.0 + rng.permutation(500)])
    chosen = spread(np.concatenate([lonely, heap]), score, 12 * PER_CELL, WIDTH, HEIGHT)
    strongest = len(lonely) + np.argsort(-score[len(lonely) :])[:PER_CELL]
    assert set(chosen) == {*range(len(lonely)), *strongest}


def test_one_wanted_is_the_strongest():
    xy = np.random.default_rng(0).uniform(0, 200, (50, 2))
    assert spread(xy, np.arange(50), 1, WIDTH, HEIGHT) == [49]


@pytest.mark.parametrize("score", [0.0, np.inf, -1.0])
def test_equal_scores_do_not_disturb(score):
    xy = np.random.default_rng(0).uniform(0, 200, (50, 2))
    assert len(set(spread(xy, np.full(50, score), 20, WIDTH, HEIGHT))) == 20


def test_points_on_the_far_border_are_cells_too():
    xy = np.array([(WIDTH, HEIGHT), (WIDTH, 0), (0, HEIGHT), (0, 0)] * 2)
    assert len(set(spread(xy, np.arange(8), 4, WIDTH, HEIGHT))) == 4
