"""Corrections of the whole map: what keyframes see stays where they see it, the young follow, the epoch rises."""

import numpy as np

from tests.places.turning import filmed
from tests.world import CAMERA
from vslam.config import load_config
from vslam.geometry import se3
from vslam.mapping.bundle import adjust
from vslam.mapping.correct import correct_map
from vslam.mapping.essential import count_shared, essential_graph
from vslam.mapping.whole import commit_whole, whole_problem
from vslam.system import System

FRAMES = 45
MOVE = se3.exp(np.array([0.3, -0.1, 0.2, 0.1, 0.4, -0.2]))


def mapped():
    """The mapper after half a turn."""
    with System(
        CAMERA, load_config(None, ["extractor.max_keypoints=400", "place.name=none"]), "deterministic"
    ) as system:
        for frame in filmed()[:FRAMES]:
            system.track(frame)
        return system._mapper


def projections(map_):
    """Where each keyframe sees the points that it itself has made: their places in its camera frame."""
    seen = {}
    for keyframe, slot in map_.slot_of.items():
        rows = map_.keyframes.point[slot]
        rows = rows[rows >= 0]
        rows = rows[map_.points.born[rows] == keyframe]
        T_cw = map_.keyframes.T_cw[slot]
        seen[keyframe] = map_.points.xyz[rows] @ T_cw[:3, :3].T + T_cw[:3, 3]
    return seen


def test_points_stay_where_their_keyframe_sees_them():
    map_ = mapped().map
    before, epoch = projections(map_), map_.epoch
    rng = np.random.default_rng(1)
    poses = {k: se3.exp(rng.normal(0, 0.1, 6)) @ map_.pose(k) for k in map_.slot_of}
    correct_map(map_, poses)
    for keyframe, T_cw in poses.items():
        np.testing.assert_allclose(map_.pose(keyframe), T_cw, atol=1e-9)
        np.testing.assert_allclose(projections(map_)[keyframe], before[keyframe], atol=1e-9)
    assert map_.epoch == epoch + 1


def test_young_keyframes_follow_the_last_known_one():
    map_ = mapped().map
    ids = sorted(map_.slot_of)
    known, young = ids[:-2], ids[-2:]
    relative = [map_.pose(k) @ se3.inverse(map_.pose(known[-1])) for k in young]
    correct_map(map_, {k: map_.pose(k) @ MOVE for k in known})
    for k, T in zip(young, relative, strict=True):
        np.testing.assert_allclose(map_.pose(k) @ se3.inverse(map_.pose(known[-1])), T, atol=1e-9)


def test_moving_the_whole_world_changes_nothing_seen():
    map_ = mapped().map
    graph = essential_graph(map_)
    correct_map(map_, {k: map_.pose(k) @ MOVE for k in map_.slot_of})
    again = essential_graph(map_)
    np.testing.assert_array_equal(graph.links, again.links)
    relative = [g.T_cw[g.links[:, 1]] @ np.linalg.inv(g.T_cw[g.links[:, 0]]) for g in (graph, again)]
    np.testing.assert_allclose(*relative, atol=1e-9)
    assert again.epoch == graph.epoch + 1


def test_shared_points_are_counted_as_sets():
    map_ = mapped().map
    slots = np.array(list(map_.slot_of.values()), np.int64)
    shared = count_shared(map_.keyframes.point[slots], map_.points.capacity)
    seen = [set(map_.keyframes.point[slot].tolist()) - {-1} for slot in slots]
    naive = [[len(a & b) if a is not b else 0 for b in seen] for a in seen]
    np.testing.assert_array_equal(shared, naive)


def test_whole_adjustment_pulls_disturbed_keyframes_back():
    mapper = mapped()
    map_ = mapper.map
    truth = {k: map_.pose(k).copy() for k in map_.slot_of}
    rng = np.random.default_rng(2)
    correct_map(map_, {k: se3.exp(rng.normal(0, 0.01, 6)) @ T if k else T for k, T in truth.items()})
    whole = whole_problem(map_, CAMERA)
    assert commit_whole(map_, whole, adjust(whole.problem))
    error = np.array([se3.log(map_.pose(k) @ se3.inverse(T)) for k, T in truth.items()])
    assert np.abs(error).max() < 0.01 and np.abs(error).mean() < 0.002  # disturbed by 0.01 in each


def test_adjustment_of_an_older_epoch_is_dropped():
    mapper = mapped()
    map_ = mapper.map
    whole = whole_problem(map_, CAMERA)
    correct_map(map_, {k: map_.pose(k) @ MOVE for k in map_.slot_of})
    before = map_.keyframes.T_cw.copy()
    assert not commit_whole(map_, whole, adjust(whole.problem))
    np.testing.assert_array_equal(map_.keyframes.T_cw, before)


def test_keyframes_taken_in_during_the_adjustment_follow_it():
    with System(
        CAMERA, load_config(None, ["extractor.max_keypoints=400", "place.name=none"]), "deterministic"
    ) as system:
        for frame in filmed()[:30]:
            system.track(frame)
        map_ = system._mapper.map
        whole = whole_problem(map_, CAMERA)
        solution = adjust(whole.problem)
        for frame in filmed()[30:FRAMES]:
            system.track(frame)
        late = [k for k in map_.slot_of if k > whole.id.max()]
        assert late and commit_whole(map_, whole, solution)
        assert np.isfinite(map_.keyframes.T_cw).all() and np.isfinite(map_.points.xyz).all()
