"""Pose-graph optimisation by g2o: a loop's error spread over the way that led to it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import g2opy
import numpy as np

from vslam.geometry import se3
from vslam.geometry.se3 import quaternion_from_rotation

VERTEX = "VERTEX_SE3:QUAT %d %.17g %.17g %.17g %.17g %.17g %.17g %.17g\n"
EDGE = "EDGE_SE3:QUAT %d %d" + " %.17g" * 28 + "\n"
MEMORY_FOLDER = Path("/dev/shm")  # files that are never written to a disk, on Linux
SIGMA_M, SIGMA_RAD = 0.01, 0.002
"""How far a link of weight 1 bends: a pixel at a few metres turns and shifts about so."""
ITERATIONS = 50


def optimise(T_cw: np.ndarray, links: np.ndarray, T_b_a: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Poses (K, 4, 4) `T_cw` that agree best with the relative poses of `links` (E, 2); the first keyframe holds.

    `T_b_a` (E, 4, 4) maps camera a = links[:, 0] to camera b = links[:, 1]; `weight` (E,) multiplies the information.
    """
    optimizer = g2opy.SparseOptimizer()
    optimizer.set_algorithm(g2opy.OptimizationAlgorithmLevenberg(g2opy.BlockSolverSE3(g2opy.LinearSolverEigenSE3())))
    with tempfile.NamedTemporaryFile("w", suffix=".g2o", dir=MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None) as file:
        file.write(_text(T_cw, links, T_b_a, weight))
        file.flush()
        if not optimizer.load(file.name) or len(optimizer.edges()) != len(links):
            raise RuntimeError(f"g2o read {len(optimizer.edges())} of {len(links)} links")
    enough = g2opy.SparseOptimizerTerminateAction()
    enough.set_gain_threshold(1e-6)
    optimizer.add_post_iteration_action(enough)
    optimizer.initialize_optimization()
    optimizer.optimize(ITERATIONS)
    found = T_cw.copy()
    for number, vertex in optimizer.vertices().items():
        found[number] = se3.inverse(vertex.estimate().matrix())
    return found


def _text(T_cw: np.ndarray, links: np.ndarray, T_b_a: np.ndarray, weight: np.ndarray) -> str:
    """g2o's text of the graph. Its vertices are `T_world_camera`, its edges `T_a_b`."""
    used = np.unique(np.append(links, 0))
    information = np.zeros((len(links), 21))  # upper triangle, translation first
    information[:, [0, 6, 11]] = 1.0 / SIGMA_M**2
    information[:, [15, 18, 20]] = 4.0 / SIGMA_RAD**2  # of the quaternion's x, y, z: half the angle
    edges = np.column_stack([links, _seven(T_b_a), information * weight[:, None]])
    return (
        "".join(VERTEX % tuple(row) for row in np.column_stack([used, _seven(T_cw[used])]).tolist())
        + "FIX 0\n"
        + "".join(EDGE % tuple(row) for row in edges.tolist())
    )


def _seven(T: np.ndarray) -> np.ndarray:
    """Translation and quaternion x, y, z, w (N, 7) of the inverses of poses (N, 4, 4)."""
    rotation = np.swapaxes(T[:, :3, :3], 1, 2)
    return np.column_stack([-np.einsum("nij,nj->ni", rotation, T[:, :3, 3]), quaternion_from_rotation(rotation)])
