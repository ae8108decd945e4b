import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from tests.entry import entry
from vslam.geometry import se3

multiply = entry(se3.multiply_kernel)
EPS = np.finfo(float).eps
no_deadline = settings(deadline=None)  # the first call compiles
coordinate = st.floats(-10, 10, allow_subnormal=False)
angle = st.one_of(
    st.floats(0, np.pi - 1e-9),
    st.floats(0, 1e-7),
    st.floats(se3.SMALL_ANGLE * 0.99, se3.SMALL_ANGLE * 1.01),
    st.floats(np.pi - 1e-6, np.pi - 1e-9),
)
direction = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda d: np.linalg.norm(d) > 1e-3)


@st.composite
def increments(draw) -> np.ndarray:
    rho = [draw(coordinate) for _ in range(3)]
    axis = np.array(draw(direction))
    return np.concatenate([rho, draw(angle) * axis / np.linalg.norm(axis)])


def generator(xi: np.ndarray) -> np.ndarray:
    """The 4x4 matrix whose matrix exponential `exp` is to be."""
    x, y, z, a, b, c = xi
    return np.array([[0, -c, b, x], [c, 0, -a, y], [-b, a, 0, z], [0, 0, 0, 0]], float)


@no_deadline
@given(increments())
def test_exp_is_the_matrix_exponential(xi):
    # scipy's Pade approximant loses a few digits at norms around 10
    np.testing.assert_allclose(se3.exp(xi), expm(generator(xi)), atol=1000 * EPS * (1 + np.linalg.norm(xi)))


@no_deadline
@given(increments())
def test_log_inverts_exp(xi):
    # the rotation matrix rounds at EPS; its logarithm is well conditioned in all of [0, pi), translations scale by rho
    np.testing.assert_allclose(se3.log(se3.exp(xi)), xi, atol=50 * EPS * (1 + np.linalg.norm(xi)))


@no_deadline
@given(increments())
def test_exp_inverts_log_at_any_angle(xi):
    xi[3:] *= 3  # angles up to 3 pi: another logarithm, the same motion
    T = se3.exp(xi)
    np.testing.assert_allclose(se3.exp(se3.log(T)), T, atol=100 * EPS * (1 + np.linalg.norm(xi)))


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.6, -0.8, 0), (-0.6, 0, 0.8)])
def test_log_at_exactly_pi(axis):
    axis = np.array(axis, float)
    T = np.eye(4)
    T[:3, :3] = 2 * np.outer(axis, axis) - np.eye(3)
    phi = se3.log(T)[3:]
    assert np.isclose(np.linalg.norm(phi), np.pi, rtol=2 * EPS)
    assert np.isclose(abs(phi @ axis), np.pi, rtol=4 * EPS)


def test_identity_is_exact():
    assert np.array_equal(se3.exp(np.zeros(6)), np.eye(4))
    assert np.array_equal(se3.log(np.eye(4)), np.zeros(6))


def test_rotations_stay_orthonormal_over_many_steps():
    T, out = np.eye(4), np.eye(4)
    step = se3.exp([0.01, 0, 0, 0.1, -0.2, 0.05])
    for _ in range(1000):
        multiply(step, T, out)
        T, out = out, T
    assert np.abs(T[:3, :3] @ T[:3, :3].T - np.eye(3)).max() < 1000 * 4 * EPS


@no_deadline
@given(increments(), increments())
def test_relative_is_b_seen_from_a(a, b):
    T_wa, T_wb = se3.exp(a), se3.exp(b)
    atol = 100 * EPS * (1 + np.linalg.norm(a) + np.linalg.norm(b))
    np.testing.assert_allclose(T_wa @ se3.relative(T_wa, T_wb), T_wb, atol=atol)
    np.testing.assert_allclose(se3.inverse(T_wa) @ T_wa, np.eye(4), atol=atol)


@no_deadline
@given(increments())
def test_quaternion_and_rotation_are_inverse(xi):
    R = se3.exp(xi)[:3, :3]
    q = se3.quaternion_from_rotation(R)
    assert q[3] >= 0 and np.isclose(np.linalg.norm(q), 1, rtol=4 * EPS)
    np.testing.assert_allclose(se3.rotation_from_quaternion(q), R, atol=20 * EPS)
    half = np.linalg.norm(xi[3:]) / 2
    np.testing.assert_allclose(q[3], np.cos(half), atol=20 * EPS)


def test_functions_take_stacks():
    xi = np.random.default_rng(0).normal(size=(2, 3, 6))
    T = se3.exp(xi)
    assert T.shape == (2, 3, 4, 4)
    assert se3.log(T).shape == (2, 3, 6)
    quaternions = se3.quaternion_from_rotation(T[..., :3, :3])
    assert quaternions.shape == (2, 3, 4)
    assert np.array_equal(quaternions[1, 2], se3.quaternion_from_rotation(T[1, 2, :3, :3]))
    assert np.array_equal(se3.inverse(T)[1, 2], se3.inverse(T[1, 2]))
    assert se3.exp(np.zeros((0, 6))).shape == (0, 4, 4)
