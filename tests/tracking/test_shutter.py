"""A rolling shutter undone: what the rows saw one after the other is what the middle row's moment would have seen."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world import CAMERA, make_features, make_frame, scatter
from vslam.geometry import se3
from vslam.tracking.shutter import straighten

ROLLING = replace(CAMERA, readout=0.03)
BF = CAMERA.pinhole[4]
POINTS = scatter(300).xyz
rates = st.tuples(*[st.floats(-1, 1)] * 3, *[st.floats(-2, 2)] * 3).map(np.array)  # m/s, rad/s: a quick turn


def seen(rate, rolling: bool):
    """Pixels and disparities of POINTS for a camera moving at `rate`: all at the middle row's moment, or row by row."""
    p = POINTS
    for _ in range(20 if rolling else 0):  # the row decides the moment, the moment decides the row
        late = ((CAMERA.project(p)[:, 1] + 0.5) / CAMERA.height - 0.5) * ROLLING.readout
        T = se3.exp(late[:, None] * rate)
        p = np.einsum("nij,nj->ni", T[:, :3, :3], POINTS) + T[:, :3, 3]
    return CAMERA.project(p), BF / p[:, 2]


def frame_of(xy, disparity):
    return make_frame(make_features(xy, np.zeros((len(xy), 32), np.uint8)), disparity=disparity)


@settings(deadline=None)
@given(rates)
def test_rows_are_carried_to_the_moment_of_the_middle_one(rate):
    frame = straighten(frame_of(*seen(rate, rolling=True)), ROLLING, rate)
    xy, disparity = seen(rate, rolling=False)
    # third order of a turn by |2, 2, 2| / s * 0.7 * 30 ms is left: 0.073^3 / 6 * 262 px = 0.017 px, twice at corners
    np.testing.assert_allclose(frame.xy, xy, atol=0.04)
    np.testing.assert_allclose(frame.disparity, disparity, atol=0.04)


@settings(deadline=None)
@given(rates)
def test_without_depth_the_turn_is_undone(rate):
    rate[:3] = 0.0
    xy = seen(rate, rolling=True)[0]
    frame = straighten(frame_of(xy, np.zeros(len(xy))), ROLLING, rate)
    np.testing.assert_allclose(frame.xy, seen(rate, rolling=False)[0], atol=0.04)
    assert (frame.disparity == 0).all()


def test_the_lookup_grid_follows():
    rate = np.array([0, 0, 0, 1.5, 1.5, 0])
    frame = straighten(frame_of(*seen(rate, rolling=True)), ROLLING, rate)
    assert np.abs(frame.xy - frame.features.xy).max() > 4
    again = frame_of(frame.xy, frame.disparity).grid
    assert np.array_equal(frame.grid.start, again.start) and np.array_equal(frame.grid.items, again.items)


def test_nothing_to_undo_leaves_the_frame_as_it_is():
    frame = frame_of(*seen(np.zeros(6), rolling=False))
    assert straighten(frame, CAMERA, np.ones(6)) is frame
    assert straighten(frame, ROLLING, np.zeros(6)) is frame
    empty = frame_of(np.empty((0, 2)), np.empty(0))
    assert straighten(empty, ROLLING, np.ones(6)) is empty
