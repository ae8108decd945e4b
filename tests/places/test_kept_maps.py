"""Maps that are kept: gone on in by another run, tracked in without a change, and refused where they do not fit."""

from dataclasses import replace

import numpy as np
import pytest

from tests.places.turning import SETTINGS, filmed
from tests.world import CAMERA
from vslam.config import load_config
from vslam.errors import VslamError
from vslam.geometry import se3
from vslam.mapping.archive import load_map, save_map
from vslam.system import System
from vslam.types import State

CONFIG = load_config(None, list(SETTINGS))
FIRST = 60
NEAR_M, NEAR_RAD = 0.028, 0.014
"""Two pixels at the farthest wall for each of two poses, as in test_relocalise.py."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The file of a map of two thirds of the turn, and the poses tracked in it."""
    file = tmp_path_factory.mktemp("map") / "room.vslam"
    with System(CAMERA, CONFIG, "deterministic") as system:
        poses = [system.track(frame).T_world_camera for frame in filmed()[:FIRST]]
        save_map(file, system.stored())
    return file, poses


def again(frames, start: int):
    """The frames at another time, backwards."""
    return [replace(frame, timestamp=5.0 + k / 30) for k, frame in enumerate(reversed(frames[start:FIRST]))]


@pytest.mark.parametrize("mode", ["deterministic", "threaded"])
def test_camera_is_tracked_in_a_kept_map_without_a_change(kept, mode):
    file, poses = kept
    stored = load_map(file, 600)
    before = {name: array.copy() for name, array in _arrays(stored.map).items()}
    with System(CAMERA, CONFIG, mode, stored, localize=True) as system:
        answers = [system.track(frame) for frame in again(filmed(), 20)]
        assert len(system.keyframes()) == 0 and len(system.trajectory()) == len(answers)
    assert all(answer.state == State.OK for answer in answers)
    found = np.array([answer.T_world_camera for answer in answers])
    error = se3.log(np.linalg.inv(np.array(poses[20:][::-1])) @ found)
    assert np.linalg.norm(error[:, :3], axis=1).max() < NEAR_M
    assert np.linalg.norm(error[:, 3:], axis=1).max() < NEAR_RAD
    for name, array in _arrays(stored.map).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_another_run_adds_to_a_kept_map(kept):
    file, poses = kept
    stored = load_map(file, 600)
    old = len(stored.map.timestamp_of)
    frames = [replace(frame, timestamp=5.0 + k / 30) for k, frame in enumerate(filmed()[40:])]
    with System(CAMERA, CONFIG, "deterministic", stored) as system:
        answers = [system.track(frame) for frame in frames]
        keyframes, trajectory = system.keyframes(), system.trajectory()
        whole = system.stored()
    assert all(answer.state == State.OK for answer in answers)
    assert len(keyframes) > 3 and len(trajectory) == len(frames)
    assert (np.diff(keyframes.timestamps) > 0).all()
    assert len(whole.map.timestamp_of) > old and set(whole.place_ids) >= set(stored.place_ids)
    error = se3.log(np.linalg.inv(poses[40]) @ answers[0].T_world_camera)
    assert np.linalg.norm(error[:3]) < NEAR_M


def test_first_frames_of_an_unknown_place_are_lost(kept):
    strange = [replace(f, image=f.image[::-1].copy(), depth=f.depth[::-1].copy()) for f in filmed()[:3]]
    with System(CAMERA, CONFIG, "deterministic", load_map(kept[0], 600), localize=True) as system:
        assert {system.track(frame).state for frame in strange} == {State.LOST}


@pytest.mark.parametrize(
    ("camera", "settings", "message"),
    [
        (replace(CAMERA, fx=300.0), (), "another camera"),
        (CAMERA, ("extractor.name=sift",), "features"),
        (CAMERA, ("place.name=none",), "--place"),
        (CAMERA, ("place.name=cosplace",), "place network"),
    ],
)
def test_map_that_does_not_fit_is_refused_in_one_line(kept, camera, settings, message):
    with pytest.raises(VslamError, match=message) as refused:
        System(camera, load_config(None, [*SETTINGS, *settings]), "deterministic", load_map(kept[0], 600))
    assert "\n" not in str(refused.value)


def test_localising_needs_a_map():
    with pytest.raises(VslamError, match="no map"):
        System(CAMERA, CONFIG, "deterministic", localize=True)


def _arrays(map_):
    return {
        f"{type(rows).__name__}.{name}": getattr(rows, name)
        for rows in (map_.points, map_.keyframes)
        for name in rows.fields
    }
