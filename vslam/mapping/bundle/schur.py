"""Bundle adjustment by Levenberg-Marquardt with a Schur complement over the points, in one call without the GIL.

Triggs, McLauchlan, Hartley and Fitzgibbon (2000), "Bundle adjustment - a modern synthesis", sections 4 and 6; the
damping follows Nielsen (1999), "Damping parameter in Marquardt's method", with the constants of g2o (Kuemmerle et
al. 2011), so that both solvers go through the same iterates.

Poses are `T_cw`, moved by `exp(rho, phi)` from the left.
"""

from __future__ import annotations

from math import inf, isfinite, sqrt
from typing import NamedTuple

import numpy as np

from vslam.geometry.se3 import exp_kernel, multiply_kernel
from vslam.kernels import inner, njit
from vslam.mapping.bundle import envelope
from vslam.mapping.bundle.envelope import factorise, substitute
from vslam.mapping.bundle.normal import RELAXED, Graph, Normal, evaluate, linearise
from vslam.mapping.bundle.problem import MONO_GATE, STEREO_GATE, Problem, Solution

INITIAL_DAMPING = 1e-5
"""Part of the largest diagonal element (g2o's tau)."""
MAX_TRIALS = 10
"""Steps tried in one iteration before giving up (g2o's maxTrialsAfterFailure)."""


class Reduced(NamedTuple):
    """The system of the poses alone (see envelope.py), and the damped inverses that lead back to the points."""

    values: np.ndarray
    origin: np.ndarray  # (6 F,)
    first: np.ndarray  # (F,)
    point_inverse: np.ndarray  # (P, 6): xx xy xz yy yz zz
    pose_step: np.ndarray  # (F, 6): right side, then solution
    point_step: np.ndarray  # (P, 3)
    scratch: np.ndarray  # (6, 3)


@inner
def _invert_point(H, damping, out):
    """Inverse of the damped symmetric 3x3 block (xx xy xz yy yz zz), all zero where it is singular."""
    a, b, c, d, e, f = H[0] + damping, H[1], H[2], H[3] + damping, H[4], H[5] + damping
    A, B, C = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * A + b * B + c * C
    if determinant > 1e-15 * a * d * f:
        out[0], out[1], out[2] = A / determinant, B / determinant, C / determinant
        out[3] = (a * f - c * c) / determinant
        out[4] = (b * c - a * e) / determinant
        out[5] = (a * d - b * b) / determinant
    else:
        out[:] = 0.0


@inner(fastmath=RELAXED)
def _reduce(graph, normal, damping, reduced):
    """Eliminate the points: `S = H_p + damping I - W H_x^-1 W^T` into `reduced`, its right side into `pose_step`."""
    values, origin, right = reduced.values, reduced.origin, reduced.pose_step
    values[:] = 0.0
    for p in range(right.shape[0]):
        for a in range(6):
            right[p, a] = normal.pose_b[p, a]
            row = origin[6 * p + a] + 6 * p
            for c in range(a + 1):
                values[row + c] = normal.pose_H[p, a, c]
            values[row + a] += damping
    for j in range(normal.point_H.shape[0]):
        _invert_point(normal.point_H[j], damping, reduced.point_inverse[j])
        for m in range(graph.point_start[j], graph.point_start[j + 1]):
            p = graph.slot[graph.pose_index[m]]
            if p >= 0 and graph.active[m]:
                _times_inverse(normal.cross[m], reduced.point_inverse[j], reduced.scratch)
                _eliminate(graph, normal, reduced, j, p)


@inner(fastmath=RELAXED)
def _times_inverse(W, V, out):
    """`out = W V`, both (6, 3), V symmetric as (xx xy xz yy yz zz)."""
    xx, xy, xz, yy, yz, zz = V[0], V[1], V[2], V[3], V[4], V[5]
    for a in range(6):
        x, y, z = W[a, 0], W[a, 1], W[a, 2]
        out[a, 0] = x * xx + y * xy + z * xz
        out[a, 1] = x * xy + y * yy + z * yz
        out[a, 2] = x * xz + y * yz + z * zz


