"""Loops: a drifted map is closed, a straight one left alone, what is no loop refused, and everything written down."""

from dataclasses import replace

import numpy as np
import pytest

from tests.mapping.map_of_points import make_map
from tests.places.turning import DRIFT, FRAMES, ROUND, errors, filmed, turn_round
from tests.world import CAMERA
from vslam.config import MappingConfig, load_config
from vslam.features.orb import Orb
from vslam.mapping.local_map import LINKED
from vslam.mapping.local_mapper import LocalMapper
from vslam.places.loop_closer import revisited
from vslam.places.returns import visits
from vslam.system import System
from vslam.types import NewKeyframe, State

NEAR_M, NEAR_RAD = 0.04, 0.015
"""Mean error of a closed turn: a fifth of the drift of 0.16 m, a tenth of its 8 degrees."""


@pytest.mark.parametrize("mode", ["deterministic", "threaded"])
def test_drifted_turn_is_closed(mode):
    system, answers, trajectory = turn_round(mode)
    assert all(answer.state == State.OK for answer in answers) and len(trajectory) == FRAMES
    closed = [each for each in system.audit if each.accepted]
    assert [each.reason for each in closed[:1]] == ["closed"]
    assert all(abs(each.t_query - each.t_match - ROUND / 30) < 1.0 for each in closed)
    mean = errors(trajectory.poses).mean(axis=0)
    assert mean[0] < NEAR_M and mean[1] < NEAR_RAD
    assert system.loop_cpu_s > 0


def test_without_loops_the_drift_stays():
    system, _, trajectory = turn_round("deterministic", "loop.close=false")
    assert system.audit == ()
    assert errors(trajectory.poses)[:, 0].max() > 0.8 * np.linalg.norm(DRIFT[:3])


def test_closing_is_the_same_to_the_last_bit():
    first, again = (turn_round("deterministic")[2].poses.tobytes() for _ in range(2))
    assert first == again


def test_global_adjustment_after_the_loop_keeps_it_closed():
    _, _, trajectory = turn_round("deterministic", "loop.global_iterations=20")
    mean = errors(trajectory.poses).mean(axis=0)
    assert mean[0] < NEAR_M and mean[1] < NEAR_RAD


LITTLE = ("loop.least_m=0.1", "loop.least_deg=4")
"""Errors of the way that are left alone; a turn of 90 frames in this small room is off by 2 cm and 1.5 degrees."""


def shared_by_ends(system) -> int:
    """Points that the first and the last keyframe both see."""
    map_ = system.map
    first, last = (set(map_.keyframes.point[map_.slot_of[k]]) - {-1} for k in (0, max(map_.slot_of)))
    return len(first & last)


def test_straight_map_is_linked_but_not_bent():
    system, _, _ = turn_round("deterministic", "loop.global_iterations=0", *LITTLE, drift_at=-1)
    assert [each.reason for each in system.audit if each.accepted][:1] == ["agrees with the map"]
    assert system.map.epoch == 0 and system.loops == 1
    apart, _, _ = turn_round("deterministic", "loop.close=false", drift_at=-1)
    assert shared_by_ends(system) >= LINKED > shared_by_ends(apart)


def test_straight_map_is_adjusted_as_a_whole():
    """The rest of the way's error is spread over all of it."""
    system, _, adjusted = turn_round("deterministic", "loop.global_iterations=20", *LITTLE, drift_at=-1)
    assert [each.reason for each in system.audit if each.accepted][:1] == ["agrees with the map"]
    local = turn_round("deterministic", "loop.close=false", drift_at=-1)[2]
    assert system.map.epoch == 1
    assert (errors(adjusted.poses).mean(axis=0) < errors(local.poses).mean(axis=0)).all()


def test_a_place_is_recognised_by_what_was_mapped_then():
    """What the way back has mapped of it lies near, and would say that the camera is where it thinks to be."""
    made = make_map(at=[0, 1, 2, 3], twice=True)
    mapper = LocalMapper(CAMERA, Orb(), MappingConfig(), 1000)
    mapper.map = made.map
    seen = [set(made.map.keyframes.point[made.slot(k)]) - {-1} for k in range(4)]
    assert seen[2] - seen[0] <= set(mapper.compare(3, 0, 20).place.row)
    place = mapper.compare(3, 0, 20, young=[2, 3]).place
    assert set(place.row) == seen[0] | seen[1]


def test_drift_that_cannot_be_is_refused_with_the_figures():
    system, _, trajectory = turn_round("deterministic", "loop.drift_m=0.01", "loop.drift_share=0.0")
    refused = [each.reason for each in system.audit if "implies a drift of" in each.reason]
    assert refused and not any(each.accepted for each in system.audit)
    assert errors(trajectory.poses)[:, 0].max() > 0.1


def test_one_witness_closes_nothing():
    system, _, _ = turn_round("deterministic", "loop.witnesses=100")
    reasons = {each.reason for each in system.audit}
    assert "waits for a second keyframe" in reasons and not any(each.accepted for each in system.audit)


def test_first_visit_has_no_loop():
    with System(CAMERA, load_config(None, ["extractor.max_keypoints=600"]), "deterministic") as system:
        for frame in filmed()[:ROUND]:
            system.track(frame)
        assert not any(each.accepted for each in system.audit)


def test_broken_network_ends_the_run_with_what_there_is(monkeypatch):
    from vslam.places.descriptor import Gem

    def describe(self, image):
        raise RuntimeError("no memory")

    frames = filmed()
    with System(CAMERA, load_config(None, ["extractor.max_keypoints=600"]), "deterministic") as system:
        system.track(frames[0])
        monkeypatch.setattr(Gem, "describe", describe)
        with pytest.raises(RuntimeError, match="no memory"):
            [system.track(frame) for frame in frames[1:]]
        assert len(system.trajectory()) > 1


def linked(covisible_at: dict[int, float], t: float, shared: int = 50) -> NewKeyframe:
    """A keyframe that shares points with others of these times."""
    covisible = dict.fromkeys(covisible_at, shared)
    return NewKeyframe(99, t, None, None, np.eye(4), covisible, covisible_at)


def test_a_view_never_left_is_no_revisit():
    assert revisited(linked({k: float(k) for k in range(30)}, 30.0), 10.0) is None


def test_a_view_left_for_long_is_a_revisit():
    keyframe = linked({1: 1.0, 2: 2.0, 50: 28.0}, 30.0)
    keyframe = replace(keyframe, covisible={1: 40, 2: 60, 50: 200})
    assert revisited(keyframe, 10.0) == 2


def test_a_view_left_for_a_moment_counts_once_the_old_one_is_old():
    seen = {1: 1.0, 2: 4.0, 3: 9.0, 4: 10.2}
    assert revisited(linked(seen, 12.0), 10.0) == 1
    assert revisited(linked(seen, 10.5), 10.0) is None


def test_few_shared_points_are_no_revisit():
    assert revisited(linked({1: 1.0}, 30.0, shared=5), 10.0) is None


@pytest.mark.parametrize(
    ("seen", "count"), [([], 0), ([5.0], 1), ([5, 6, 14, 24], 1), ([5, 15.1], 2), ([20, 21, 40, 41, 42, 80], 3)]
)
def test_a_visit_is_counted_once_however_many_keyframes_show_the_place(seen, count):
    assert visits(seen, gap_s=10.0) == count
