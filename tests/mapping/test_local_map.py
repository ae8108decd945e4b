"""The tracker's copy of the map: what is in it, and that nothing changes it."""

from dataclasses import fields

import numpy as np

from tests.mapping.map_of_points import make_map
from tests.world import Points, scatter
from vslam.geometry import se3
from vslam.mapping.local_map import LINKED, build_local_map, is_linked


def rows_seen(made, *keyframes) -> set[int]:
    return {int(p) for k in keyframes for p in made.map.keyframes.point[made.slot(k)] if p >= 0}


def test_local_map_holds_the_points_around_the_keyframe():
    made = make_map(6)
    local_map = build_local_map(made.map, made.slot(5), 20)
    assert set(local_map.row) == rows_seen(made, *range(6)) and len(set(local_map.row)) == len(local_map)
    assert set(local_map.row[local_map.in_reference]) == rows_seen(made, 5)
    assert local_map.reference == 5 and local_map.epoch == made.map.epoch
    points = made.map.points
    for name in ("generation", "xyz", "normal", "size", "words"):
        assert np.array_equal(getattr(local_map, name), getattr(points, name)[local_map.row])


def test_far_keyframes_without_common_points_stay_out():
    turn = se3.exp([0, 0, 0, 0, 2.4, 0])  # points before the first keyframes, and others behind their backs
    before, behind = scatter(200), scatter(200, seed=1)
    xyz = np.concatenate([before.xyz, behind.xyz @ turn[:3, :3]])
    world = Points(xyz, np.concatenate([before.descriptors, behind.descriptors]))
    made = make_map(at=[0, 0.05, 3.0, 3.05], step=np.array([0, 0, 0, 0, 0.8, 0]), world=world)
    assert len(rows_seen(made, 2, 3)) > 100
    local_map = build_local_map(made.map, made.slot(1), 20)
    assert set(local_map.row) == rows_seen(made, 0, 1)


def test_near_keyframes_without_common_points_come_along():
    made = make_map(at=[0, 1, 2], twice=True)
    assert not rows_seen(made, 0) & rows_seen(made, 2)
    local_map = build_local_map(made.map, made.slot(2), 20)
    assert rows_seen(made, 0) <= set(local_map.row)


def test_near_keyframes_of_long_ago_come_along_once_they_are_linked():
    made = make_map(at=[0, 1, 2], twice=True)
    times = made.map.timestamp_of
    age = times[2] - times[0]
    assert rows_seen(made, 0) <= set(build_local_map(made.map, made.slot(2), 20, near_s=age).row)
    assert not rows_seen(made, 0) & set(build_local_map(made.map, made.slot(2), 20, near_s=0.9 * age).row)
    common = sorted(rows_seen(made, 0))[:LINKED]
    for count, comes in ((LINKED - 1, False), (LINKED, True)):
        rows = np.array(common[:count], np.int32)
        slot = made.slot(2)
        made.map.keyframes.point[slot, : len(rows)] = rows
        local_map = build_local_map(made.map, slot, 0, near_s=0.9 * age)
        assert not len(set(local_map.row) - rows_seen(made, 2))  # none wanted
        near = is_linked(made.map, np.array([made.slot(0)]), np.array([slot]))
        assert near.tolist() == [comes]


def test_of_keyframes_left_out_only_what_others_see_counts():
    made = make_map(6)
    local_map = build_local_map(made.map, made.slot(2), 20, without=[4, 5, 99])
    assert set(local_map.row) == rows_seen(made, 0, 1, 2, 3)


def test_poses_of_all_recent_keyframes_go_along_removed_ones_too():
    made = make_map(6)
    made.map.remove_keyframe(2, 3)
    local_map = build_local_map(made.map, made.slot(5), 20)
    assert set(local_map.T_cw) == set(range(6))
    for keyframe, T_cw in local_map.T_cw.items():
        np.testing.assert_allclose(T_cw, made.T_cw[keyframe], atol=1e-9)


def test_later_changes_of_the_map_do_not_reach_it():
    made = make_map(6)
    local_map = build_local_map(made.map, made.slot(5), 20)
    arrays = {f.name: getattr(local_map, f.name).copy() for f in fields(local_map)
              if isinstance(getattr(local_map, f.name), np.ndarray)}  # fmt: skip
    poses = {k: T.copy() for k, T in local_map.T_cw.items()}
    assert {"row", "generation", "xyz", "normal", "size", "words", "in_reference"} <= set(arrays)
    points, keyframes = made.map.points, made.map.keyframes
    made.map.remove_points(local_map.row[:20])
    points.xyz[:] += 1
    points.normal[:], points.size[:], points.words[:] = 0, 0, 0
    keyframes.T_cw[:] = se3.exp(np.ones(6))
    made.map.remove_keyframe(3, 4)
    for name, before in arrays.items():
        assert np.array_equal(getattr(local_map, name), before), name
    assert all(np.array_equal(local_map.T_cw[k], T) for k, T in poses.items())


def test_generation_tells_who_is_gone():
    made = make_map(3)
    local_map = build_local_map(made.map, made.slot(2), 20)
    made.map.remove_points(local_map.row[:7])
    current = made.map.points.generation[local_map.row] == local_map.generation
    assert not current[:7].any() and current[7:].all()
