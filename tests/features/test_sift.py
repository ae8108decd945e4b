"""SIFT: descriptors, scale, and the effect of shrinking first."""

from functools import cache

import cv2
import numpy as np
import pytest

from tests.world import filmed
from vslam.features.sift import Config, Sift
from vslam.matching.matcher import RatioMatcher


@cache
def picture() -> np.ndarray:
    return filmed(1)[0].image


def test_root_sift_is_the_square_root_of_sift():
    plain = Sift(200, Config(root=False)).extract(picture()).descriptors
    root = Sift(200, Config(root=True)).extract(picture()).descriptors
    expected = np.sqrt(plain / plain.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(root, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1.0), (30, 1.0), (90, 0.8), (10, 1.3)])
def test_matches_follow_a_similarity(degrees, scale):
    M = cv2.getRotationMatrix2D((159.5, 119.5), degrees, scale)
    a, b = (Sift(400).extract(i) for i in (picture(), cv2.warpAffine(picture(), M, (320, 240))))
    i, j = RatioMatcher(Sift.max_distance).match(a, b).pairs.T
    error = np.linalg.norm(a.xy[i] @ M[:, :2].T + M[:, 2] - b.xy[j], axis=1)
    right = error < 3 * np.maximum(a.sigma[i] * scale, b.sigma[j])
    assert right.sum() > 60 and right.mean() > 0.8
    assert np.median(b.sigma[j[right]] / a.sigma[i[right]]) == pytest.approx(scale, rel=0.1)


def test_large_pictures_are_shrunk_and_keypoints_given_in_their_pixels():
    large = cv2.resize(picture(), (960, 720), interpolation=cv2.INTER_CUBIC)
    a, b = Sift(300).extract(picture()), Sift(300).extract(large)
    i, j = RatioMatcher(Sift.max_distance).match(a, b).pairs.T
    error = np.linalg.norm((a.xy[i] + 0.5) * 3 - 0.5 - b.xy[j], axis=1)  # pixel (0, 0) is the centre of a pixel
    assert len(i) > 150 and np.median(error) < 3 * 0.5  # half a pixel of the shrunk image
    offset = np.median((a.xy[i] + 0.5) * 3 - 0.5 - b.xy[j], axis=0)
    assert np.abs(offset).max() < 0.3  # a lost half pixel would be 1
    assert np.median(b.sigma[j] / a.sigma[i]) == pytest.approx(3, rel=0.05)


def test_keypoints_cover_the_picture():
    xy = Sift(400).extract(picture()).xy
    counts = np.histogram2d(xy[:, 0], xy[:, 1], bins=[4, 3], range=[(0, 320), (0, 240)])[0]
    assert counts.min() > 400 / 12 / 4


def test_single_row_of_pixels_has_no_features():
    assert len(Sift(10).extract(np.zeros((1, 1000), np.uint8))) == 0
