"""The same bundle adjustment by g2o (Kuemmerle et al. 2011): the reference for parity, and the alternative.

The graph goes through g2o's text format, because adding an edge takes g2opy time in proportion to the edges already
there. g2o's stereo edge measures (u, v, u_right) with u_right = u - disparity; its full information matrix
`J^T diag(w_u, w_v, w_d) J`, `J = [[1, 0, 0], [0, 1, 0], [1, 0, -1]]`, states independent errors of u, v, disparity.
"""

from __future__ import annotations

import tempfile
from math import sqrt
from pathlib import Path

import g2opy
import numpy as np

from vslam.geometry.se3 import quaternion_from_rotation
from vslam.mapping.bundle.problem import MONO_GATE, STEREO_GATE, Problem, Solution, solution_at

POSE_LINE = "VERTEX_SE3:EXPMAP %d %.17g %.17g %.17g %.17g %.17g %.17g %.17g\n"
FIXED_LINE = "FIX %d\n"
POINT_LINE = "VERTEX_TRACKXYZ %d %.17g %.17g %.17g\n"
MONO_LINE = "EDGE_SE3_PROJECT_XYZ:EXPMAP %d %d %.17g %.17g %.17g 0 %.17g\n"
STEREO_LINE = "EDGE_STEREO_SE3_PROJECT_XYZ:EXPMAP %d %d %.17g %.17g %.17g %.17g 0 %.17g %.17g 0 %.17g\n"
MEMORY_FOLDER = Path("/dev/shm")  # files that are never written to a disk, on Linux


def solve_g2o(
    problem: Problem,
    iterations: int = 10,
    *,
    robust: bool = True,
    active: np.ndarray | None = None,
    min_gain: float = 0.0,
    stop_flag: np.ndarray | None = None,
) -> Solution:
    """As `schur.solve_schur`; the stop flag is read at the start only, and `cost` is the one that g2o reports."""
    problem.check()
    active = problem.usable() if active is None else problem.usable() & np.asarray(active, bool)
    stopped = stop_flag is not None and stop_flag[0] != 0
    if stopped or iterations < 1 or not active.any():
        return solution_at(problem, problem.poses.copy(), problem.points.copy(), active, robust, iterations=0)

    optimizer = build(problem, active, robust)
    if min_gain > 0:
        action = g2opy.SparseOptimizerTerminateAction()
        action.set_gain_threshold(min_gain)
        optimizer.add_post_iteration_action(action)
    optimizer.initialize_optimization()
    done = optimizer.optimize(iterations)
    optimizer.compute_active_errors()
    poses, points = _read(problem, optimizer)
    return solution_at(problem, poses, points, active, robust, max(done, 0), cost=optimizer.active_robust_chi2())


def build(problem: Problem, active: np.ndarray, robust: bool) -> g2opy.SparseOptimizer:
    """The graph of the active observations, poses numbered 0..K-1, point j as K + j."""
    lines, edges = _text(problem, active)
    optimizer = g2opy.SparseOptimizer()
    optimizer.set_algorithm(g2opy.OptimizationAlgorithmLevenberg(g2opy.BlockSolverSE3(g2opy.LinearSolverEigenSE3())))
    folder = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
    with tempfile.NamedTemporaryFile("w", suffix=".g2o", dir=folder) as file:
        file.write(lines)
        file.flush()
        loaded = optimizer.load(file.name)
    if not loaded or len(optimizer.edges()) != edges:
        raise RuntimeError(f"g2o read {len(optimizer.edges())} of {edges} edges")
    for number, vertex in optimizer.vertices().items():
        if number >= len(problem.poses):
            vertex.set_marginalized(True)
    _complete_edges(optimizer, problem, robust)
    return optimizer


def _text(problem: Problem, active: np.ndarray) -> tuple[str, int]:
    """g2o's text of the graph, and its number of edges. Poses and points without observations are left out."""
    stereo = problem.is_stereo[active]
    pose, point = problem.pose_index[active], problem.point_index[active]
    used_poses, used_points = np.unique(pose), np.unique(point)
    T = problem.poses[used_poses]
    wu, wd = problem.weight[active].T
    u, v = problem.uv[active].T
    right = u - problem.disparity[active]
    point_id = len(problem.poses) + point
    mono = np.column_stack([point_id, pose, u, v, wu, wu])[~stereo]
    both = np.column_stack([point_id, pose, u, v, right, wu + wd, -wd, wu, wd])[stereo]
    text = [
        _lines(POSE_LINE, np.column_stack([used_poses, T[:, :3, 3], quaternion_from_rotation(T[:, :3, :3])])),
        _lines(FIXED_LINE, used_poses[problem.fixed[used_poses], None]),
        _lines(POINT_LINE, np.column_stack([len(problem.poses) + used_points, problem.points[used_points]])),
        _lines(MONO_LINE, mono),
        _lines(STEREO_LINE, both),
    ]
    return "".join(text), len(mono) + len(both)


def _lines(line: str, rows: np.ndarray) -> str:
    return line * len(rows) % tuple(rows.ravel().tolist())


def _complete_edges(optimizer: g2opy.SparseOptimizer, problem: Problem, robust: bool) -> None:
    """Set what the text format lacks: intrinsics and Huber kernels (one of each kind serves all edges)."""
    fx, fy, cx, cy, bf = map(float, problem.pinhole)
    mono_kernel, stereo_kernel = g2opy.RobustKernelHuber(sqrt(MONO_GATE)), g2opy.RobustKernelHuber(sqrt(STEREO_GATE))
    for edge in optimizer.edges():
        edge.fx, edge.fy, edge.cx, edge.cy = fx, fy, cx, cy
        stereo = edge.dimension() == 3
        if stereo:
            edge.bf = bf
        if robust:
            edge.set_robust_kernel(stereo_kernel if stereo else mono_kernel)


def _read(problem: Problem, optimizer: g2opy.SparseOptimizer) -> tuple[np.ndarray, np.ndarray]:
    """Poses and points after optimising; fixed and absent ones as they were."""
    poses, points = problem.poses.astype(np.float64), problem.points.astype(np.float64)
    for number, vertex in optimizer.vertices().items():
        if number >= len(poses):
            points[number - len(poses)] = vertex.estimate()
        elif not problem.fixed[number]:
            poses[number] = vertex.estimate().matrix()
    return poses, points
