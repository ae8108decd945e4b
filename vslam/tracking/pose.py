"""Motion-only bundle adjustment: the pose of one frame from map points it sees, in one call."""

from __future__ import annotations

import math

import numpy as np

from vslam.geometry.gates import MONO_GATE, STEREO_GATE
from vslam.geometry.se3 import exp_kernel, log_kernel, orthonormalise
from vslam.kernels import inner, njit

FAST = {"reassoc", "contract", "arcp", "nsz"}  # all liberties but the one to assume that nothing is NaN
MAX_NOISE = 8.0  # a frame's keypoints are at most so many times less exact than their sigma says
NO_DISPARITY = np.float32(0.0)  # of the type of real ones, so that no kernel is compiled twice
UNUSABLE = 1e12
HALF_OF_CHI2 = 1.386  # median of chi-square with 2 degrees of freedom


@njit(fastmath=FAST)
def refine_pose(T_cw, pinhole, xyz, uv, disparity, sigma, disparity_sigma, expected, expected_weight, rounds, inlier):
    """Improve `T_cw` (4, 4) in place by Gauss-Newton with Huber's kernel and chi-square gates.

    `xyz` (M, 3) world points, seen at `uv` (M, 2) pixels with standard deviation `sigma` (M,), and with `disparity`
    (M,) of `disparity_sigma` (M,) where positive. The motion model's `expected` pose (4, 4) counts with
    `expected_weight` (6,), the inverse variances of translation and rotation in the camera frame; zeros for none. Each
    round judges all points anew, `inlier` (M,) uint8; the last two go without the kernel (the scheme of ORB-SLAM,
    Mur-Artal et al., T-RO 2015). After the first round the residuals' median tells how much worse this image is than
    `sigma` (blur, rolling shutter).

    Returns:
        the number of inliers, and that factor, 1 to MAX_NOISE.
    """
    sigma, noise = sigma.copy(), 1.0
    H, g, step, update = np.empty((6, 6)), np.empty(6), np.empty(6), np.empty((3, 4))
    inlier[:] = 1
    for round_ in range(rounds):
        robust = round_ < rounds - 2
        for _ in range(8):
            H[:], g[:] = 0.0, 0.0
            for i in range(len(xyz)):
                if inlier[i]:
                    add_point(T_cw, pinhole, xyz[i], uv[i], disparity[i], sigma[i], disparity_sigma[i], robust, H, g)
            add_expected(T_cw, expected, expected_weight, 1.0, H, g)
            if not solve6(H, g, step):
                break
            exp_kernel(step, update)
            move(update, T_cw)
            size = 0.0
            for k in range(6):
                size += step[k] * step[k]
            if size < 1e-12:  # a micrometre
                break
        if round_ == 0:
            noise = image_noise(T_cw, pinhole, xyz, uv, sigma)
            for i in range(len(xyz)):
                sigma[i] *= noise
        count = 0
        for i in range(len(xyz)):
            chi2 = point_chi2(T_cw, pinhole, xyz[i], uv[i], disparity[i], sigma[i], disparity_sigma[i])
            inlier[i] = chi2 < (STEREO_GATE if disparity[i] > 0.0 else MONO_GATE)
            count += inlier[i]
        if count < 6:
            break
    return count, noise


@inner(fastmath=FAST)
def add_expected(T_cw, expected, weight, tail, H, g):
    """Add what the motion model says: the increment that leads from `T_cw` to `expected` (4, 4), both rigid.

    With a `tail` of 1.0 place and turn count by Cauchy's kernel each, for who turns a corner does not go on as before;
    with 0.0 by their square.
    """
    T_expected_camera, increment = np.empty((4, 4)), np.empty(6)
    between(expected, T_cw, T_expected_camera)
    log_kernel(T_expected_camera, increment)
    for part in range(0, 6, 3):
        chi2 = 0.0
        for k in range(part, part + 3):
            chi2 += weight[k] * increment[k] * increment[k]
        for k in range(part, part + 3):
            w = weight[k] / (1.0 + tail * chi2)
            H[k, k] += w
            g[k] += w * increment[k]


@inner(fastmath=FAST)
def image_noise(T_cw, pinhole, xyz, uv, sigma):
    """How many times `sigma` the median residual asks for; found by counting, as a median needs a sort."""
    bins = np.zeros(128, np.int64)
    for i in range(len(xyz)):
        chi2 = point_chi2(T_cw, pinhole, xyz[i], uv[i], NO_DISPARITY, sigma[i], NO_DISPARITY)
        bins[min(int(4.0 * math.sqrt(chi2)), 127) if chi2 < 1e6 else 127] += 1
    half = 0
    for b in range(len(bins)):
        half += bins[b]
        if 2 * half >= len(xyz):
            return min(max((b + 0.5) / 4.0 / math.sqrt(HALF_OF_CHI2), 1.0), MAX_NOISE)
    return 1.0


@inner(fastmath=FAST)
def point_chi2(T, pinhole, p, uv, disparity, sigma, disparity_sigma):
    """Squared residual in units of its standard deviations; huge behind the camera."""
    x = T[0, 0] * p[0] + T[0, 1] * p[1] + T[0, 2] * p[2] + T[0, 3]
    y = T[1, 0] * p[0] + T[1, 1] * p[1] + T[1, 2] * p[2] + T[1, 3]
    z = T[2, 0] * p[0] + T[2, 1] * p[1] + T[2, 2] * p[2] + T[2, 3]
    if not z > 0.05:
        return 1e9
    ru = (uv[0] - (pinhole[0] * x / z + pinhole[2])) / sigma
    rv = (uv[1] - (pinhole[1] * y / z + pinhole[3])) / sigma
    rd = (disparity - pinhole[4] / z) / disparity_sigma if disparity > 0.0 else 0.0
    return ru * ru + rv * rv + rd * rd


