"""Bundle adjustment: one `Problem` of arrays, two solvers, one policy of rounds."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from vslam.mapping.bundle.problem import MONO_GATE, STEREO_GATE, Problem, Solution, Solver

__all__ = ["MONO_GATE", "ROUNDS", "STEREO_GATE", "Problem", "Round", "Solution", "adjust", "solver"]


class Round(NamedTuple):
    """At most `iterations` of Levenberg-Marquardt, with or without the Huber kernel."""

    iterations: int
    robust: bool


ROUNDS = (Round(5, robust=True), Round(10, robust=False))
"""First find the outliers, then fit without them."""
MIN_GAIN = 1e-4
"""A round ends when an iteration lowers the cost by less than this part of it: what is left is far below the noise."""


def solver(optimizer: str) -> Solver:
    """The solver of a name, `numba` or `g2o`."""
    if optimizer == "numba":
        from vslam.mapping.bundle.schur import solve_schur as solve
    elif optimizer == "g2o":
        from vslam.mapping.bundle.g2o import solve_g2o as solve
    else:
        raise ValueError(f"unknown optimizer {optimizer!r}; known: numba, g2o")
    return solve


def adjust(
    problem: Problem,
    optimizer: str = "numba",
    rounds: tuple[Round, ...] = ROUNDS,
    min_gain: float = MIN_GAIN,
    stop_flag: np.ndarray | None = None,
) -> Solution:
    """Solve in rounds; each round leaves out the observations that the one before found to be outliers.

    An outlier has a chi2 above the 95 % gate of its rows or lies behind its camera. `stop_flag` (1,) uint8: set to
    non-zero by any thread, ends the work after the current iteration (g2o: round); the result so far is valid.
    """
    solve = solver(optimizer)
    active = None
    for round_ in rounds:
        solution = solve(
            problem, round_.iterations, robust=round_.robust, active=active, min_gain=min_gain, stop_flag=stop_flag
        )
        if stop_flag is not None and stop_flag[0]:
            break
        active = solution.inlier
        problem = replace(problem, poses=solution.poses, points=solution.points)
    return solution
