"""Two keyframes that take the same points for larger and smaller: the similarity between them."""

import numpy as np
import pytest

from tests.mapping.map_of_points import make_map
from tests.world import CAMERA, ByNumber, scatter, see
from vslam.geometry import se3, sim3
from vslam.mapping.seen import Seen, seen_by
from vslam.places.similarity import LEAST_PAIRS, find_similarity

MOVE = se3.exp(np.array([0.25, -0.1, 0.2, 0.03, 0.08, -0.02]))


def seen(points, T_cw: np.ndarray, scale: float, noise_px: float, seed: int, depth: bool) -> Seen:
    """What a keyframe knows whose metres are `scale` real ones each; its points err as its keypoints do."""
    frame, _ = see(points, T_cw, noise_px=noise_px, seed=seed)
    z = CAMERA.pinhole[4] / frame.disparity
    disparity = frame.disparity * scale
    xyz = CAMERA.unproject(frame.xy, z) / scale
    uvd = np.column_stack([frame.xy, disparity if depth else np.zeros(len(frame))]).astype(np.float64)
    return Seen(xyz, uvd, np.column_stack([frame.features.sigma] * 2 + [np.full(len(frame), 0.3)]), frame.words)


def find(scale: float, noise_px: float = 0.0, depth: bool = True, strangers: int = 0, move=MOVE):
    world = scatter(300, 1)
    here, there = seen(world, move, scale, noise_px, 1, depth), seen(world, np.eye(4), 1.0, noise_px, 2, depth)
    if strangers:  # points that look like others
        rng = np.random.default_rng(3)
        rows = rng.permutation(len(here))[:strangers]
        here.words[rows] = here.words[np.roll(rows, 1)]
    found = find_similarity(here, there, CAMERA.pinhole, ByNumber.max_distance)
    return found, sim3.compose(1 / scale, move)


@pytest.mark.parametrize("scale", [0.5, 0.94, 1.0, 1.1, 2.0])
@pytest.mark.parametrize("depth", [True, False])
def test_scale_and_motion_are_found(scale, depth):
    found, S = find(scale, depth=depth)
    assert found.inliers > 0.95 * found.matches > 100
    np.testing.assert_allclose(found.S_here_there, S, atol=1e-4)


@pytest.mark.parametrize("scale", [0.94, 1.0, 1.1])
def test_noise_and_strangers_leave_it_right(scale):
    """Each of 70 and more pairs says the scale to 3 %, from depth alone: three standard deviations of the mean."""
    found, S = find(scale, noise_px=0.5, strangers=100)
    assert found.inliers > 70
    assert sim3.split(found.S_here_there)[0] == pytest.approx(sim3.split(S)[0], rel=3 * 0.03 / np.sqrt(70))
    assert np.abs(se3.log(sim3.split(found.S_here_there)[1] @ se3.inverse(sim3.split(S)[1]))).max() < 0.006


def test_from_the_same_place_depth_alone_tells_the_scale():
    """From depth noise of 1.3 % in either keyframe, as above."""
    found, _ = find(1.07, noise_px=0.3, move=np.eye(4))
    assert found.inliers > 150
    assert sim3.split(found.S_here_there)[0] == pytest.approx(1 / 1.07, rel=3 * 0.018 / np.sqrt(150))


def test_another_place_has_none():
    here, there = seen(scatter(300, 1), np.eye(4), 1.0, 0.0, 1, True), seen(scatter(300, 2), MOVE, 1.0, 0.0, 2, True)
    found = find_similarity(here, there, CAMERA.pinhole, ByNumber.max_distance)
    assert found.S_here_there is None and found.inliers < LEAST_PAIRS


def test_a_keyframe_that_sees_nothing_is_like_none():
    nothing = seen(scatter(300, 1), np.eye(4), 1.0, 0.0, 1, True)[np.zeros(0, np.int64)]
    assert find_similarity(nothing, nothing, CAMERA.pinhole, ByNumber.max_distance) == (None, 0, 0)


# -- what a keyframe sees ---------------------------------------------------------------------------------------


def test_points_are_where_the_keyframe_sees_them():
    made = make_map()
    here = seen_by(made.map, 3)
    assert len(here) == len(made.shown[3])
    np.testing.assert_allclose(CAMERA.project(here.xyz), here.uvd[:, :2], atol=1e-3)
    np.testing.assert_allclose(CAMERA.pinhole[4] / here.xyz[:, 2], here.uvd[:, 2], rtol=1e-5)


def test_its_own_depth_may_be_asked_for():
    """A keyframe whose depth images are a tenth too large, while the map knows better."""
    made = make_map()
    made.map.keyframes.disparity[made.slot(3)] /= 1.1
    known, own = seen_by(made.map, 3), seen_by(made.map, 3, CAMERA)
    np.testing.assert_allclose(own.xyz, 1.1 * known.xyz, rtol=1e-4)


def test_a_keyframe_that_is_no_more_sees_nothing():
    made = make_map()
    made.map.remove_keyframe(2, parent=1)
    assert len(seen_by(made.map, 2)) == 0
