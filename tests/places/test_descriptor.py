"""Place descriptors with a network small enough to know its answer by heart."""

import importlib.util
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.places.tiny_network import write_network
from vslam.config import PlaceConfig
from vslam.errors import VslamError
from vslam.inference import session
from vslam.inference.models import manifest
from vslam.places.descriptor import BATCH, Config, CosPlace, Gem, NetVlad, batches, fit, make_place, unit

onnx = pytest.importorskip("onnx")
INSTALLED = [name for name, package in session.MODULES.items() if importlib.util.find_spec(package)]
SHIPPED = [kind for kind in (NetVlad, Gem, CosPlace) if kind.network in manifest()]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return str(write_network(tmp_path_factory.mktemp("networks") / "tiny.onnx"))


def noise(seed: int, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def naive_vector(weights: str, image: np.ndarray) -> np.ndarray:
    """Slow twin of `describe` for an image of the box's size: the filters by hand."""
    filters = onnx.numpy_helper.to_array(onnx.load(weights).graph.initializer[0])[:, 0]
    blocks = [image[y : y + 4, x : x + 4] / 255.0 for y in range(0, 48, 4) for x in range(0, 64, 4)]
    means = np.mean([[max((block * one).sum(), 0.0) for one in filters] for block in blocks], axis=0)
    return means / np.linalg.norm(means)


@pytest.mark.parametrize("backend", INSTALLED)
def test_vector_is_the_networks_at_unit_length(weights, backend):
    place = Gem(Config(backend=backend, weights=weights, image_size=(64, 48)))
    vector = place.describe(noise(1))
    assert place.dim == 6 and vector.shape == (6,) and vector.dtype == np.float32
    np.testing.assert_allclose(vector, naive_vector(weights, noise(1)), atol=1e-5)


@pytest.mark.parametrize("backend", INSTALLED)
def test_many_at_once_are_what_each_is_alone(weights, backend):
    place = Gem(Config(backend=backend, weights=weights, image_size=(64, 48), scales=(1.0, 0.5)))
    shapes = [(48, 64)] * (BATCH + 3) + [(64, 64), (30, 90)]
    images = [noise(seed, shape) for seed, shape in enumerate(shapes)]
    together = place.describe_many(images)
    np.testing.assert_allclose(together, [place.describe(image) for image in images], atol=1e-6)
    assert place.describe_many([]).shape == (0, 6)


def test_several_scales_are_the_mean_of_each(weights):
    def at(*scales: float) -> np.ndarray:
        return Gem(Config(weights=weights, image_size=(64, 48), scales=scales)).describe(noise(2, (96, 128)))

    mean = at(1.0) + at(0.5) + at(2.0)
    np.testing.assert_allclose(at(1.0, 0.5, 2.0), mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("normalise", [False, True])
def test_constant_image_has_a_unit_vector(tmp_path, grey, normalise):
    place = Gem(Config(weights=str(write_network(tmp_path / "tiny.onnx", normalise)), image_size=(64, 48)))
    vector = place.describe(np.full((48, 64), grey, np.uint8))
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_number_that_is_none_is_a_fault_where_there_is_something_to_see(tmp_path):
    place = Gem(Config(weights=str(write_network(tmp_path / "tiny.onnx", normalise=True)), image_size=(64, 48)))
    image = np.zeros((48, 64), np.uint8)
    image[::4, ::4] = 1
    vector = place.describe(image)
    assert np.isfinite(vector).all()
    place._session.run = lambda tensor: {"place": np.full((len(tensor), 6), np.nan, np.float32)}
    with pytest.raises(VslamError, match="not finite"):
        place.describe(image)


@pytest.mark.parametrize("shape", [(1, 1), (7, 900), (16, 16), (241, 319), (480, 752)])
def test_any_size_is_accepted(weights, shape):
    vector = Gem(Config(weights=weights, image_size=(64, 48))).describe(noise(3, shape))
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_strided_images_are_read_right(weights):
    place, image = Gem(Config(weights=weights, image_size=(64, 48))), noise(4, (96, 128))
    np.testing.assert_array_equal(place.describe(image[::2, ::2]), place.describe(image[::2, ::2].copy()))


def test_threads_share_a_network(weights):
    place = Gem(Config(weights=weights, image_size=(64, 48)))
    images = [noise(seed) for seed in range(4)]
    alone, wrong = [place.describe(image) for image in images], []

    def work(k: int) -> None:
        for _ in range(30):
            if not np.array_equal(place.describe(images[k]), alone[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_model_names_network_file_and_unusual_settings(weights, tmp_path):
    import hashlib

    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:12]
    assert Gem(Config(weights=weights)).model == f"gem-{digest}"
    assert CosPlace(Config(weights=weights, image_size=(64, 48))).model == f"cosplace-{digest}-64x48"
    assert NetVlad(Config(weights=weights, scales=(1.0, 0.5))).model == f"netvlad-{digest}-scales-1,0.5"
    other = write_network(tmp_path / "other.onnx", filters=7)
    assert Gem(Config(weights=str(other))).model != f"gem-{digest}"


def test_images_fill_the_box_in_proportion():
    assert fit(np.zeros((480, 640), np.uint8), (320, 240)).shape == (240, 320)
    assert fit(np.zeros((480, 752), np.uint8), (320, 240)).shape == (208, 320)
    assert fit(np.zeros((32, 64), np.uint8), (320, 240)).shape == (160, 320)
    assert fit(np.zeros((500, 100), np.uint8), (320, 240)).shape == (240, 48)
    assert fit(np.zeros((3, 1000), np.uint8), (320, 240)).shape == (16, 320)


def test_resizing_keeps_what_is_in_an_image():
    ramp = np.tile(np.linspace(0, 255, 640), (480, 1)).astype(np.uint8)
    small = fit(ramp, (320, 240))
    np.testing.assert_allclose(small, cv2.resize(ramp, (320, 240), interpolation=cv2.INTER_AREA))


def test_batches_hold_every_image_once():
    shapes = [(16, 16), (32, 16)] * 13
    groups = batches(shapes)
    assert sorted(row for rows in groups for row in rows) == list(range(26))
    assert {len(rows) for rows in groups} == {1, BATCH}
    assert all(len({shapes[row] for row in rows}) == 1 for rows in groups)


def test_unit_rows():
    rows = unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.5**0.5, 0.5**0.5]], atol=1e-6)


