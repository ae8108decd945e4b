"""Learned extractors with the shipped networks, on pictures whose motion is known."""

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.world import filmed
from vslam.errors import VslamError
from vslam.features.learned import Config, Gcnv2, Gcnv2Tiny, SuperPoint, as_input, shrink
from vslam.inference.models import manifest
from vslam.matching.matcher import MutualMatcher

KINDS = [kind for kind in (SuperPoint, Gcnv2, Gcnv2Tiny) if kind.network in manifest()]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return filmed(1)[0].image


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.network)
def kind(request):
    return request.param


def match_right(extractor, image: np.ndarray, motion: np.ndarray, within_px: float) -> tuple[int, int]:
    """Mutual matches between an image and its copy moved by a 2x3 matrix, and how many are right."""
    moved = cv2.warpAffine(image, motion, image.shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
    a, b = extractor.extract(image), extractor.extract(moved)
    pairs = MutualMatcher().match(a, b).pairs
    expected = a.xy[pairs[:, 0]] @ motion[:, :2].T + motion[:, 2]
    inside = ((expected > 8) & (expected < np.array(image.shape[::-1]) - 8)).all(axis=1)
    right = np.linalg.norm(expected - b.xy[pairs[:, 1]], axis=1) <= within_px
    return int(inside.sum()), int((right & inside).sum())


def test_features_have_the_promised_form(kind, picture):
    features = kind(300).extract(picture)
    n = len(features)
    assert 100 < n <= 300
    assert features.xy.dtype == features.sigma.dtype == features.score.dtype == np.float32
    assert features.xy.shape == (n, 2)
    assert (features.sigma > 0).all()
    if kind.metric == "hamming":
        assert features.descriptors.shape == (n, 32)
        assert features.descriptors.dtype == np.uint8
    else:
        np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)


def test_matches_survive_a_small_motion(kind, picture):
    angle = np.radians(6)
    motion = np.array([[np.cos(angle), -np.sin(angle), 12.3], [np.sin(angle), np.cos(angle), -7.8]])
    matched, right = match_right(kind(400), picture, motion, within_px=3.0 * picture.shape[1] / 320)
    assert right > 60
    assert right / matched > 0.75


def test_coordinates_do_not_depend_on_scale(kind, picture):
    small = cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA)
    doubled = cv2.resize(small, (640, 480), interpolation=cv2.INTER_NEAREST)
    a, b = kind(300).extract(small), kind(300).extract(doubled)
    np.testing.assert_allclose((a.xy + 0.5) * 2 - 0.5, b.xy, atol=1e-3)
    np.testing.assert_allclose(2 * a.sigma, b.sigma, rtol=1e-5)


def test_black_image_has_no_keypoints(kind):
    assert len(kind(300).extract(np.zeros((240, 320), np.uint8))) == 0


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (16, 16), (37, 53), (241, 319)])
def test_any_size_is_accepted(kind, shape):
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    features = kind(50).extract(image)
    assert (features.xy >= 0).all()
    assert (features.xy <= np.array(shape[::-1]) - 1).all()


def test_four_threads_give_what_one_gives(kind, picture):
    extractor = kind(200)
    images = [np.ascontiguousarray(np.roll(picture, 17 * k, axis=1)) for k in range(4)]
    alone = [extractor.extract(image) for image in images]
    together: dict[int, list] = {}

    def work(k: int) -> None:
        together[k] = [extractor.extract(images[k]) for _ in range(4)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, expected in enumerate(alone):
        for found in together[k]:
            assert np.array_equal(found.xy, expected.xy)
            assert np.array_equal(found.descriptors, expected.descriptors)


def test_back_ends_find_the_same_keypoints(kind, picture):
    pytest.importorskip("openvino")
    options = Config(precision="fp32")
    a = kind(300, replace(options, backend="onnx")).extract(picture)
    b = kind(300, replace(options, backend="openvino")).extract(picture)
    nearest = np.linalg.norm(a.xy[:, None] - b.xy[None], axis=2).min(axis=1)
    assert (nearest <= 0.5).mean() >= 0.99


def test_missing_weights_are_named():
    with pytest.raises(VslamError, match="no such weights"):
        SuperPoint(100, Config(weights="nowhere.onnx"))


def test_images_shrink_in_proportion_and_never_grow():
    assert shrink(np.zeros((480, 752), np.uint8), (320, 240)).shape == (204, 320)
    assert shrink(np.zeros((100, 90), np.uint8), (320, 240)).shape == (100, 90)
    assert shrink(np.zeros((480, 640), np.uint8), (0, 0)).shape == (480, 640)


def test_input_is_padded_to_the_stride_by_its_edge():
    image = np.full((17, 30), 51, np.uint8)
    padded = as_input(image)
    assert padded.shape == (1, 1, 32, 32)
    np.testing.assert_allclose(padded, 0.2, atol=1e-6)
