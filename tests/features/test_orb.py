"""ORB against naive twins, and under motions of the picture whose effect is known."""

from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive
from tests.entry import entry
from tests.world import filmed
from vslam.features import orb
from vslam.features.orb import MARGIN, Config, Orb
from vslam.matching.matcher import MutualMatcher

opposite_pairs, local_maxima = entry(orb.opposite_pairs), entry(orb.local_maxima)
smaller_eigenvalue = entry(orb.smaller_eigenvalue)
EVERY_CORNER = 20000
FINEST = Config(levels=1)


@cache
def picture() -> np.ndarray:
    return filmed(1)[0].image


def random_image(seed: int) -> np.ndarray:
    """Few grey levels, so that ties and plateaus abound in one half of the cases."""
    rng = np.random.default_rng(seed)
    step = rng.choice([1, 40])
    return (rng.integers(0, 256, (40, 48), np.uint8) // step * step).astype(np.uint8)


def found_again(a: np.ndarray, b: np.ndarray, within_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rows of `a` (N, 2) that have a row of `b` so near, and of these."""
    distance = np.linalg.norm(a[:, None] - b[None], axis=2)
    near = distance.argmin(axis=1)
    rows = np.flatnonzero(distance[np.arange(len(a)), near] <= within_px)
    return rows, near[rows]


def inside(xy: np.ndarray, low: float, width: float, height: float) -> np.ndarray:
    return ((xy >= low) & (xy <= np.array([width, height]) - 1 - low)).all(axis=1)


# -- kernels ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(8, 48))
@settings(deadline=None, max_examples=30)
def test_opposite_pairs_equals_naive_twin(seed, width):
    image, out = random_image(seed), np.zeros((40, 48), np.uint8)
    opposite_pairs(image, width, out)
    expected = np.zeros_like(out)
    for y in range(3, 37):
        for x in range(3, width - 3):
            expected[y, x] = naive.opposite_pairs(image, x, y)
    assert np.array_equal(out, expected)


@given(st.integers(0, 2**32 - 1), st.integers(2 * MARGIN + 1, 48), st.integers(0, 200))
@settings(deadline=None, max_examples=30)
def test_local_maxima_equals_naive_twin(seed, width, threshold):
    score, corners = random_image(seed), np.empty((500, 2), np.float32)
    count = local_maxima(score, width, np.uint8(threshold), corners)
    assert [tuple(c) for c in corners[:count]] == naive.local_maxima(score, width, threshold, MARGIN)


def test_local_maxima_stop_where_their_place_ends():
    score, corners = random_image(0), np.full((5, 2), -1, np.float32)
    assert local_maxima(score, 48, np.uint8(0), corners[:3]) == 3
    assert (corners[3:] == -1).all()


@given(st.integers(0, 2**32 - 1), st.integers(3, 44), st.integers(3, 36))
@settings(deadline=None)
def test_smaller_eigenvalue_equals_naive_twin(seed, x, y):
    image = random_image(seed)
    # float32 result; the difference of trace and root, both below 50 * 255^2, loses 1e-9 of double precision
    expected = naive.smaller_eigenvalue(image, x, y)
    assert smaller_eigenvalue(image, x, y) == pytest.approx(expected, rel=2e-7, abs=1e-8)


# -- the extractor ----------------------------------------------------------------------------------------------


def test_same_image_gives_same_features():
    extractor = Orb(500)
    first, again, other = extractor.extract(picture()), extractor.extract(picture()), Orb(500).extract(picture())
    for name in ("xy", "sigma", "score", "octave", "angle", "descriptors"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert np.array_equal(getattr(first, name), getattr(other, name))


def test_images_of_other_sizes_in_between_do_not_matter():
    extractor = Orb(500)
    first = extractor.extract(picture())
    extractor.extract(np.full((60, 500), 255, np.uint8))
    extractor.extract(picture()[:, ::-1])
    assert np.array_equal(extractor.extract(picture()).descriptors, first.descriptors)


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (0, 7), (13, 5)])
def test_shifted_picture_shifts_keypoints(dx, dy):
    a = Orb(EVERY_CORNER, FINEST).extract(picture()[:200, :280])
    b = Orb(EVERY_CORNER, FINEST).extract(picture()[dy : dy + 200, dx : dx + 280])
    moved = a.xy - (dx, dy)
    common = np.flatnonzero(inside(moved, 25, 280, 200) & inside(a.xy, 25, 280, 200))  # blur knows the border
    rows, mates = found_again(moved[common], b.xy, 1e-3)
    assert len(common) > 100 and len(rows) == len(common)
    assert np.array_equal(a.descriptors[common], b.descriptors[mates])
    np.testing.assert_allclose(a.angle[common], b.angle[mates], atol=1e-6)
    np.testing.assert_allclose(a.score[common], b.score[mates], rtol=1e-6)


def test_turned_picture_turns_keypoints_and_keeps_descriptors():
    image = picture()[:240, :240]
    a, b = Orb(EVERY_CORNER, FINEST).extract(image), Orb(EVERY_CORNER, FINEST).extract(np.rot90(image).copy())
    turned = np.stack([a.xy[:, 1], 239 - a.xy[:, 0]], axis=1)  # anticlockwise: (x, y) -> (y, W - 1 - x)
    rows, mates = found_again(turned, b.xy, 1e-2)
    assert len(rows) > 0.95 * len(a)  # of equal neighbours the first or the last is the maximum
    halfway = (np.abs(a.xy[rows] % 1 - 0.5) < 1e-3).any(axis=1)  # rounds to another pixel when turned
    rows, mates = rows[~halfway], mates[~halfway]
    turn = (b.angle[mates] - a.angle[rows] + np.pi / 2 + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(turn, 0, atol=1e-5)
    bits = np.bitwise_count(a.descriptors[rows] ^ b.descriptors[mates]).sum(axis=1)
    # a quarter turn maps the rotated pattern on itself but for halves that round the other way
    assert np.median(bits) <= 8 and np.mean(bits < Orb.max_distance) > 0.98


@pytest.mark.parametrize("degrees", [17, 45, 160])
def test_descriptors_match_under_any_turn(degrees):
    M = cv2.getRotationMatrix2D((159.5, 119.5), degrees, 1.0)
    a, b = (Orb(300).extract(i) for i in (picture(), cv2.warpAffine(picture(), M, (320, 240))))
    matches = MutualMatcher(Orb.max_distance).match(a, b)
    error = np.linalg.norm(a.xy[matches.pairs[:, 0]] @ M[:, :2].T + M[:, 2] - b.xy[matches.pairs[:, 1]], axis=1)
    right = error < 3 * b.sigma[matches.pairs[:, 1]] + 1
    assert right.sum() > 60 and right.mean() > 0.8


def errors_below_a_pixel() -> np.ndarray:
    """Rectangles painted at eight times the size and averaged: the shift of the picture is known exactly."""
    rng = np.random.default_rng(3)
    fine = np.full((240 * 8, 320 * 8), 128, np.uint8)
    for _ in range(300):
        x, y, w, h = *rng.integers(0, (2400, 1800)), *rng.integers(100, 400, 2)
        fine[y : y + h, x : x + w] = rng.integers(0, 256)
    fine = cv2.GaussianBlur(fine, (0, 0), 5)  # 0.6 px, as a lens does
    still = Orb(EVERY_CORNER, FINEST).extract(cv2.resize(fine, (320, 240), interpolation=cv2.INTER_AREA))
    errors = []
    for dx, dy in [(2, 0), (0, 3), (4, 4), (-3, 2)]:
        shifted = np.roll(fine, (dy, dx), axis=(0, 1))
        moved = Orb(EVERY_CORNER, FINEST).extract(cv2.resize(shifted, (320, 240), interpolation=cv2.INTER_AREA))
        expected = still.xy + np.array([dx, dy]) / 8
        rows, mates = found_again(expected, moved.xy, 1.5)
        assert len(rows) > 0.8 * len(still)
        errors.append(np.linalg.norm(expected[rows] - moved.xy[mates], axis=1))
    return np.concatenate(errors)


def test_positions_are_as_exact_as_sigma_says():
    # both ends of a displacement are uncertain, in x and in y
    assert np.sqrt(np.mean(errors_below_a_pixel() ** 2) / 4) < Config().sigma


@pytest.mark.xfail(strict=True, reason="most corners are no maximum of the eigenvalue, so their place is not refined")
def test_positions_follow_a_shift_below_a_pixel():
    assert np.median(errors_below_a_pixel()) < 0.25


@pytest.mark.xfail(strict=True, reason="most corners are no maximum of the eigenvalue, so their place is not refined")
def test_positions_are_rarely_whole_or_half_pixels():
    xy = Orb(1000, FINEST).extract(picture()).xy
    assert np.mean((xy % 0.5 == 0).any(axis=1)) < 0.2


def test_smaller_picture_gives_the_same_keypoints_two_octaves_lower():
    small = cv2.resize(picture(), (222, 167), interpolation=cv2.INTER_AREA)  # by 1.44: two steps of 1.2
    a, b = Orb(800).extract(picture()), Orb(800).extract(small)
    matches = MutualMatcher(Orb.max_distance).match(a, b)
    i, j = matches.pairs.T
    expected = (a.xy[i] + 0.5) * (222 / 320, 167 / 240) - 0.5
    error = np.linalg.norm(expected - b.xy[j], axis=1)
    right = error < 3 * b.sigma[j]
    assert right.sum() > 150 and right.mean() > 0.8
    steps = a.octave[i[right]].astype(int) - b.octave[j[right]]
    assert np.mean(steps == 2) > 0.6 and np.mean(np.abs(steps - 2) <= 1) > 0.9


def test_sigma_grows_with_the_octave():
    features = Orb(1000).extract(picture())
    mean = [features.sigma[features.octave == level].mean() for level in np.unique(features.octave)]
    assert len(mean) == 8 and np.all(np.diff(mean) > 0)
    # levels have whole sizes: 1.2 ** 7 = 3.58 is 320 / 89 = 3.60
    assert mean[-1] / mean[0] == pytest.approx(1.2**7, rel=0.01)


def test_keypoints_cover_the_picture():
    """1000 keypoints over 4x3 tiles, each full of corners: no tile gets less than a quarter of its share."""
    xy = Orb(1000).extract(picture()).xy
    counts = np.histogram2d(xy[:, 0], xy[:, 1], bins=[4, 3], range=[(16, 304), (16, 224)])[0]
    assert counts.min() > 1000 / 12 / 4


def test_keypoints_cover_a_picture_of_noise():
    features = Orb(1000).extract(np.random.default_rng(0).integers(0, 256, (240, 320), np.uint8))
    finest = features.xy[features.octave == 0]
    assert finest[:, 1].max() > 200


def test_low_contrast_still_gives_keypoints():
    dim = (picture() // 6 + 100).astype(np.uint8)
    assert len(Orb(500).extract(dim)) > 250
