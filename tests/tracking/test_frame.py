"""From a raw frame to keypoints with disparity, colour and a place in the grid."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import world
from tests.world import CAMERA, make_features
from vslam.config import DepthConfig
from vslam.matching.window import CELL
from vslam.types import Camera, RawFrame

DEPTH = DepthConfig()
SHAPE = (CAMERA.height, CAMERA.width)
BF = CAMERA.pinhole[4]
no_deadline = settings(deadline=None)  # the first call compiles


def describe(xy, depth=None, image=None, camera: Camera = CAMERA):
    xy = np.asarray(xy, np.float32).reshape(-1, 2)
    image = np.zeros(SHAPE, np.uint8) if image is None else image
    features = make_features(xy, np.zeros((len(xy), 32), np.uint8))
    return world.describe(RawFrame(0.0, image, depth), features, camera)


def plane(a: float, b: float, c: float, x, y) -> np.ndarray:
    """Depth at pixels of the plane whose inverse depth is `a x + b y + c`, x and y from the image's centre."""
    return (1.0 / (a * (np.asarray(x) - CAMERA.cx) + b * (np.asarray(y) - CAMERA.cy) + c)).astype(np.float32)


def scattered(count: int = 200) -> np.ndarray:
    return np.random.default_rng(0).uniform(2, np.array(SHAPE[::-1]) - 3, (count, 2)).astype(np.float32)


@no_deadline
@given(st.floats(-8e-4, 8e-4), st.floats(-8e-4, 8e-4), st.floats(0.3, 1.5))
def test_disparity_of_a_slanted_plane_is_exact_below_a_pixel(a, b, c):
    xy = scattered()
    x, y = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))
    frame = describe(xy, plane(a, b, c, x, y))
    exact = plane(a, b, c, *xy.T.astype(float))
    steep = 2 * (abs(a) + abs(b)) * exact > 0.9 * DEPTH.max_step  # the range in 3x3 pixels over the nearest
    inside = (exact < 0.95 * DEPTH.max_m) & ~steep
    # nine float32 depths, each rounded by half an EPS
    np.testing.assert_allclose(frame.disparity[inside], BF / exact[inside], rtol=1e-6)


def test_depth_beside_a_step_is_not_believed():
    depth = np.full(SHAPE, 2.0, np.float32)
    depth[:, 100:] = 3.0
    frame = describe([(97, 50), (98, 50), (99, 50), (100, 50), (101, 50), (102, 50)], depth)
    np.testing.assert_allclose(frame.disparity, [BF / 2, BF / 2, 0, 0, BF / 3, BF / 3], rtol=1e-6)


def test_a_small_step_is_believed():
    depth = np.full(SHAPE, 2.0, np.float32)
    depth[:, 100:] = 2.0 * (1 + 0.5 * DEPTH.max_step)
    assert (describe([(99, 50), (100, 50)], depth).disparity > 0).all()


@pytest.mark.parametrize("hole", [0.0, -1.0, np.inf])
def test_depth_beside_a_hole_is_not_believed(hole):
    depth = np.full(SHAPE, 2.0, np.float32)
    depth[80, 100] = hole
    frame = describe([(100, 80), (101, 81), (99, 80), (103, 80)], depth)
    np.testing.assert_allclose(frame.disparity, [0, 0, 0, BF / 2], rtol=1e-6)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, -1.0, 0.0])
def test_what_is_no_distance_is_no_depth(nothing):
    depth = np.full(SHAPE, 2.0, np.float32)
    depth[80, 100] = nothing
    frame = describe([(100, 80), (101, 81), (103, 80)], depth)
    np.testing.assert_allclose(frame.disparity, [0, 0, BF / 2], rtol=1e-6)
    assert np.isfinite(frame.disparity_sigma).all()


def test_far_depth_and_borders_are_left_out():
    depth = np.full(SHAPE, 2.0, np.float32)
    depth[:100] = DEPTH.max_m + 0.1
    frame = describe([(50, 50), (0, 200), (319, 200), (50, 239), (-3, 200), (500, 500), (50, 200)], depth)
    np.testing.assert_allclose(frame.disparity, [0, 0, 0, 0, 0, 0, BF / 2], rtol=1e-6)


@no_deadline
@given(st.floats(0.3, 7.9))
def test_disparity_sigma_is_the_sensors_noise_in_pixels(z):
    frame = describe([(50, 50)], np.full(SHAPE, z, np.float32))
    noise = DEPTH.noise_m + DEPTH.noise_per_m2 * (z - DEPTH.noise_near_m) ** 2
    # d = bf / z, so an error dz is bf / z^2 dz
    assert frame.disparity_sigma[0] == pytest.approx(DEPTH.floor_px + BF / z**2 * noise, rel=1e-5)


def test_without_depth_there_is_no_disparity():
    frame = describe(scattered(), None)
    assert (frame.disparity == 0).all() and np.isfinite(frame.disparity_sigma).all()


@no_deadline
@given(st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_grid_holds_every_keypoint_once_in_its_cell(count, seed):
    xy = np.random.default_rng(seed).uniform((-20, -20), np.array(SHAPE[::-1]) + 20, (count, 2)).astype(np.float32)
    grid = describe(xy).grid
    assert grid.columns * CELL >= SHAPE[1] and grid.rows * CELL >= SHAPE[0]
    assert grid.start[0] == 0 and grid.start[-1] == count and (np.diff(grid.start) >= 0).all()
    assert sorted(grid.items) == list(range(count))
    for cell in range(grid.rows * grid.columns):
        for item in grid.items[grid.start[cell] : grid.start[cell + 1]]:
            column, row = np.clip(xy[item] // CELL, 0, (grid.columns - 1, grid.rows - 1))
            assert cell == row * grid.columns + column


def test_colour_is_that_of_the_nearest_pixel_as_rgb():
    image = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
    xy = np.array([(0, 0), (10.4, 20.6), (319.4, 239.4)])
    frame = describe(xy, image=image)
    assert np.array_equal(frame.rgb, image[[0, 21, 239], [0, 10, 319], ::-1])
    grey = describe(xy, image=image[..., 0].copy())
    assert np.array_equal(grey.rgb, np.repeat(image[[0, 21, 239], [0, 10, 319], :1], 3, axis=1))


def test_keypoints_are_undistorted_and_depth_is_looked_up_where_they_were_seen():
    camera = replace(CAMERA, distortion=(0.1, -0.05, 0.001, 0.002, 0.0))
    depth = np.full(SHAPE, 2.0, np.float32)
    depth[:, 280:] = 3.0
    frame = describe([(284, 120), (276, 120)], depth, camera=camera)
    k1, k2, p1, p2, _ = camera.distortion
    x, y = (frame.xy[0].astype(float) - (camera.cx, camera.cy)) / (camera.fx, camera.fy)
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2 * r2  # Brown's model, forwards
    seen = (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y)
    # OpenCV inverts by five rounds of a fixed point
    distorted = np.multiply(seen, (camera.fx, camera.fy)) + np.array([camera.cx, camera.cy])
    np.testing.assert_allclose(distorted, (284, 120), atol=0.05)
    assert abs(frame.xy[0, 0] - 284) > 1
    np.testing.assert_allclose(frame.disparity, [BF / 3, BF / 2], rtol=1e-6)


def test_no_features_make_an_empty_frame():
    frame = describe(np.empty((0, 2)), np.full(SHAPE, 2.0, np.float32))
    assert len(frame) == 0 and len(frame.words) == 0 and frame.rgb.shape == (0, 3)
