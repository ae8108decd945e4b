"""A depth camera whose metre grows on the way round: the loop is closed by a similarity, and the map has one scale."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.mapping.map_of_points import make_map
from tests.places.turning import DRIFT, ROUND, SETTINGS, filmed, path, turn_round
from tests.world import CAMERA, ROOM_M
from vslam.config import load_config
from vslam.geometry import se3, sim3
from vslam.geometry.alignment import umeyama
from vslam.mapping.correct import correct_map
from vslam.mapping.essential import EssentialGraph
from vslam.places.loop_closer import bend
from vslam.places.returns import Return
from vslam.system import System, pose_of
from vslam.tracking.tracker import Anchor

MUCH, LITTLE = 0.1, 0.05
"""By what part depth has grown after one turn."""


@cache
def mended(scale: str, grown: float) -> tuple[System, np.ndarray, np.ndarray]:
    """The turn with growing depth; where the keyframes were and how far points are off the walls, at the true scale."""
    config = load_config(None, [*SETTINGS, f"loop.scale={scale}"])
    with System(CAMERA, config, "deterministic") as system:
        for k, frame in enumerate(filmed()):
            system.track(replace(frame, depth=(frame.depth * (1 + grown * k / ROUND)).astype(np.float32)))
        keyframes = system.keyframes()
        at = np.rint(keyframes.timestamps * 30).astype(int)
        s, R, t = umeyama(keyframes.poses[:, :3, 3], path()[at, :3, 3], with_scale=True)
        astray = np.linalg.norm(s * keyframes.poses[:, :3, 3] @ R.T + t - path()[at, :3, 3], axis=1)
        walls = np.abs(np.abs(s * system.points()[0] @ R.T + t) - ROOM_M).min(axis=1)
        return system, astray, walls


def test_a_drifted_metre_is_mended():
    system, astray, walls = mended("free", MUCH)
    assert next(each.reason for each in system.audit if each.accepted) == "closed"
    _, astray_fixed, walls_fixed = mended("fixed", MUCH)
    assert astray.mean() < astray_fixed.mean() / 2
    assert np.median(walls) < np.median(walls_fixed) / 2


def test_a_little_drift_of_the_metre_is_mended_too():
    system, astray, walls = mended("free", LITTLE)
    assert next(each.reason for each in system.audit if each.accepted) == "closed" and system.loops == 1
    _, astray_fixed, walls_fixed = mended("fixed", LITTLE)
    assert astray.mean() < astray_fixed.mean() and np.median(walls) < np.median(walls_fixed)


def test_a_metre_that_has_not_drifted_is_left_alone():
    least = ("loop.least_m=0.1", "loop.least_deg=4", "loop.least_scale=0.01", "loop.global_iterations=0")
    system, _, _ = turn_round("deterministic", "loop.scale=free", *least, drift_at=-1)
    assert next(each.reason for each in system.audit if each.accepted) == "agrees with the map"
    assert system.map.epoch == 0 and system.loops == 1


def test_the_metre_of_now_is_kept():
    """Depth to come fits the map: the new metre is the last keyframe's, so the first one's room has grown."""
    system, _, _ = mended("free", MUCH)
    keyframes = system.keyframes()
    at = np.rint(keyframes.timestamps * 30).astype(int)
    real, _, _ = umeyama(keyframes.poses[:, :3, 3], path()[at, :3, 3], with_scale=True)
    closed = next(each for each in system.audit if each.accepted)
    assert real == pytest.approx(1 / (1 + MUCH * closed.t_query * 30 / ROUND), rel=0.01)


def test_without_a_drift_of_scale_it_is_the_rigid_answer():
    """To a twentieth of what the loop moves the map."""
    fixed, free = (turn_round("deterministic", f"loop.scale={scale}")[2].poses for scale in ("fixed", "free"))
    apart = np.linalg.norm(fixed[:, :3, 3] - free[:, :3, 3], axis=1)
    assert 0.0 < apart.max() < np.linalg.norm(DRIFT[:3]) / 20


# -- the map ----------------------------------------------------------------------------------------------------


def residuals(map_) -> np.ndarray:
    """(M, 3) what keyframes see beside what the map says they should: u, v, disparity."""
    rows = []
    for slot in map_.slot_of.values():
        feature = np.flatnonzero(map_.keyframes.point[slot] >= 0)
        p = sim3.apply(map_.keyframes.T_cw[slot], map_.points.xyz[map_.keyframes.point[slot, feature]])
        disparity = CAMERA.pinhole[4] / p[:, 2] - map_.keyframes.disparity[slot, feature]
        rows.append(np.column_stack([CAMERA.project(p) - map_.keyframes.xy[slot, feature], disparity]))
    return np.concatenate(rows)


def test_a_larger_world_looks_the_same():
    """All keyframes and points by one similarity of the world: what is seen where, and how far, stays consistent."""
    map_ = make_map().map
    G = sim3.compose(1.3, se3.exp(np.array([0.3, -0.1, 0.2, 0.1, 0.4, -0.2])))
    size, xyz = map_.points.size.copy(), map_.points.xyz.copy()
    correct_map(map_, {k: map_.pose(k) @ sim3.inverse(G) for k in map_.slot_of})
    alive = map_.points.alive > 0
    np.testing.assert_allclose(map_.points.xyz[alive], sim3.apply(G, xyz[alive]), atol=1e-9)
    np.testing.assert_allclose(map_.points.size[alive], 1.3 * size[alive], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(map_.points.normal[alive], axis=1), 1.0, rtol=1e-5)
    assert np.abs(residuals(map_)).max() < 1e-3  # of float32 pixels
    rotation = np.stack([map_.pose(k)[:3, :3] for k in map_.slot_of])
    np.testing.assert_allclose(
        rotation @ rotation.swapaxes(1, 2), np.tile(np.eye(3), (len(rotation), 1, 1)), atol=1e-12
    )


def test_frames_between_keyframes_grow_with_the_world():
    """Before the growth they count in old metres, later in new ones; one that hung on a removed keyframe too."""
    map_ = make_map().map
    G = sim3.compose(1.3, se3.exp(np.array([0.3, -0.1, 0.2, 0.1, 0.4, -0.2])))
    step = se3.exp(np.array([0.2, 0.1, -0.1, 0.0, 0.3, 0.0]))
    before = [Anchor(0.0, keyframe, step, map_.epoch) for keyframe in map_.slot_of]
    centres = np.stack([se3.inverse(pose_of(anchor, map_))[:3, 3] for anchor in before])
    map_.remove_keyframe(1, 0)
    correct_map(map_, {k: map_.pose(k) @ sim3.inverse(G) for k in map_.slot_of})
    after = np.stack([se3.inverse(pose_of(anchor, map_))[:3, 3] for anchor in before])
    np.testing.assert_allclose(after, sim3.apply(G, centres), atol=1e-9)
    np.testing.assert_allclose(pose_of(Anchor(0.0, 0, step, map_.epoch), map_), step @ map_.pose(0), atol=1e-12)


def test_each_keyframe_takes_what_it_saw_along_by_its_own_scale():
    map_ = make_map().map
    born = map_.points.born.copy()
    before = {k: sim3.apply(map_.pose(k), map_.points.xyz[(map_.points.alive > 0) & (born == k)]) for k in map_.slot_of}
    scale = {k: 1.0 + 0.05 * k for k in map_.slot_of}
    correct_map(map_, {k: sim3.compose(scale[k], map_.pose(k)) for k in map_.slot_of})
    for k, xyz in before.items():
        after = sim3.apply(map_.pose(k), map_.points.xyz[(map_.points.alive > 0) & (born == k)])
        np.testing.assert_allclose(after, xyz / scale[k], atol=1e-9)
        disparity = map_.frames[map_.slot_of[k]].disparity
        in_map = map_.keyframes.disparity[map_.slot_of[k], : len(disparity)]
        np.testing.assert_allclose(disparity, in_map, rtol=1e-6)


def test_young_and_removed_keyframes_take_the_scale_of_those_they_follow():
    map_ = make_map(keyframes=6).map
    map_.remove_keyframe(2, parent=1)
    apart = {k: map_.pose(k) @ se3.inverse(map_.pose(other)) for k, other in ((2, 1), (5, 4))}
    correct_map(map_, {k: sim3.compose(2.0, map_.pose(k)) for k in (0, 1, 3, 4)})
    for k, other in ((2, 1), (5, 4)):
        now = map_.pose(k) @ se3.inverse(map_.pose(other))
        np.testing.assert_allclose(now[:3, :3], apart[k][:3, :3], atol=1e-9)
        np.testing.assert_allclose(now[:3, 3], apart[k][:3, 3] / 2.0, atol=1e-9)


def test_the_bent_graph_keeps_its_first_place_and_its_last_scale():
    T_cw = np.stack([se3.exp(np.array([0.1, 0.0, 0.2, 0.0, 0.3, 0.0]) * k) for k in range(10)])
    follows = np.arange(9)
    graph = EssentialGraph(
        np.arange(10) * 3, T_cw, np.column_stack([follows, follows + 1]).astype(np.int32), np.full(9, 100), 0
    )
    poses = bend(graph, 27, 0, sim3.compose(1.2, T_cw[9]), free=True)
    scale, rigid = sim3.split(np.stack(list(poses.values())))
    assert list(poses) == graph.id.tolist()
    assert scale[-1] == 1.0 and (np.diff(scale) > 0).all() and scale[0] < 0.9
    np.testing.assert_allclose(rigid[0], T_cw[0], atol=1e-9)


# -- when to believe it -----------------------------------------------------------------------------------------


def test_a_scale_that_cannot_be_is_refused_with_the_figure():
    settings = load_config(None, []).loop
    assert Return(9, np.eye(4), np.eye(4), 1.1).implausible(10.0, 90.0, settings) == ""
    assert "scale by -40 %" in Return(9, np.eye(4), np.eye(4), 0.6).implausible(10.0, 90.0, settings)


def test_a_drift_of_scale_alone_is_not_straight():
    settings = load_config(None, []).loop
    assert Return(9, np.eye(4), np.eye(4), 1.0).is_straight(settings)
    assert not Return(9, np.eye(4), np.eye(4), 1.03).is_straight(settings)


def test_witnesses_must_agree_on_the_scale():
    """Two cameras of one loop, whose metres are 1.06 of the old map's: they agree; one that says 1.0 does not."""
    settings = load_config(None, []).loop
    step, then = se3.exp(np.array([0.4, 0.0, 0.1, 0.0, 0.3, 0.0])), se3.exp(np.array([0.2, 0.1, 0.0, 0.0, 0.1, 0.0]))
    longer = step.copy()
    longer[:3, 3] *= 1.06
    first, second = Return(8, np.eye(4), then, 1.06), Return(9, longer, step @ then, 1.06)
    assert second.agrees(first, settings)
    np.testing.assert_allclose(first.expected(longer), second.T_then, atol=1e-9)
    assert not second.agrees(replace(first, scale=1.0), settings)
