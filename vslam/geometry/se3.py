"""Rigid motions SE(3): exponential, logarithm, inverse, quaternions.

An increment is `xi = (rho, phi)`, translation first; `exp(xi)` has rotation `exp([phi]x)` and translation `V rho`.
Formulas: Barfoot, "State Estimation for Robotics" (2017), section 7.1; the logarithm goes by the quaternion
(Shepperd 1978), which is exact near 0 and near pi alike.
"""

from __future__ import annotations

from math import atan2, sin, sqrt, tan

import numpy as np

from vslam.kernels import inner, njit

SMALL_ANGLE = 0.05
"""Radians below which a series of three terms is exact to double precision, and more exact than the closed form."""


@inner
def exp_kernel(xi, T):
    """Write `exp(xi)`, xi (6,), into the upper three rows of `T` (3 or 4, 4)."""
    a, b, c = xi[3], xi[4], xi[5]
    square = a * a + b * b + c * c
    angle = sqrt(square)
    if angle < SMALL_ANGLE:
        A = 1.0 - square / 6.0 * (1.0 - square / 20.0 * (1.0 - square / 42.0))
        B = 0.5 - square / 24.0 * (1.0 - square / 30.0 * (1.0 - square / 56.0))
        C = 1.0 / 6.0 - square / 120.0 * (1.0 - square / 42.0 * (1.0 - square / 72.0))
    else:
        half = sin(0.5 * angle)
        A = sin(angle) / angle
        B = 2.0 * half * half / square
        C = (1.0 - A) / square
    x, y, z = xi[0], xi[1], xi[2]
    dot = a * x + b * y + c * z
    # R = I + A [phi]x + B [phi]x^2,  V = I + B [phi]x + C [phi]x^2,  [phi]x^2 = phi phi^T - |phi|^2 I
    T[0, 0] = 1.0 - B * (b * b + c * c)
    T[1, 1] = 1.0 - B * (a * a + c * c)
    T[2, 2] = 1.0 - B * (a * a + b * b)
    T[0, 1] = B * a * b - A * c
    T[1, 0] = B * a * b + A * c
    T[0, 2] = B * a * c + A * b
    T[2, 0] = B * a * c - A * b
    T[1, 2] = B * b * c - A * a
    T[2, 1] = B * b * c + A * a
    keep = 1.0 - C * square
    T[0, 3] = keep * x + B * (b * z - c * y) + C * dot * a
    T[1, 3] = keep * y + B * (c * x - a * z) + C * dot * b
    T[2, 3] = keep * z + B * (a * y - b * x) + C * dot * c


@inner
def log_kernel(T, xi):
    """Write `log(T)`, T (3 or 4, 4), into `xi` (6,); the angle is in [0, pi]."""
    # Quaternion from the largest of its four components (Shepperd): w, x, y or z squared times 4.
    xx, yy, zz = T[0, 0], T[1, 1], T[2, 2]
    trace = xx + yy + zz
    if trace >= xx and trace >= yy and trace >= zz:
        w = 1.0 + trace
        x, y, z = T[2, 1] - T[1, 2], T[0, 2] - T[2, 0], T[1, 0] - T[0, 1]
    elif xx >= yy and xx >= zz:
        x = 1.0 + xx - yy - zz
        w, y, z = T[2, 1] - T[1, 2], T[0, 1] + T[1, 0], T[0, 2] + T[2, 0]
    elif yy >= zz:
        y = 1.0 - xx + yy - zz
        w, x, z = T[0, 2] - T[2, 0], T[0, 1] + T[1, 0], T[1, 2] + T[2, 1]
    else:
        z = 1.0 - xx - yy + zz
        w, x, y = T[1, 0] - T[0, 1], T[0, 2] + T[2, 0], T[1, 2] + T[2, 1]
    if w < 0.0:
        w, x, y, z = -w, -x, -y, -z
    sine = sqrt(x * x + y * y + z * z)  # of half the angle, up to the quaternion's length
    angle = 2.0 * atan2(sine, w)
    scale = angle / sine if sine > 1e-300 else 2.0 / w
    a, b, c = scale * x, scale * y, scale * z
    square = angle * angle
    # V^-1 = I - [phi]x / 2 + D [phi]x^2
    if angle < SMALL_ANGLE:
        D = 1.0 / 12.0 + square / 720.0 * (1.0 + square / 42.0)
    else:
        D = (1.0 - 0.5 * angle / tan(0.5 * angle)) / square
    x, y, z = T[0, 3], T[1, 3], T[2, 3]
    dot = a * x + b * y + c * z
    keep = 1.0 - D * square
    xi[0] = keep * x - 0.5 * (b * z - c * y) + D * dot * a
    xi[1] = keep * y - 0.5 * (c * x - a * z) + D * dot * b
    xi[2] = keep * z - 0.5 * (a * y - b * x) + D * dot * c
    xi[3], xi[4], xi[5] = a, b, c


