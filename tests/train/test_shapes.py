"""Drawn shapes: labels lie on corners that can be seen, and all that are clear are labelled."""

import cv2
import numpy as np
import pytest
import torch

from vslam.train.data import shapes
from vslam.train.data.light import LightConfig, relight
from vslam.train.data.pairs import PairConfig, PairSampler
from vslam.train.evaluate import CornerScores, rank_corners, score_corners, taken_corners
from vslam.train.loop import build_network

CORNERED = ("lines", "polygon", "polygons", "star", "checkerboard", "stripes", "cube")


def response(image: np.ndarray) -> np.ndarray:
    """Smaller eigenvalue of the structure tensor."""
    return cv2.cornerMinEigenVal(cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.0), 3)


@pytest.mark.parametrize("kind", list(shapes.CLASSES))
@pytest.mark.parametrize("plain", [True, False])
def test_every_class_gives_images_and_corners_inside(kind, plain):
    for seed in range(4):
        drawing = shapes.draw(np.random.default_rng(seed), kind, (200, 160), plain)
        assert drawing.kind == kind
        assert drawing.image.shape == (160, 200)
        assert drawing.image.dtype == np.uint8
        assert drawing.corners.dtype == np.float32
        assert (drawing.corners >= 0).all() and (drawing.corners <= (199, 159)).all()
        again = shapes.draw(np.random.default_rng(seed), kind, (200, 160), plain)
        assert np.array_equal(again.image, drawing.image) and np.array_equal(again.corners, drawing.corners)


@pytest.mark.parametrize("kind", ["ellipses", "noise"])
def test_round_things_and_noise_have_no_corners(kind):
    assert not any(len(shapes.draw(np.random.default_rng(seed), kind).corners) for seed in range(5))


@pytest.mark.parametrize("kind", CORNERED)
def test_labels_lie_where_the_image_has_corners(kind):
    """The strongest response within 4 px of a label is a corner's: far above that of edges and planes. It lies inside
    the corner by about the 2 px that the response looks around itself."""
    offsets, strengths = [], []
    for seed in range(12):
        drawing = shapes.draw(np.random.default_rng(seed), kind, plain=True)
        found = response(drawing.image)
        for x, y in np.round(drawing.corners).astype(int):
            patch = found[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5]
            v, u = np.unravel_index(patch.argmax(), patch.shape)
            offsets.append(np.hypot(u + max(x - 4, 0) - x, v + max(y - 4, 0) - y))
            strengths.append(patch.max() / np.median(found[found > 0]))
    assert len(offsets) > 20
    assert np.median(offsets) <= 2.3
    assert np.percentile(offsets, 90) <= 3.5
    assert np.percentile(strengths, 10) > 100


@pytest.mark.parametrize("kind", ["polygon", "polygons"])
def test_labels_lie_on_the_outline_where_it_turns(kind):
    """The outline at half contrast passes a label within a pixel, and its ways to both sides make a clear angle."""
    distances, angles = [], []
    for seed in range(12):
        drawing = shapes.draw(np.random.default_rng(seed), kind, plain=True)
        background = int(
            np.median(np.r_[drawing.image[0], drawing.image[-1], drawing.image[:, 0], drawing.image[:, -1]])
        )
        shape = (np.abs(drawing.image.astype(int) - background) > 20).astype(np.uint8)
        outlines = [
            o[:, 0] for o in cv2.findContours(shape, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0] if len(o) > 30
        ]
        for corner in drawing.corners:
            nearest = min(outlines, key=lambda o: np.linalg.norm(o - corner, axis=1).min())
            k = int(np.linalg.norm(nearest - corner, axis=1).argmin())
            distances.append(np.linalg.norm(nearest[k] - corner))
            before, after = nearest[k - 6] - nearest[k], nearest[(k + 6) % len(nearest)] - nearest[k]
            cosine = before @ after / (np.linalg.norm(before) * np.linalg.norm(after))
            angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    assert len(distances) > 20
    assert np.percentile(distances, 90) < 1.0
    assert np.percentile(angles, 90) < 140  # 120 at most, and whole pixels of 6 steps


def test_crossings_of_a_checkerboard_are_exact_below_a_pixel():
    """OpenCV's saddle-point search, begun at the labels, stays at them."""
    stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 50, 1e-3)
    moved = []
    for seed in range(20):
        drawing = shapes.draw(np.random.default_rng(seed), "checkerboard", plain=True)
        inner = [c for c in drawing.corners if _has_four_sides(drawing.image, c)]
        if inner:
            start = np.float32(inner)[:, None]
            refined = cv2.cornerSubPix(drawing.image, start.copy(), (4, 4), (-1, -1), stop)
            moved += np.linalg.norm(refined - start, axis=2).ravel().tolist()
    assert len(moved) > 100
    assert np.median(moved) < 0.25
    assert np.percentile(moved, 90) < 0.6