def test_configuration_names_the_network(weights):
    assert make_place(PlaceConfig("none")) is None
    assert isinstance(make_place(PlaceConfig("cosplace", {"weights": weights, "image_size": [64, 48]})), CosPlace)
    with pytest.raises(VslamError, match="unknown place 'vlad'; known: netvlad, gem, cosplace"):
        make_place(PlaceConfig("vlad"))
    with pytest.raises(VslamError, match="unknown key 'size'"):
        make_place(PlaceConfig("gem", {"size": 3}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, "scales"),
        ({"scales": (1.0, 0.0)}, "scales"),
        ({"image_size": (64,)}, "image_size"),
        ({"image_size": (64, 8)}, "image_size"),
    ],
)
def test_settings_without_sense_are_refused(weights, options, message):
    with pytest.raises(VslamError, match=message):
        Gem(Config(weights=weights, **options))


def test_other_networks_are_refused(tmp_path):
    with pytest.raises(VslamError, match="no such weights"):
        Gem(Config(weights="nowhere.onnx"))
    file = write_network(tmp_path / "scores.onnx", output="score")
    with pytest.raises(VslamError, match=r"scores\.onnx: gives score, not 'place'"):
        Gem(Config(weights=str(file)))


@pytest.mark.parametrize("kind", SHIPPED)
def test_shipped_network_knows_a_place_again(kind):
    rng = np.random.default_rng(0)
    scenes = [cv2.resize(rng.integers(0, 255, (12, 16)).astype(np.uint8), (320, 240)) for _ in range(6)]
    darker = [np.clip(0.7 * np.roll(scene, 9, axis=1) + rng.normal(0, 4, scene.shape), 0, 255) for scene in scenes]
    place = kind()
    likeness = place.describe_many(scenes) @ place.describe_many([each.astype(np.uint8) for each in darker]).T
    np.testing.assert_array_equal(likeness.argmax(axis=1), np.arange(6))
