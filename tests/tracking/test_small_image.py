"""The motion from small images: rooms with known poses, any light, and nothing to see."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world import CAMERA, render
from vslam.geometry import se3
from vslam.tracking.small_image import FREE, RESIDUAL, SmallImages, align_image, equalise

START = se3.exp(np.array([0.2, -0.1, 0.3, 0.05, 0.4, -0.02]))
LENS = replace(CAMERA, distortion=(-0.25, 0.07, 0.0, 0.0, 0.0))


SMALL = SmallImages(CAMERA, 8.0)


def shrunk(T_wc, camera=CAMERA, light=lambda image: image, depth=True):
    image, metres = render(T_wc, camera)
    return SmallImages(camera, 8.0).make(light(image), metres if depth else None)


def pixels_off(T, truth, camera=CAMERA) -> float:
    """Median distance in the full image between where `T` and the truth carry the last frame's points."""
    rays = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 9), np.linspace(-0.4, 0.4, 7), [1.0]), -1).reshape(-1, 3)
    points = 2.0 * rays
    there, truly = (points @ M[:3, :3].T + M[:3, 3] for M in (T, truth))
    return float(np.median(np.linalg.norm(camera.project(there) - camera.project(truly), axis=1)))


@given(
    st.floats(-0.24, 0.24), st.floats(-0.06, 0.06), st.floats(-0.06, 0.06), st.floats(-0.05, 0.05),
    st.floats(-0.05, 0.05),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_turns_and_steps_are_found_from_nothing(yaw, pitch, roll, x, z):
    motion = se3.exp(np.array([x, 0.0, z, pitch, yaw, roll]))
    T, _ = SMALL.align(np.eye(4), shrunk(START), shrunk(START @ se3.inverse(motion)))
    # up to 64 pixels of turn; a pixel of the finer images is 8 of these
    assert pixels_off(T, motion) < 2.5


def test_small_motions_are_sure():
    def soft(image):  # the room's corners are finer than a pixel of the small images, and change with every motion
        return cv2.GaussianBlur(image, (0, 0), 4)

    motion = se3.exp(np.array([0.003, 0, 0.005, 0.003, 0.006, 0.002]))
    assert SMALL.align(np.eye(4), shrunk(START, light=soft), shrunk(START @ se3.inverse(motion), light=soft))[1]


@pytest.mark.parametrize(
    "light",
    [
        lambda image: (0.4 * image).astype(np.uint8),
        lambda image: (0.5 * image + 90).astype(np.uint8),
        lambda image: (image * np.linspace(0.3, 1.0, image.shape[1])).astype(np.uint8),
    ],
)
def test_light_does_not_matter(light):
    motion = se3.exp(np.array([0.03, 0, 0.02, 0.03, 0.12, 0.02]))
    T, _ = SMALL.align(np.eye(4), shrunk(START), shrunk(START @ se3.inverse(motion), light=light))
    assert pixels_off(T, motion) < 3


def test_a_lens_that_distorts_is_made_straight():
    # the renderer knows no lenses: two straight images are bent alike
    x, y = np.meshgrid(np.arange(LENS.width, dtype=np.float32), np.arange(LENS.height, dtype=np.float32))
    straight = LENS.undistort(np.stack([x, y], -1).reshape(-1, 2)).reshape(LENS.height, LENS.width, 2)

    def seen(T_wc):
        image, depth = render(T_wc)
        bent = [cv2.remap(a, straight[..., 0], straight[..., 1], cv2.INTER_NEAREST) for a in (image, depth)]
        return SmallImages(LENS, 8.0).make(*bent)

    motion = se3.exp(np.array([0.02, 0, 0.01, 0.02, 0.1, 0.1]))
    T, _ = SmallImages(LENS, 8.0).align(np.eye(4), seen(START), seen(START @ se3.inverse(motion)))
    assert pixels_off(T, motion) < 2.5


def test_nothing_to_see_leaves_what_was_expected():
    expected = se3.exp(np.array([0.02, 0, 0, 0, 0.1, 0]))
    black = shrunk(START, light=np.zeros_like)
    for last, this in ((black, black), (shrunk(START), black), (shrunk(START, depth=False), shrunk(START))):
        T, is_sure = SMALL.align(expected, last, this)
        np.testing.assert_array_equal(T, expected)
        assert not is_sure


def test_another_place_is_not_agreed_with():
    other = se3.exp(np.array([0, 0, 0, 0, np.pi, 0]))
    assert not SMALL.align(np.eye(4), shrunk(START), shrunk(START @ other))[1]


def test_holes_in_depth_are_left_out():
    image, depth = render(START)
    depth = depth.copy()
    depth[1::2], depth[::12, ::3], depth[:, 100:140] = np.nan, np.inf, -1.0
    last = SmallImages(CAMERA, 8.0).make(image, depth)
    assert np.isfinite(last.fine.xyz).all() and (last.fine.xyz[..., 2] >= 0).all()
    motion = se3.exp(np.array([0.02, 0, 0, 0.02, 0.08, 0]))
    T, _ = SMALL.align(np.eye(4), last, shrunk(START @ se3.inverse(motion)))
    assert pixels_off(T, motion) < 4


def test_cost_equals_naive():
    motion = se3.exp(np.array([0.03, 0.01, 0.02, 0.03, 0.05, 0.02]))
    last, this = shrunk(START).fine, shrunk(START @ se3.inverse(motion)).fine
    T = se3.exp(np.array([0.01, 0, 0, 0, 0.02, 0]))
    cost, _ = align_image(T.copy(), T, FREE, last.grey, last.xyz, this.grey, last.pinhole, 0)
    fx, fy, cx, cy = last.pinhole
    residuals = []
    for r in range(1, last.grey.shape[0] - 1):
        for c in range(1, last.grey.shape[1] - 1):
            x, y, z = T[:3, :3] @ last.xyz[r, c] + T[:3, 3]
            u, v = fx * x / z + cx, fy * y / z + cy
            if 1 <= u < last.grey.shape[1] - 2 and 1 <= v < last.grey.shape[0] - 2:
                i, j = int(u), int(v)
                a, b = u - i, v - j
                patch = this.grey[j : j + 2, i : i + 2]
                value = np.array([1 - b, b]) @ patch @ np.array([1 - a, a])
                residuals.append(min(abs(last.grey[r, c] - value), 3 * RESIDUAL))
    assert cost == pytest.approx(np.mean(residuals), rel=1e-5)


def test_equal_brightness_and_contrast():
    image = render(START)[0][::8, ::8]
    np.testing.assert_allclose(equalise(image, 7), equalise(image + 20, 7), atol=1e-3)
    assert abs(float(equalise(image, 7).mean())) < 0.2 and 0.5 < float(equalise(image, 7).std()) < 1.2