def _has_four_sides(image: np.ndarray, corner: np.ndarray) -> bool:
    """Whether a ring of 6 px about a place changes its grey four times."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, y = (corner[:, None] + 6 * np.stack([np.cos(angles), np.sin(angles)])).round().astype(int)
    if (x < 0).any() or (y < 0).any() or (x >= image.shape[1]).any() or (y >= image.shape[0]).any():
        return False
    ring = image[y, x].astype(int)
    jumps = np.abs(ring - np.roll(ring, 2)) > 20
    return bool((jumps & ~np.roll(jumps, 1)).sum() == 4)


@pytest.mark.parametrize("kind", ["polygon", "checkerboard", "cube"])
def test_what_looks_like_a_corner_is_labelled(kind):
    """Of the strongest responses of a plain drawing, each lies at a label (wide angles of polygons are left out)."""
    at_labels = []
    for seed in range(40):
        drawing = shapes.draw(np.random.default_rng(seed), kind, plain=True)
        found = response(drawing.image)
        found[:8], found[-8:], found[:, :8], found[:, -8:] = 0, 0, 0, 0  # shapes that leave the image
        labels = [c for c in drawing.corners if (c > 10).all() and (c < (309, 229)).all()]
        if not labels:
            continue
        weakest = min(found[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].max() for x, y in labels)
        y, x = np.nonzero((found == cv2.dilate(found, np.ones((9, 9)))) & (found > max(3 * weakest, 20)))
        places = np.stack([x, y], axis=1)
        at_labels += [np.linalg.norm(drawing.corners - place, axis=1).min() < 5 for place in places]
    assert len(at_labels) > 10
    assert np.mean(at_labels) > 0.9  # in a very sharp corner the response lies further inside


def test_a_cube_shows_seven_corners():
    counts = {len(shapes.draw(np.random.default_rng(seed), "cube", (2000, 2000)).corners) for seed in range(5)}
    assert max(counts) <= 7


def test_wide_and_close_corners_are_not_labelled():
    square = np.array([[0, 0], [100, 0], [100, 100], [0, 100]], float)
    assert len(shapes.clear_corners(square, 240)) == 4
    bent = np.insert(square, 1, [50, -1], axis=0)  # about 178 degrees
    np.testing.assert_array_equal(shapes.clear_corners(bent, 240), square)
    close = np.insert(square, 1, [1, 0], axis=0)
    assert len(shapes.clear_corners(close, 240)) == 3


def test_classes_come_in_their_shares():
    rng = np.random.default_rng(0)
    kinds = [shapes.draw(rng, size=(64, 48)).kind for _ in range(400)]
    total = sum(shapes.SHARES.values())
    for kind, share in shapes.SHARES.items():
        assert kinds.count(kind) / 400 == pytest.approx(share / total, abs=0.06)


def test_speckle_blackens_and_whitens_few_pixels():
    quiet = LightConfig(spot=0, shade=0, blur=0, motion=0, noise=0)
    image = np.full((240, 320), 120, np.uint8)
    clean = relight(image, np.random.default_rng(3), quiet)
    dotted = relight(image, np.random.default_rng(3), LightConfig(0, 0, 0, 0, 0, speckle=1.0, max_speckle=0.05))
    changed = dotted != clean
    assert 0 < changed.mean() < 0.05
    assert set(np.unique(dotted[changed])) <= {0, 255}


def test_shape_pairs_need_no_packs_and_their_corners_agree():
    sampler = PairSampler([], PairConfig(shapes=1.0, points=80))
    for k in range(6):
        pair = sampler.pair(1, k)
        there = np.concatenate([pair.points[0], np.ones((80, 1))], axis=1) @ pair.homography.T
        expected = there[:, :2] / there[:, 2:]
        np.testing.assert_allclose(pair.points[1][pair.valid], expected[pair.valid], atol=1e-2)


def test_detections_take_each_corner_once():
    corners = np.array([[10.0, 10.0], [50.0, 50.0]])
    found = taken_corners(np.array([[11.0, 10.0], [10.0, 10.0], [50.0, 52.0], [90.0, 90.0]]), corners)
    assert found == pytest.approx([1.0, np.inf, 2.0, np.inf])
    assert taken_corners(np.array([[1.0, 1.0]]), np.zeros((0, 2))) == [np.inf]


def test_average_precision_of_a_known_ranking():
    scores = rank_corners([(0.9, 1.0), (0.8, np.inf), (0.7, 2.0), (0.1, np.inf)], corners=4)
    assert scores == CornerScores(pytest.approx((1 + 2 / 3) / 4), 0.5, pytest.approx(1.5))


def test_untrained_detector_is_scored():
    torch.manual_seed(0)
    drawings = [shapes.draw(np.random.default_rng(k), "checkerboard", (128, 96)) for k in range(2)]
    scores = score_corners(build_network("tiny"), drawings, threshold=0.0)
    assert 0 <= scores.average_precision <= scores.recall <= 1
