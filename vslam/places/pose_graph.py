"""Pose-graph optimisation by g2o: a loop's error spread over the way that led to it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import g2opy
import numpy as np

from vslam.geometry import se3, sim3
from vslam.geometry.se3 import quaternion_from_rotation

VERTEX = "VERTEX_SE3:QUAT %d" + " %.17g" * 7 + "\n"
EDGE = "EDGE_SE3:QUAT %d %d" + " %.17g" * 28 + "\n"
VERTEX_SIM3 = "VERTEX_SIM3:EXPMAP %d" + " %.17g" * 8 + "\n"
EDGE_SIM3 = "EDGE_SIM3:EXPMAP %d %d" + " %.17g" * 36 + "\n"
MEMORY_FOLDER = Path("/dev/shm")  # files that are never written to a disk, on Linux
SIGMA_M, SIGMA_RAD = 0.01, 0.002
"""How far a link of weight 1 bends: a pixel at a few metres turns and shifts about so."""
SIGMA_SCALE = 0.005
"""How much such a link stretches: SIGMA_M at two metres."""
ITERATIONS = 50


def optimise(T_cw: np.ndarray, links: np.ndarray, T_b_a: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Poses (K, 4, 4) `T_cw` that agree best with the relative poses of `links` (E, 2); the first keyframe holds.

    `T_b_a` (E, 4, 4) maps camera a = links[:, 0] to camera b = links[:, 1]; `weight` (E,) multiplies the information.
    """
    solver = g2opy.BlockSolverSE3(g2opy.LinearSolverEigenSE3())
    found = T_cw.copy()
    for number, estimate in _solved(_rigid_text(T_cw, links, T_b_a, weight), len(links), solver).items():
        found[number] = se3.inverse(estimate.matrix())
    return found


def optimise_similarities(S_cw: np.ndarray, links: np.ndarray, S_b_a: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`optimise` where scale may drift as well: similarities (K, 4, 4), from the world to each camera's own metres.

    Strasdat, Montiel and Davison, "Scale drift-aware large scale monocular SLAM", RSS 2010.
    """
    solver = g2opy.BlockSolverSim3(g2opy.LinearSolverEigenSim3())
    found = S_cw.copy()
    for number, estimate in _solved(_similar_text(S_cw, links, S_b_a, weight), len(links), solver).items():
        found[number, :3, :3] = estimate.scale() * estimate.rotation().matrix()
        found[number, :3, 3] = estimate.translation()
    return found


def _solved(text: str, links: int, solver) -> dict:
    """The vertices' estimates by number, of a graph in g2o's text."""
    optimizer = g2opy.SparseOptimizer()
    optimizer.set_algorithm(g2opy.OptimizationAlgorithmLevenberg(solver))
    with tempfile.NamedTemporaryFile("w", suffix=".g2o", dir=MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None) as file:
        file.write(text)
        file.flush()
        if not optimizer.load(file.name) or len(optimizer.edges()) != links:
            raise RuntimeError(f"g2o read {len(optimizer.edges())} of {links} links")
    enough = g2opy.SparseOptimizerTerminateAction()
    enough.set_gain_threshold(1e-6)
    optimizer.add_post_iteration_action(enough)
    optimizer.initialize_optimization()
    optimizer.optimize(ITERATIONS)
    return {number: vertex.estimate() for number, vertex in optimizer.vertices().items()}


def _rigid_text(T_cw: np.ndarray, links: np.ndarray, T_b_a: np.ndarray, weight: np.ndarray) -> str:
    """g2o's text of the graph. Its vertices are `T_world_camera`, its edges `T_a_b`."""
    information = np.zeros((len(links), 21))  # upper triangle, translation first
    information[:, [0, 6, 11]] = 1.0 / SIGMA_M**2
    information[:, [15, 18, 20]] = 4.0 / SIGMA_RAD**2  # of the quaternion's x, y, z: half the angle
    used = np.unique(np.append(links, 0))
    vertices = np.column_stack([used, _seven(T_cw[used])])
    return _text(VERTEX, vertices, EDGE, np.column_stack([links, _seven(T_b_a), information * weight[:, None]]))


def _similar_text(S_cw: np.ndarray, links: np.ndarray, S_b_a: np.ndarray, weight: np.ndarray) -> str:
    """The same of similarities. Vertices are `S_cw`, edges `S_b_a`."""
    information = np.zeros((len(links), 28))  # upper triangle, rotation first, scale last
    information[:, [0, 7, 13]] = 1.0 / SIGMA_RAD**2
    information[:, [18, 22, 25]] = 1.0 / SIGMA_M**2
    information[:, 27] = 1.0 / SIGMA_SCALE**2
    used = np.unique(np.append(links, 0))
    vertices = np.column_stack([used, _eight(S_cw[used])])
    return _text(
        VERTEX_SIM3, vertices, EDGE_SIM3, np.column_stack([links, _eight(S_b_a), information * weight[:, None]])
    )


def _text(vertex: str, vertices: np.ndarray, edge: str, edges: np.ndarray) -> str:
    lines = [vertex % tuple(row) for row in vertices.tolist()]
    return "".join([*lines, "FIX 0\n", *(edge % tuple(row) for row in edges.tolist())])


def _seven(T: np.ndarray) -> np.ndarray:
    """Translation and quaternion x, y, z, w (N, 7) of the inverses of poses (N, 4, 4)."""
    rotation = np.swapaxes(T[:, :3, :3], 1, 2)
    return np.column_stack([-np.einsum("nij,nj->ni", rotation, T[:, :3, 3]), quaternion_from_rotation(rotation)])


def _eight(S: np.ndarray) -> np.ndarray:
    """Quaternion x, y, z, w, translation and scale (N, 8) of similarities (N, 4, 4)."""
    scale, T = sim3.split(S)
    return np.column_stack([quaternion_from_rotation(T[:, :3, :3]), S[:, :3, 3], scale])