@inner(fastmath=RELAXED)
def _eliminate(graph, normal, reduced, j, p):
    """Subtract from block row p what point j ties it to; `reduced.scratch` holds `W H_x^-1` of an observation."""
    Y, b = reduced.scratch, normal.point_b[j]
    for a in range(6):
        reduced.pose_step[p, a] -= Y[a, 0] * b[0] + Y[a, 1] * b[1] + Y[a, 2] * b[2]
    for n in range(graph.point_start[j], graph.point_start[j + 1]):
        q = graph.slot[graph.pose_index[n]]
        if q < 0 or q > p or not graph.active[n]:
            continue
        W = normal.cross[n]
        for a in range(6):
            start = reduced.origin[6 * p + a] + 6 * q
            block = reduced.values[start : start + 6]
            x, y, z = Y[a, 0], Y[a, 1], Y[a, 2]
            for c in range(6):
                block[c] -= x * W[c, 0] + y * W[c, 1] + z * W[c, 2]


@inner(fastmath=RELAXED)
def _points_step(graph, normal, reduced):
    """Write the points' steps, `H_x^-1 (b_x - W^T pose_step)`."""
    for j in range(normal.point_H.shape[0]):
        bx, by, bz = normal.point_b[j, 0], normal.point_b[j, 1], normal.point_b[j, 2]
        for m in range(graph.point_start[j], graph.point_start[j + 1]):
            p = graph.slot[graph.pose_index[m]]
            if p >= 0 and graph.active[m]:
                for a in range(6):
                    step = reduced.pose_step[p, a]
                    bx -= normal.cross[m, a, 0] * step
                    by -= normal.cross[m, a, 1] * step
                    bz -= normal.cross[m, a, 2] * step
        V = reduced.point_inverse[j]
        reduced.point_step[j, 0] = V[0] * bx + V[1] * by + V[2] * bz
        reduced.point_step[j, 1] = V[1] * bx + V[3] * by + V[4] * bz
        reduced.point_step[j, 2] = V[2] * bx + V[4] * by + V[5] * bz


@inner
def _predicted_gain(normal, reduced, damping):
    """The gain of the linear model, `step . (damping step + b)`."""
    gain = 0.0
    for p in range(reduced.pose_step.shape[0]):
        for a in range(6):
            step = reduced.pose_step[p, a]
            gain += step * (damping * step + normal.pose_b[p, a])
    for j in range(reduced.point_step.shape[0]):
        for a in range(3):
            step = reduced.point_step[j, a]
            gain += step * (damping * step + normal.point_b[j, a])
    return gain


@inner
def _move(graph, poses, points, reduced, new_poses, new_points, increment):
    """Write the state after the step; fixed poses are not touched. `increment` (4, 4) is scratch."""
    for k in range(poses.shape[0]):
        if graph.slot[k] >= 0:
            exp_kernel(reduced.pose_step[graph.slot[k]], increment)
            multiply_kernel(increment, poses[k], new_poses[k])
    for j in range(points.shape[0]):
        for a in range(3):
            new_points[j, a] = points[j, a] + reduced.point_step[j, a]


@inner
def _accept(new_poses, new_points, poses, points):
    """Copy the new state; an assignment of arrays, `poses[:] = new_poses`, takes numba 4 s longer to compile."""
    for k in range(poses.shape[0]):
        for i in range(3):
            for j in range(4):
                poses[k, i, j] = new_poses[k, i, j]
    for j in range(points.shape[0]):
        for a in range(3):
            points[j, a] = new_points[j, a]


@inner
def _largest_diagonal(normal):
    largest = 0.0
    for p in range(normal.pose_H.shape[0]):
        for a in range(6):
            largest = max(largest, normal.pose_H[p, a, a])
    for j in range(normal.point_H.shape[0]):
        largest = max(largest, normal.point_H[j, 0], normal.point_H[j, 3], normal.point_H[j, 5])
    return largest


@inner
def _step(graph, normal, reduced, damping):
    """Solve the damped normal equations; False if they are not positive definite."""
    _reduce(graph, normal, damping, reduced)
    if not factorise(reduced.values, reduced.origin, reduced.first):
        return False
    substitute(reduced.values, reduced.origin, reduced.first, reduced.pose_step.reshape(-1))
    _points_step(graph, normal, reduced)
    return True