@inner
def multiply_kernel(A, B, out):
    """Write `A B` into the upper three rows of `out`; all (3 or 4, 4) rigid, `out` neither A nor B."""
    for i in range(3):
        for j in range(4):
            out[i, j] = A[i, 0] * B[0, j] + A[i, 1] * B[1, j] + A[i, 2] * B[2, j]
        out[i, 3] += A[i, 3]


@njit
def _exp_many(xi, T):
    for i in range(xi.shape[0]):
        exp_kernel(xi[i], T[i])


@njit
def _log_many(T, xi):
    for i in range(T.shape[0]):
        log_kernel(T[i], xi[i])


def exp(xi: np.ndarray) -> np.ndarray:
    """Motions (..., 4, 4) of increments `xi` (..., 6) = (rho, phi)."""
    xi = np.ascontiguousarray(xi, np.float64)
    T = np.zeros((*xi.shape[:-1], 4, 4))
    T[..., 3, 3] = 1.0
    _exp_many(xi.reshape(-1, 6), T.reshape(-1, 4, 4))
    return T


def log(T: np.ndarray) -> np.ndarray:
    """Increments (..., 6) = (rho, phi) of motions `T` (..., 4, 4), |phi| <= pi."""
    T = np.ascontiguousarray(T, np.float64)
    xi = np.empty((*T.shape[:-2], 6))
    _log_many(T.reshape(-1, 4, 4), xi.reshape(-1, 6))
    return xi


def inverse(T: np.ndarray) -> np.ndarray:
    """Inverse (..., 4, 4) of rigid motions `T` (..., 4, 4)."""
    T = np.asarray(T, np.float64)
    out = np.zeros_like(T)
    out[..., :3, :3] = T[..., :3, :3].swapaxes(-1, -2)
    out[..., :3, 3] = -np.einsum("...ji,...j->...i", T[..., :3, :3], T[..., :3, 3])
    out[..., 3, 3] = 1.0
    return out


def relative(T_target_a: np.ndarray, T_target_b: np.ndarray) -> np.ndarray:
    """`T_a_b` (..., 4, 4): b as seen from a, both given in the same target frame (two `T_wc`, say)."""
    return inverse(T_target_a) @ T_target_b


def rotation_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Rotations (..., 3, 3) of quaternions (..., 4) in the order qx qy qz qw, of any non-zero length."""
    q = np.asarray(quaternion, np.float64)
    x, y, z, w = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_rotation(R: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4), order qx qy qz qw with qw >= 0, of rotations `R` (..., 3, 3) (Shepperd 1978)."""
    R = np.asarray(R, np.float64)
    # 4 q q^T: each row is the quaternion times its own component; the row of the largest is the best conditioned.
    xx, yy, zz = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    xy, xz, yz = R[..., 0, 1] + R[..., 1, 0], R[..., 0, 2] + R[..., 2, 0], R[..., 1, 2] + R[..., 2, 1]
    xw, yw, zw = R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]
    rows = [
        [1 + xx - yy - zz, xy, xz, xw],
        [xy, 1 - xx + yy - zz, yz, yw],
        [xz, yz, 1 - xx - yy + zz, zw],
        [xw, yw, zw, 1 + xx + yy + zz],
    ]
    outer = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    best = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(outer, best[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., 3:] < 0, -q, q)


@njit
def orthonormalise(T):
    """Make the rotation of `T` (3 or 4, 4) exact again, in place.

    `inverse` takes the transpose for the inverse, so a rotation that is carried from frame to frame through products
    and inverses would multiply its rounding error each time.
    """
    a, b, c = T[0, 0], T[0, 1], T[0, 2]
    n = sqrt(a * a + b * b + c * c)
    a, b, c = a / n, b / n, c / n
    d, e, f = T[1, 0], T[1, 1], T[1, 2]
    along = a * d + b * e + c * f
    d, e, f = d - along * a, e - along * b, f - along * c
    n = sqrt(d * d + e * e + f * f)
    d, e, f = d / n, e / n, f / n
    T[0, 0], T[0, 1], T[0, 2] = a, b, c
    T[1, 0], T[1, 1], T[1, 2] = d, e, f
    T[2, 0], T[2, 1], T[2, 2] = b * f - c * e, c * d - a * f, a * e - b * d
