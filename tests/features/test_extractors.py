"""The contract of every registered extractor, whatever it is inside."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np
import pytest

from tests.world import filmed
from vslam.config import ExtractorConfig
from vslam.errors import VslamError
from vslam.frontend import make_extractor
from vslam.registry import names
from vslam.types import Features

EXTRACTORS = names("extractors")
FIELDS = ("xy", "sigma", "score", "octave", "angle", "descriptors")


@cache
def make(name: str, max_keypoints: int = 200):
    try:
        return make_extractor(ExtractorConfig(name, max_keypoints))
    except (VslamError, ImportError) as missing:  # a network that is not shipped, a runtime that is an extra
        pytest.skip(str(missing))


@cache
def picture() -> np.ndarray:
    return filmed(1)[0].image


def check(features: Features, extractor, shape: tuple[int, int], max_keypoints: int = 200) -> None:
    """Everything that `Features` promises."""
    n = len(features)
    assert n <= max_keypoints
    kinds = dict.fromkeys(("sigma", "score", "angle"), (np.float32, (n,))) | {
        "xy": (np.float32, (n, 2)),
        "octave": (np.uint8, (n,)),
    }
    for name, (dtype, size) in kinds.items():
        array = getattr(features, name)
        assert (array.dtype, array.shape) == (dtype, size), name
        assert np.isfinite(array).all(), name
    assert (features.xy >= -0.5).all() and (features.xy <= np.array(shape[::-1]) - 0.5).all()
    assert (features.sigma > 0).all()
    assert (np.abs(features.angle) <= 2 * np.pi).all()
    assert features.descriptors.shape[0] == n and features.descriptors.ndim == 2
    if extractor.metric == "hamming":
        assert features.descriptors.dtype == np.uint8 and features.descriptors.shape[1] % 8 == 0
    else:
        assert extractor.metric == "l2" and features.descriptors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)


def same(a: Features, b: Features) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_extractor_says_what_it_is(name):
    extractor = make(name)
    assert extractor.metric in ("hamming", "l2")
    assert isinstance(extractor.scale_pyramid, bool)
    assert extractor.max_distance > 0


@pytest.mark.parametrize("name", EXTRACTORS)
def test_picture_gives_keypoints(name):
    features = make(name).extract(picture())
    check(features, make(name), picture().shape)
    assert len(features) > 100


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_plain_image_gives_no_or_few_keypoints(name, value):
    features = make(name).extract(np.full((240, 320), value, np.uint8))
    check(features, make(name), (240, 320))
    assert len(features) < 20


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 7), (33, 33), (3, 300), (300, 3)])
def test_tiny_image_raises_nothing(name, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    check(make(name).extract(image), make(name), shape)


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("shape", [(239, 317), (101, 333), (120, 161), (481, 643)])
def test_odd_size_is_fine(name, shape):
    image = cv2.resize(picture(), shape[::-1])
    features = make(name).extract(image)
    check(features, make(name), shape)
    assert len(features) > 30


@pytest.mark.parametrize("name", EXTRACTORS)
def test_layout_of_the_image_does_not_matter(name):
    wide = np.repeat(picture(), 2, axis=1)
    expected = make(name).extract(picture())
    for image in (wide[:, ::2], np.asfortranarray(picture()), picture()[::-1][::-1]):
        assert same(make(name).extract(image), expected)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_image_is_not_written_and_results_are_not_shared(name):
    image = picture().copy()
    image.flags.writeable = False
    first = make(name).extract(image)
    kept = {field: getattr(first, field).copy() for field in FIELDS}
    make(name).extract(picture()[::-1].copy())
    assert all(np.array_equal(kept[field], getattr(first, field)) for field in FIELDS)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_four_threads_give_what_one_gives(name):
    extractor = make(name)
    images = [np.roll(picture(), 17 * k, axis=1)[: 240 - 16 * (k % 3)] for k in range(8)]
    alone = [extractor.extract(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(extractor.extract, images * 2))
    assert all(same(a, b) for a, b in zip(alone * 2, together, strict=True))


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("wanted", [1, 5, 40])
def test_at_most_so_many_keypoints_as_wanted(name, wanted):
    features = make(name, wanted).extract(picture())
    check(features, make(name, wanted), picture().shape, wanted)
    assert len(features) > 0


def test_unknown_extractor_is_named_in_one_line():
    with pytest.raises(VslamError, match="unknown extractor 'orbit'; known: orb, sift"):
        make_extractor(ExtractorConfig("orbit"))


def test_unknown_option_is_named_in_one_line():
    with pytest.raises(VslamError, match="extractor orb: unknown key 'leevels'; known: levels"):
        make_extractor(ExtractorConfig("orb", 100, {"leevels": 4}))
