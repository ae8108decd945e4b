"""The pose graph: a loop's error is spread over the way, most of it where the way is weak."""

import numpy as np
import pytest

from vslam.geometry import se3, sim3
from vslam.places.pose_graph import optimise, optimise_similarities

NODES = 60


def ring() -> np.ndarray:
    """`T_cw` (K, 4, 4) of a camera that walks a circle of 3 m looking ahead, at the origin first."""
    step = se3.exp(np.array([0.0, 0.0, -2 * np.pi * 3.0 / NODES, 0.0, -2 * np.pi / NODES, 0.0]))
    poses = [np.eye(4)]
    for _ in range(NODES - 1):
        poses.append(step @ poses[-1])
    return np.array(poses)


def chained(relative: np.ndarray) -> np.ndarray:
    poses = [np.eye(4)]
    for T_b_a in relative:
        poses.append(T_b_a @ poses[-1])
    return np.array(poses)


def close(relative: np.ndarray, T_cw: np.ndarray, weight: float | np.ndarray = 1.0) -> np.ndarray:
    """Optimise the chain of `relative` (K - 1, 4, 4) with the true link from the last keyframe to the first."""
    truth = ring()
    follows = np.arange(NODES - 1)
    links = np.concatenate([np.column_stack([follows, follows + 1]), [[0, NODES - 1]]])
    measured = np.concatenate([relative, [truth[-1] @ np.linalg.inv(truth[0])]])
    weight = np.append(np.broadcast_to(weight, NODES - 1), 2.0)
    return optimise(T_cw, links, measured, weight)


def distance(T_cw: np.ndarray) -> np.ndarray:
    truth = np.linalg.inv(ring())[:, :3, 3]
    return np.linalg.norm(np.linalg.inv(T_cw)[:, :3, 3] - truth, axis=1)


def true_steps() -> np.ndarray:
    truth = ring()
    return truth[1:] @ np.linalg.inv(truth[:-1])


def test_perfect_ring_stays():
    found = close(true_steps(), ring())
    np.testing.assert_allclose(found, ring(), atol=1e-6)


def test_steady_drift_is_spread_over_the_way():
    drift = se3.exp(np.array([0.002, 0.0, 0.002, 0.0, 0.0005, 0.0]))
    relative = drift @ true_steps()
    start = chained(relative)
    found = close(relative, start)
    np.testing.assert_allclose(found[0], np.eye(4), atol=1e-9)
    assert distance(start)[-1] > 0.08 and distance(found)[-1] < 1e-3
    assert distance(found).max() < 0.7 * distance(start).max()
    bent = np.linalg.norm(se3.log(found[1:] @ np.linalg.inv(found[:-1]) @ np.linalg.inv(relative)), axis=1)
    assert bent.max() < 3 * bent.mean()


def test_weak_link_takes_the_error_of_a_gap():
    """A step that went wrong where few points were shared: it gives way, and the rest keeps its shape."""
    relative = true_steps()
    relative[40] = se3.exp(np.array([0.1, 0.0, 0.1, 0.0, 0.1, 0.0])) @ relative[40]
    start = chained(relative)
    found = close(relative, start, np.where(np.arange(NODES - 1) == 40, 0.001, 1.0))
    assert distance(start)[-1] > 0.15
    assert distance(found).max() < 0.03


# -- scale ------------------------------------------------------------------------------------------------------


def close_scaled(steps: np.ndarray, loop: np.ndarray) -> np.ndarray:
    """Optimise the chain of `steps` (K - 1, 4, 4) with the link `loop` from the first keyframe to the last."""
    follows = np.arange(NODES - 1)
    links = np.concatenate([np.column_stack([follows, follows + 1]), [[0, NODES - 1]]])
    measured = np.concatenate([steps, loop[None]])
    return optimise_similarities(chained(steps), links, measured, np.append(np.ones(NODES - 1), 2.0))


def drifting_scale(grown: float) -> tuple[np.ndarray, np.ndarray]:
    """True steps in metres that grow steadily to so many real ones: what odometry says, and the loop's link."""
    metre = grown ** (np.arange(NODES) / (NODES - 1))
    steps = true_steps()
    steps[:, :3, 3] /= metre[:-1, None]
    return steps, sim3.compose(1 / grown, ring()[-1])


@pytest.mark.parametrize("grown", [0.8, 0.94, 1.1])
def test_scale_drift_round_a_loop_is_mended(grown):
    steps, loop = drifting_scale(grown)
    start, (scale, T_cw) = chained(steps), sim3.split(close_scaled(steps, loop))
    np.testing.assert_allclose(scale, grown ** -(np.arange(NODES) / (NODES - 1)), rtol=2e-3)
    assert distance(T_cw).max() < 0.02 * distance(start).max()


def test_without_scale_drift_it_is_the_rigid_answer():
    drift = se3.exp(np.array([0.002, 0.0, 0.002, 0.0, 0.0005, 0.0]))
    steps = drift @ true_steps()
    rigid = close(steps, chained(steps))
    scale, T_cw = sim3.split(close_scaled(steps, ring()[-1]))
    moved = np.linalg.norm(np.linalg.inv(rigid)[:, :3, 3] - np.linalg.inv(chained(steps))[:, :3, 3], axis=1).max()
    apart = np.linalg.norm(np.linalg.inv(T_cw)[:, :3, 3] - np.linalg.inv(rigid)[:, :3, 3], axis=1).max()
    assert apart < 0.02 * moved
    np.testing.assert_allclose(scale, 1.0, atol=0.001)
