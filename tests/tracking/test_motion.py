"""Constant velocity: exact for a camera that goes on as it went, whatever the time between frames."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vslam.geometry import se3
from vslam.tracking.motion import ConstantVelocity

seconds = st.floats(0.005, 0.5)
twists = st.tuples(*[st.floats(-3, 3)] * 6).map(np.array)
no_deadline = settings(deadline=None)


@no_deadline
@given(twists, seconds, seconds)
def test_steady_motion_is_predicted_over_uneven_times(twist, before, after):
    motion = ConstantVelocity()
    motion.update(se3.exp(twist * before), before)
    # a turn of up to 3 sqrt(3) * 0.5 = 2.6 radians: the logarithm is unique
    np.testing.assert_allclose(motion.predict(after), se3.exp(twist * after), atol=1e-9)


@no_deadline
@given(twists, seconds)
def test_the_last_motion_alone_counts(twist, dt):
    motion = ConstantVelocity()
    motion.update(se3.exp([1, 2, 3, 0.1, 0.2, 0.3]), 0.1)
    motion.update(se3.exp(twist * dt), dt)
    np.testing.assert_allclose(motion.predict(dt), se3.exp(twist * dt), atol=1e-9)


def test_nothing_known_means_standing_still():
    motion = ConstantVelocity()
    assert np.array_equal(motion.predict(0.1), np.eye(4))
    motion.update(se3.exp([1, 0, 0, 0, 0, 1]), 0.1)
    motion.forget()
    assert np.array_equal(motion.predict(0.1), np.eye(4))


@no_deadline
@given(seconds, seconds)
def test_prediction_counts_less_the_farther_it_reaches(one, other):
    motion = ConstantVelocity()
    assert np.array_equal(motion.weight(one), np.zeros(6))
    motion.update(se3.exp([0.01, 0, 0, 0, 0, 0.01]), 1 / 30)
    near, far = motion.weight(min(one, other)), motion.weight(max(one, other))
    assert near.shape == (6,) and (far > 0).all() and (near >= far).all()
    motion.forget()
    assert np.array_equal(motion.weight(one), np.zeros(6))


def test_no_time_between_frames_gives_a_finite_prediction():
    motion = ConstantVelocity()
    motion.update(se3.exp([0.01, 0, 0, 0, 0, 0.01]), 0.0)
    assert np.isfinite(motion.predict(1 / 30)).all()
    np.testing.assert_allclose(motion.predict(0.0), np.eye(4), atol=1e-15)


@no_deadline
@given(twists, seconds, seconds)
def test_rate_of_a_steady_motion_is_its_twist(twist, before, after):
    motion = ConstantVelocity()
    assert np.array_equal(motion.rate, np.zeros(6))
    for dt in (before, after):
        motion.update(se3.exp(twist * dt), dt)
        np.testing.assert_allclose(motion.rate, twist, atol=1e-6)  # a difference of motions over 5 ms
    motion.forget()
    assert np.array_equal(motion.rate, np.zeros(6))


@no_deadline
@given(st.floats(-2, 2), st.floats(-20, 20))
def test_rate_of_a_steady_acceleration_is_that_at_the_last_frame(speed, acceleration):
    motion, dt = ConstantVelocity(), 1 / 30
    for k in range(2):  # about one axis: from k dt to (k + 1) dt
        angle = speed * dt + 0.5 * acceleration * ((k + 1) ** 2 - k**2) * dt**2
        motion.update(se3.exp([0, 0, 0, 0, angle, 0]), dt)
    np.testing.assert_allclose(motion.rate, [0, 0, 0, 0, speed + acceleration * 2 * dt, 0], atol=1e-9)
