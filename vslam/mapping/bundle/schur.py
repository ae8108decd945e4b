"""Bundle adjustment by Levenberg-Marquardt with a Schur complement over the points, in one call without the GIL."""

from __future__ import annotations

import numpy as np

from vslam.mapping.bundle.problem import Problem, Solution


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
    raise NotImplementedError