@inner(fastmath=FAST)
def add_point(T, pinhole, p, uv, disparity, sigma, disparity_sigma, robust, H, g):
    """Add one point's rows to the normal equations of a left increment (rho, phi) of `T`."""
    x = T[0, 0] * p[0] + T[0, 1] * p[1] + T[0, 2] * p[2] + T[0, 3]
    y = T[1, 0] * p[0] + T[1, 1] * p[1] + T[1, 2] * p[2] + T[1, 3]
    z = T[2, 0] * p[0] + T[2, 1] * p[1] + T[2, 2] * p[2] + T[2, 3]
    if not z > 0.05:
        return
    fx, fy, iz = pinhole[0], pinhole[1], 1.0 / z
    ru, rv = uv[0] - (fx * x * iz + pinhole[2]), uv[1] - (fy * y * iz + pinhole[3])
    w = 1.0 / (sigma * sigma)
    wd = 1.0 / (disparity_sigma * disparity_sigma) if disparity > 0.0 else 0.0
    rd = disparity - pinhole[4] * iz if disparity > 0.0 else 0.0
    chi2 = w * (ru * ru + rv * rv) + wd * rd * rd
    if not chi2 < UNUSABLE:  # a pixel or a point that is not a number
        return
    gate = STEREO_GATE if disparity > 0.0 else MONO_GATE
    if robust and chi2 > gate:
        down = math.sqrt(gate / chi2)
        w *= down
        wd *= down
    add_row(fx * iz, 0.0, -fx * x * iz * iz, x, y, z, w, ru, H, g)
    add_row(0.0, fy * iz, -fy * y * iz * iz, x, y, z, w, rv, H, g)
    if disparity > 0.0:
        add_row(0.0, 0.0, -pinhole[4] * iz * iz, x, y, z, wd, rd, H, g)


@inner(fastmath=FAST)
def add_row(a, b, c, x, y, z, weight, residual, H, g):
    """One residual whose derivative by the point in the camera frame (x, y, z) is (a, b, c)."""
    j3, j4, j5 = y * c - z * b, z * a - x * c, x * b - y * a
    wa, wb, wc, w3, w4, w5 = weight * a, weight * b, weight * c, weight * j3, weight * j4, weight * j5
    H[0, 0] += wa * a
    H[1, 0] += wb * a
    H[1, 1] += wb * b
    H[2, 0] += wc * a
    H[2, 1] += wc * b
    H[2, 2] += wc * c
    H[3, 0] += w3 * a
    H[3, 1] += w3 * b
    H[3, 2] += w3 * c
    H[3, 3] += w3 * j3
    H[4, 0] += w4 * a
    H[4, 1] += w4 * b
    H[4, 2] += w4 * c
    H[4, 3] += w4 * j3
    H[4, 4] += w4 * j4
    H[5, 0] += w5 * a
    H[5, 1] += w5 * b
    H[5, 2] += w5 * c
    H[5, 3] += w5 * j3
    H[5, 4] += w5 * j4
    H[5, 5] += w5 * j5
    g[0] += wa * residual
    g[1] += wb * residual
    g[2] += wc * residual
    g[3] += w3 * residual
    g[4] += w4 * residual
    g[5] += w5 * residual


@inner(fastmath=FAST)
def solve6(H, g, x):
    """Solve `H x = g` by Cholesky in place, lower triangle of `H` (6, 6); False where `H` is not positive definite."""
    for i in range(6):
        for j in range(i + 1):
            s = H[i, j]
            for k in range(j):
                s -= H[i, k] * H[j, k]
            if i == j:
                if not s > 1e-9:
                    return False
                H[i, i] = math.sqrt(s)
            else:
                H[i, j] = s / H[j, j]
    for i in range(6):
        s = g[i]
        for k in range(i):
            s -= H[i, k] * x[k]
        x[i] = s / H[i, i]
    for i in range(5, -1, -1):
        s = x[i]
        for k in range(i + 1, 6):
            s -= H[k, i] * x[k]
        x[i] = s / H[i, i]
    return True


@inner(fastmath=FAST)
def between(T_a, T_b, out):
    """`out = T_a T_b^-1` for rigid motions (3 or 4, 4), the upper three rows."""
    for i in range(3):
        for j in range(3):
            out[i, j] = T_a[i, 0] * T_b[j, 0] + T_a[i, 1] * T_b[j, 1] + T_a[i, 2] * T_b[j, 2]
        out[i, 3] = T_a[i, 3]
        for j in range(3):
            out[i, 3] -= out[i, j] * T_b[j, 3]


@inner
def move(update, T):
    """`T = update T` in place for rigid motions (3 or 4, 4), the upper three rows; the rotation stays exact."""
    for j in range(4):
        a, b, c = T[0, j], T[1, j], T[2, j]
        for i in range(3):
            T[i, j] = update[i, 0] * a + update[i, 1] * b + update[i, 2] * c
    for i in range(3):
        T[i, 3] += update[i, 3]
    orthonormalise(T)
