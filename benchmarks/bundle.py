"""Bundle adjustment by numba and by g2o: `python -m benchmarks.bundle [--json FILE]`.

Ten iterations with the Huber kernel on synthetic keyframes (30 % of the observations without depth, 3 % outliers).
CPU milliseconds of the calling thread, medians; numba's include copying in and out, g2o's are split into building the
graph (text format) and optimising. `ratio` is g2o in all over numba.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from tests.mapping.naive_bundle import world
from vslam.mapping.bundle import Problem, adjust
from vslam.mapping.bundle.g2o import build, solve_g2o
from vslam.mapping.bundle.schur import solve_schur

SIZES = {
    2500: {"free": 5, "fixed": 3, "points": 600},
    8000: {"free": 10, "fixed": 5, "points": 1500},
    18000: {"free": 20, "fixed": 10, "points": 3000},
}
ITERATIONS = 10


def median_ms(function, repeats: int) -> float:
    """Median CPU time of this thread over calls, in ms."""
    times = []
    for _ in range(repeats):
        started = time.thread_time()
        function()
        times.append(1e3 * (time.thread_time() - started))
    return float(np.median(times))


def measure(edges: int, repeats: int) -> dict:
    problem = world(edges=edges, mono=0.3, outliers=0.03, **SIZES[edges]).problem
    numba_ms = median_ms(lambda: solve_schur(problem, ITERATIONS), repeats)
    build_ms = median_ms(lambda: build(problem, problem.usable(), robust=True), repeats)
    g2o_ms = median_ms(lambda: solve_g2o(problem, ITERATIONS), repeats)
    ours, theirs = solve_schur(problem, ITERATIONS).cost, solve_g2o(problem, ITERATIONS).cost
    return {
        "edges": len(problem.uv),
        "numba_ms": numba_ms,
        "numba_adjust_ms": median_ms(lambda: adjust(problem), repeats),
        "g2o_build_ms": build_ms,
        "g2o_solve_ms": g2o_ms - build_ms,
        "ratio": g2o_ms / numba_ms,
        "cost": ours,
        "cost_difference": abs(ours / theirs - 1),
    }


def warm_up() -> float:
    """Seconds until the first small problem is solved: compiling, or loading what was compiled."""
    problem: Problem = world().problem
    started = time.perf_counter()
    solve_schur(problem, 1)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    result = {"first_call_s": warm_up(), "sizes": [measure(edges, arguments.repeats) for edges in SIZES]}
    print(f"first call {result['first_call_s']:.2f} s")
    columns = ["edges", "numba_ms", "numba_adjust_ms", "g2o_build_ms", "g2o_solve_ms", "ratio", "cost_difference"]
    print(" ".join(f"{name:>15}" for name in columns))
    for row in result["sizes"]:
        print(" ".join(f"{row[name]:15.3g}" if name == "cost_difference" else f"{row[name]:15.1f}" for name in columns))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
