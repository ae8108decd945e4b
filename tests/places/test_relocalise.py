"""A lost camera: found again where the map knows the place, left lost where it does not."""

from dataclasses import replace

import numpy as np
import pytest

from tests.places.turning import ROUND, SETTINGS, filmed
from tests.world import CAMERA, FPS
from vslam.config import load_config
from vslam.geometry import se3
from vslam.system import System
from vslam.types import Reason, State

NEAR_M, NEAR_RAD = 0.028, 0.014
"""Two pixels at the farthest wall for each of two poses: the one now, and tracking's when it first saw that view."""


def black(frame):
    return replace(frame, image=np.zeros_like(frame.image), depth=None)


def run(frames, mode="deterministic", *settings):
    """The answers to frames, which follow each other at 30 Hz whatever they show."""
    with System(CAMERA, load_config(None, [*SETTINGS, *settings]), mode) as system:
        return [system.track(replace(frame, timestamp=k / FPS)) for k, frame in enumerate(frames)]


@pytest.mark.parametrize("mode", ["deterministic", "threaded"])
@pytest.mark.parametrize("place", [5, 20, 33])
def test_kidnapped_camera_is_found_at_once(mode, place):
    """Half a turn, black for a second, then an earlier view, and on from there."""
    frames = filmed()
    shown = [*range(60), *[None] * 30, *range(place, place + 12)]
    answers = run([black(frames[0]) if k is None else frames[k] for k in shown], mode)
    assert {answer.state for answer in answers[60:90]} == {State.LOST}
    assert answers[90].reason == Reason.RELOCALISED and answers[90].recovery_s == 0.0
    assert all(answer.state == State.OK for answer in answers[90:])
    poses = np.array([answer.T_world_camera for answer in answers[90:]])
    first = np.array([answer.T_world_camera for answer in answers[place : place + 12]])
    error = se3.log(np.linalg.inv(first) @ poses)
    assert np.linalg.norm(error[:, :3], axis=1).max() < NEAR_M
    assert np.linalg.norm(error[:, 3:], axis=1).max() < NEAR_RAD


def test_jump_without_a_gap_is_found():
    frames = filmed()
    answers = run([frames[k] for k in [*range(60), *range(10, 20)]])
    found = [answer for answer in answers[60:] if answer.state == State.OK]
    assert len(found) >= 9
    for answer, k in zip(answers[60:], range(10, 20), strict=True):
        if answer.T_world_camera is not None:
            error = se3.log(np.linalg.inv(answers[k].T_world_camera) @ answer.T_world_camera)
            assert np.linalg.norm(error[:3]) < NEAR_M and np.linalg.norm(error[3:]) < NEAR_RAD


def test_unknown_place_stays_lost():
    """A view upside down shows nothing that the map knows: no pose is better than a wrong one."""
    frames = filmed()
    strange = replace(frames[20], image=frames[20].image[::-1].copy(), depth=frames[20].depth[::-1].copy())
    answers = run([*frames[:60], *[black(frames[0])] * 30, *[strange] * 5])
    assert {answer.state for answer in answers[60:]} == {State.LOST}


def test_without_places_a_kidnapped_camera_stays_lost():
    frames = filmed()
    answers = run([*frames[:60], *[black(frames[0])] * 30, *frames[5:10]], "deterministic", "place.name=none")
    assert {answer.state for answer in answers[90:]} == {State.LOST}


def test_recovery_counts_from_when_there_was_something_to_see():
    """Three unknown views before the known one: a tenth of a second."""
    frames = filmed()
    strange = replace(frames[20], image=frames[20].image[::-1].copy(), depth=frames[20].depth[::-1].copy())
    answers = run([*frames[:ROUND], *[black(frames[0])] * 30, *[strange] * 3, frames[30]])
    assert answers[-1].reason == Reason.RELOCALISED
    assert answers[-1].recovery_s == pytest.approx(3 / FPS)