@njit
def _levenberg(graph, state, trial, normal, reduced, scratch, iterations, min_gain, stop_flag, chi2, depth):
    """Run Levenberg-Marquardt on `state` = (poses, points), in place; `trial` alike. Return (cost, iterations)."""
    poses, points = state
    new_poses, new_points = trial
    by_pose, by_point, increment = scratch
    cost = evaluate(graph, poses, points, chi2, depth)
    damping, growth, done = 0.0, 2.0, 0
    while done < iterations and stop_flag[0] == 0:
        linearise(graph, poses, points, normal, by_pose, by_point)
        if done == 0:
            damping = INITIAL_DAMPING * _largest_diagonal(normal)
        if not (damping > 0.0 and isfinite(damping)):
            break
        done += 1
        before, ratio, trials = cost, -1.0, 0
        while ratio < 0.0 and trials < MAX_TRIALS and isfinite(damping) and stop_flag[0] == 0:
            ratio = -1.0
            if _step(graph, normal, reduced, damping):
                _move(graph, poses, points, reduced, new_poses, new_points, increment)
                new_cost = evaluate(graph, new_poses, new_points, chi2, depth)
                if isfinite(new_cost):
                    ratio = (cost - new_cost) / (_predicted_gain(normal, reduced, damping) + 1e-3)
            if ratio > 0.0:
                damping *= max(1.0 / 3.0, min(2.0 / 3.0, 1.0 - (2.0 * ratio - 1.0) ** 3))
                growth, cost = 2.0, new_cost
                _accept(new_poses, new_points, poses, points)
            else:
                damping *= growth
                growth *= 2.0
            trials += 1
        if not ratio > 0.0 or before - cost < min_gain * cost:
            break
    return evaluate(graph, poses, points, chi2, depth), done


def solve_schur(
    problem: Problem,
    iterations: int = 10,
    *,
    robust: bool = True,
    active: np.ndarray | None = None,
    min_gain: float = 0.0,
    stop_flag: np.ndarray | None = None,
) -> Solution:
    """Minimise the (robust) reprojection cost over the free poses and all points.

    `active` (M,) bool leaves observations out; `min_gain` ends when an iteration lowers the cost by less than this
    part (0: never); `stop_flag` (1,) uint8 is read before every iteration and trial.
    """
    problem.check()
    usable = problem.usable()
    graph = _graph(problem, usable if active is None else usable & np.asarray(active, bool), robust)
    poses, points = (np.array(a, np.float64, order="C") for a in (problem.poses, problem.points))
    chi2, depth = np.empty(len(problem.uv)), np.empty(len(problem.uv))
    if stop_flag is None:
        stop_flag = np.zeros(1, np.uint8)
    normal, reduced = _workspace(problem, graph)
    scratch = (np.empty((3, 6)), np.empty((3, 3)), np.empty((4, 4)))
    trial = (poses.copy(), points.copy())
    cost, done = _levenberg(
        graph, (poses, points), trial, normal, reduced, scratch, iterations, min_gain, stop_flag, chi2, depth
    )
    chi2[~usable] = np.inf
    in_front = depth > 0
    return Solution(poses, points, chi2, in_front, in_front & (chi2 <= problem.gates), cost, done)


def _graph(problem: Problem, active: np.ndarray, robust: bool) -> Graph:
    slot = np.where(problem.fixed, -1, np.cumsum(~problem.fixed) - 1).astype(np.int32)
    start = np.searchsorted(problem.point_index, np.arange(len(problem.points) + 1)).astype(np.int32)
    delta = (sqrt(MONO_GATE), sqrt(STEREO_GATE)) if robust else (inf, inf)
    as_floats = [np.ascontiguousarray(a, np.float64) for a in (problem.uv, problem.disparity, problem.weight)]
    pose_index = np.ascontiguousarray(problem.pose_index, np.int32)
    return Graph(slot, pose_index, start, *as_floats, active, tuple(map(float, problem.pinhole)), delta)


def _workspace(problem: Problem, graph: Graph) -> tuple[Normal, Reduced]:
    free, points, observations = int(np.sum(~problem.fixed)), len(problem.points), len(problem.uv)
    normal = Normal(
        np.zeros((free, 6, 6)), np.zeros((free, 6)), np.zeros((points, 6)), np.zeros((points, 3)),
        np.zeros((observations, 6, 3)),
    )  # fmt: skip
    first = _first_neighbours(problem, graph, free)
    values, origin = envelope.allocate(first)
    steps = np.zeros((free, 6)), np.zeros((points, 3))
    return normal, Reduced(values, origin, first, np.zeros((points, 6)), *steps, np.zeros((6, 3)))


def _first_neighbours(problem: Problem, graph: Graph, free: int) -> np.ndarray:
    """The first free pose (F,) that shares a point with each free pose."""
    slots = graph.slot[graph.pose_index]
    kept = (slots >= 0) & graph.active
    first_of_point = np.full(len(problem.points), free)
    np.minimum.at(first_of_point, problem.point_index[kept], slots[kept])
    first = np.arange(free)
    np.minimum.at(first, slots[kept], first_of_point[problem.point_index[kept]])
    return first
