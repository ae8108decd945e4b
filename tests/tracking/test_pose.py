"""Motion-only bundle adjustment against numeric derivatives and known truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.entry import entry
from tests.world import CAMERA
from vslam.geometry import se3
from vslam.tracking import pose
from vslam.tracking.pose import MONO_GATE, STEREO_GATE, refine_pose

add_point, point_chi2, solve6 = map(entry, (pose.add_point, pose.point_chi2, pose.solve6))
PINHOLE = CAMERA.pinhole
SIGMA, DISPARITY_SIGMA = 0.8, 0.3
START = np.array([0.03, -0.02, 0.04, 0.02, -0.03, 0.01])  # 5 cm and 2 degrees off
UNKNOWN = np.zeros(6)
no_deadline = settings(deadline=None)  # the first call compiles


class Sight:
    """Points that a camera at `T_cw` sees, with noise in units of sigma, and wrong ones among them."""

    def __init__(self, count=300, noise=1.0, wrong=0.0, stereo=1.0, seed=0):
        rng = np.random.default_rng(seed)
        self.T_cw = se3.exp(rng.normal(0, 0.5, 6))
        local = CAMERA.unproject(rng.uniform(0, (320, 240), (count, 2)), rng.uniform(1, 5, count))
        T_wc = se3.inverse(self.T_cw)
        self.xyz = local @ T_wc[:3, :3].T + T_wc[:3, 3]
        self.uv = CAMERA.project(local) + SIGMA * noise * rng.normal(size=(count, 2))
        self.disparity = PINHOLE[4] / local[:, 2] + DISPARITY_SIGMA * noise * rng.normal(size=count)
        self.disparity[rng.random(count) >= stereo] = 0
        self.wrong = np.arange(count) < wrong * count
        self.uv[self.wrong] += rng.uniform(15, 60, (self.wrong.sum(), 2)) * rng.choice([-1, 1], (self.wrong.sum(), 2))
        self.sigma = np.full(count, SIGMA, np.float32)
        self.disparity_sigma = np.full(count, DISPARITY_SIGMA, np.float32)

    def rows(self):
        return (
            self.xyz, self.uv.astype(np.float32), self.disparity.astype(np.float32), self.sigma, self.disparity_sigma,
        )  # fmt: skip

    def refine(self, T_cw, expected=None, weight=UNKNOWN, rounds=4):
        inlier = np.zeros(len(self.xyz), np.uint8)
        expected = T_cw if expected is None else expected
        count, self.noise = refine_pose(T_cw, PINHOLE, *self.rows(), expected, weight, rounds, inlier)
        return count, inlier.astype(bool)

    def information(self) -> np.ndarray:
        """(6, 6) inverse covariance of a left increment of the true pose, from the right points."""
        H, g = np.zeros((6, 6)), np.zeros(6)
        for row, wrong in zip(zip(*self.rows(), strict=True), self.wrong, strict=True):
            if not wrong:
                add_point(self.T_cw, PINHOLE, *row, False, H, g)
        return H + np.tril(H, -1).T


def residuals(T_cw, xyz, uv, disparity, sigma, disparity_sigma) -> np.ndarray:
    p = T_cw[:3, :3] @ xyz + T_cw[:3, 3]
    u, v = CAMERA.project(p[None])[0]
    r = [(uv[0] - u) / sigma, (uv[1] - v) / sigma]
    return np.array([*r, (disparity - PINHOLE[4] / p[2]) / disparity_sigma] if disparity > 0 else r)


# 95 % of chi-square: with two degrees of freedom -2 ln 0.05; with three a tabled value
def test_gates_are_the_quantiles_they_are_named_for():
    from scipy.stats import chi2

    assert chi2.ppf(0.95, 2) == pytest.approx(MONO_GATE, abs=1e-3)
    assert chi2.ppf(0.95, 3) == pytest.approx(STEREO_GATE, abs=1e-3)


@no_deadline
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0]))
def test_normal_equations_equal_numeric_differentiation(seed, stereo):
    sight = Sight(1, noise=2.0, stereo=stereo, seed=seed)
    row = [values[0] for values in sight.rows()]
    H, g = np.zeros((6, 6)), np.zeros(6)
    add_point(sight.T_cw, PINHOLE, *row, False, H, g)
    step = 1e-6
    J = np.empty((len(residuals(sight.T_cw, *row)), 6))
    for k in range(6):
        left, right = (se3.exp(sign * step * np.eye(6)[k]) @ sight.T_cw for sign in (-1, 1))
        J[:, k] = (residuals(right, *row) - residuals(left, *row)) / (2 * step)
    # residuals of up to 1e3: rounding EPS * 1e3 / 1e-6 = 2e-7; products with entries of up to 1e3
    np.testing.assert_allclose(np.tril(H), np.tril(J.T @ J), rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(g, -J.T @ residuals(sight.T_cw, *row), rtol=1e-5, atol=1e-2)
    assert point_chi2(sight.T_cw, PINHOLE, *row) == pytest.approx((residuals(sight.T_cw, *row) ** 2).sum(), rel=1e-6)


@no_deadline
@given(st.integers(0, 2**32 - 1))
def test_solve6_solves(seed):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(8, 6))
    H, expected, x = A.T @ A + np.eye(6), rng.normal(size=6), np.empty(6)
    assert solve6(np.tril(H), H @ expected, x)
    np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-9)
    assert not solve6(np.tril(H - 2 * np.linalg.eigvalsh(H)[-1] * np.eye(6)), expected, x)


@pytest.mark.parametrize("stereo", [0.0, 0.5, 1.0])
def test_exact_sight_gives_the_exact_pose(stereo):
    sight = Sight(noise=0.0, stereo=stereo)
    T_cw = se3.exp(START) @ sight.T_cw
    count, inlier = sight.refine(T_cw)
    assert count == len(inlier) and inlier.all()
    # pixels are float32: rounded by 1e-5, at 5 m and 262 pixels 2e-7 m
    np.testing.assert_allclose(T_cw, sight.T_cw, atol=1e-6)


@pytest.mark.parametrize("wrong", [0.0, 0.3])
@pytest.mark.parametrize("stereo", [0.0, 0.5, 1.0])
def test_pose_is_found_among_outliers_as_well_as_the_noise_allows(stereo, wrong):
    for seed in range(10):
        sight = Sight(wrong=wrong, stereo=stereo, seed=seed)
        T_cw = se3.exp(START) @ sight.T_cw
        count, inlier = sight.refine(T_cw)
        error = se3.log(T_cw @ se3.inverse(sight.T_cw))
        # chi-square with 6 degrees of freedom exceeds 38 once in a million
        assert error @ sight.information() @ error < 38
        assert count == inlier.sum() and not (inlier & sight.wrong).any()
        assert inlier[~sight.wrong].mean() > 0.87  # 95 % of 210 or more: spread 1.5 %


@pytest.mark.parametrize("worse", [1.0, 3.0])
def test_noise_of_the_image_is_told(worse):
    sight = Sight(noise=worse)
    _count, inlier = sight.refine(se3.exp(START) @ sight.T_cw)
    # a median of 300: spread 1.25 / sqrt(300) of sigma, counted in bins of a fifth
    assert sight.noise == pytest.approx(worse, abs=0.25 + 0.1 * worse)
    assert inlier.mean() > 0.87 if worse == 1.0 else inlier.mean() > 0.5  # depth is as bad, but is not judged anew


def test_expected_pose_alone_is_taken():
    sight = Sight(0)
    T_cw = se3.exp(START) @ sight.T_cw
    sight.refine(T_cw, expected=sight.T_cw, weight=np.full(6, 1e4))
    # the last step is below a micrometre
    np.testing.assert_allclose(T_cw, sight.T_cw, atol=1e-6)


def test_expected_pose_and_points_meet_by_their_weights():
    sight = Sight(noise=0.0)
    off = np.array([0.002, 0, 0, 0, 0.001, 0])
    expected = se3.exp(off) @ sight.T_cw
    weight = np.full(6, 1e6)
    T_cw = sight.T_cw.copy()
    sight.refine(T_cw, expected, weight)
    H = sight.information()
    # minimum of xi' H xi + cauchy of (xi - off)' W (xi - off); second order in off: 0.002^2 relative to 0.002
    between = np.zeros(6)
    for _ in range(200):
        chi2 = (weight * (off - between) ** 2).reshape(2, 3).sum(axis=1)
        lighter = weight / np.repeat(1 + chi2, 3)
        between = np.linalg.solve(H + np.diag(lighter), lighter * off)
    np.testing.assert_allclose(se3.log(T_cw @ se3.inverse(sight.T_cw)), between, atol=2e-5)


def test_a_far_expectation_does_not_pull():
    sight = Sight(noise=0.0)
    pulled = []
    for metres in (0.01, 0.1, 1.0):
        T_cw = sight.T_cw.copy()
        sight.refine(T_cw, se3.exp(np.array([metres, 0, 0, 0, 0, 0])) @ sight.T_cw, np.full(6, 1e4))
        pulled.append(np.linalg.norm(se3.log(T_cw @ se3.inverse(sight.T_cw))[:3]))
    assert pulled[0] > pulled[1] > pulled[2] and pulled[2] < 1e-4


def test_rotation_stays_orthonormal():
    sight = Sight()
    T_cw = se3.exp(START) @ sight.T_cw
    sight.refine(T_cw)
    np.testing.assert_allclose(T_cw[:3, :3] @ T_cw[:3, :3].T, np.eye(3), atol=1e-14)
    assert np.array_equal(T_cw[3], [0, 0, 0, 1])


def test_points_behind_the_camera_are_outliers():
    sight = Sight(noise=0.0)
    centre = se3.inverse(sight.T_cw)[:3, 3]
    sight.xyz[:5] = 2 * centre - sight.xyz[:5]  # mirrored: the same pixels
    T_cw = se3.exp(START) @ sight.T_cw
    count, inlier = sight.refine(T_cw)
    assert count == len(inlier) - 5 and not inlier[:5].any()
    np.testing.assert_allclose(T_cw, sight.T_cw, atol=1e-6)


def degenerate(name: str) -> Sight:
    sight = Sight({"none": 0, "one": 1, "two": 2, "five": 5}.get(name, 30))
    if name == "the same":
        sight.xyz[:], sight.uv[:], sight.disparity[:] = sight.xyz[0], sight.uv[0], sight.disparity[0]
    elif name == "in a line":
        sight.xyz = sight.xyz[0] + np.linspace(0, 1, 30)[:, None] * [0.3, 0.2, 0.1]
    elif name == "all behind":
        sight.xyz = 2 * se3.inverse(sight.T_cw)[:3, 3] - sight.xyz
    elif name == "infinite point":
        sight.xyz[3] = np.inf
    elif name == "not a number":
        sight.xyz[3] = np.nan
    elif name == "pixel not a number":
        sight.uv[3] = np.nan
    elif name == "exactly known":
        sight.sigma[3] = 0
    elif name == "all wrong":
        sight.uv = np.random.default_rng(0).uniform(0, 320, sight.uv.shape)
    return sight


@pytest.mark.parametrize(
    "name",
    [
        "none", "one", "two", "five", "the same", "in a line", "all behind", "infinite point", "not a number",
        "all wrong", "exactly known", "pixel not a number",
    ],
)  # fmt: skip
def test_degenerate_input_raises_nothing_and_leaves_a_finite_pose(name):
    sight = degenerate(name)
    T_cw = sight.T_cw.copy()
    count, inlier = sight.refine(T_cw)
    assert count == inlier.sum()
    assert np.isfinite(T_cw).all()
    if name in ("not a number", "infinite point"):
        assert not inlier[3] and count > 20
