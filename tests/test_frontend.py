"""The front end alone: extract and match, without camera or map."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import vslam
from tests.world import filmed
from vslam.errors import VslamError
from vslam.frontend import Frontend, as_grey


@pytest.mark.parametrize("extractor", ["orb", "sift"])
@pytest.mark.parametrize("matcher", ["mutual", "ratio"])
def test_shifted_picture_matches_where_it_was_shifted_to(extractor, matcher):
    image = filmed(1)[0].image
    frontend = Frontend(extractor, matcher, max_keypoints=300)
    a, b = frontend.extract(image[:220, :300]), frontend.extract(image[20:, 20:])
    matches = frontend.match(a, b)
    i, j = matches.pairs.T
    right = np.linalg.norm(a.xy[i] - 20 - b.xy[j], axis=1) < 3 * b.sigma[j]
    assert len(matches) > 80
    # what lies in one picture only has a mutual neighbour too, by chance; the ratio weeds it out
    assert right.mean() > (0.5 if matcher == "mutual" else 0.9)
    assert len(matches.distance) == len(matches)


def test_frontend_is_the_public_one_and_obeys_max_keypoints():
    assert vslam.Frontend is Frontend
    assert 0 < len(Frontend(max_keypoints=50).extract(filmed(1)[0].image)) <= 50


def test_colour_picture_gives_the_features_of_its_grey():
    grey = filmed(1)[0].image
    colour = np.repeat(grey[..., None], 3, axis=2)  # the three shares of grey add up to one
    a, b = (Frontend().extract(image) for image in (grey, colour))
    assert np.array_equal(a.descriptors, b.descriptors) and np.array_equal(a.xy, b.xy)


def test_four_threads_share_one_frontend():
    frontend = Frontend(max_keypoints=200)
    images = [np.roll(filmed(1)[0].image, 9 * k, axis=1) for k in range(8)]

    def work(k: int):
        a, b = frontend.extract(images[k]), frontend.extract(images[(k + 1) % 8])
        return frontend.match(a, b).pairs

    alone = [work(k) for k in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(8)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_features_of_two_extractors_do_not_match():
    image = filmed(1)[0].image
    with pytest.raises(VslamError, match="same extractor"):
        Frontend("orb").match(Frontend("orb").extract(image), Frontend("sift").extract(image))


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8), None, [[1, 2]],
     np.zeros((4, 4, 1), np.uint8)],
)  # fmt: skip
def test_what_is_no_image_is_refused_in_one_line(image):
    with pytest.raises(VslamError, match="need a uint8 array") as caught:
        as_grey(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"extractor": "orbit"}, {"matcher": "best"}, {"options": {"level": 3}}])
def test_unknown_names_are_refused_in_one_line(arguments):
    with pytest.raises(VslamError, match=r"unknown .*; known: ") as caught:
        Frontend(**arguments)
    assert "\n" not in str(caught.value)


def test_grey_is_contiguous_and_weighs_colours_as_seen():
    colour = np.zeros((2, 3, 3), np.uint8)
    colour[..., 1] = 255  # green of BGR
    assert (as_grey(colour) == 150).all()  # 0.587 of 255
    assert as_grey(np.zeros((4, 8), np.uint8)[:, ::2]).flags.c_contiguous
