"""The three back ends on one file, and what they say about files and packages that are not there."""

import importlib.util
import json
import threading

import numpy as np
import pytest

from vslam.errors import VslamError
from vslam.inference import models, session
from vslam.inference.session import choose_backend, open_session

INSTALLED = [name for name, package in session.MODULES.items() if importlib.util.find_spec(package)]
NAMES = list(models.manifest())
PLACES = [name for name, model in models.manifest().items() if "image_size" in model.metrics]
KEYPOINTS = [name for name in NAMES if name not in PLACES]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Blocks, and noise: without it the image has as little detail halved as whole, and how little is 0 / 0."""
    rng = np.random.default_rng(3)
    blocks = np.kron(rng.random((12, 16)), np.ones((16, 16))) + rng.normal(0, 0.02, (192, 256))
    return blocks.clip(0, 1).astype(np.float32)[None, None]


@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("name", NAMES)
def test_maps_equal_those_of_onnx_runtime(name, backend, image):
    file = models.find_model(name).file("fp32")
    expected, found = (open_session(file, chosen).run(image) for chosen in ("onnx", backend))
    assert set(found) == set(expected)
    for key, truth in expected.items():
        assert found[key].shape == truth.shape
        np.testing.assert_allclose(found[key], truth, atol=1e-3 * max(1.0, np.abs(truth).max()))


@pytest.mark.parametrize("backend", [name for name in INSTALLED if name != "torch"])
@pytest.mark.parametrize("name", KEYPOINTS)
def test_int8_keeps_the_score_map(name, backend, image):
    model = models.find_model(name)
    exact, coarse = (open_session(model.file(precision), backend).run(image) for precision in ("fp32", "int8"))
    likeness = np.corrcoef(exact["score"].ravel(), coarse["score"].ravel())[0, 1]
    assert likeness > 0.98


@pytest.mark.parametrize("backend", [name for name in INSTALLED if name != "torch"])
@pytest.mark.parametrize("name", PLACES)
def test_int8_keeps_the_direction_of_places(name, backend, image):
    model = models.find_model(name)
    exact, coarse = (open_session(model.file(precision), backend).run(image) for precision in ("fp32", "int8"))
    assert float(exact["place"][0] @ coarse["place"][0]) > 0.95


@pytest.mark.parametrize("backend", INSTALLED)
def test_sizes_change_from_call_to_call(backend):
    opened = open_session(models.find_model(KEYPOINTS[0]).file("fp32"), backend)
    for shape in ((64, 96), (32, 48), (64, 96)):
        maps = opened.run(np.zeros((1, 1, *shape), np.float32))
        assert maps["score"].shape == (1, *shape)
        assert maps["descriptors"].shape[1:3] == (shape[0] // 8, shape[1] // 8)


@pytest.mark.parametrize("backend", INSTALLED)
def test_threads_share_a_session(backend, image):
    opened = open_session(models.find_model(KEYPOINTS[0]).file("fp32"), backend)
    inputs = [np.ascontiguousarray(np.roll(image, 16 * k, axis=3)) for k in range(4)]
    alone = [opened.run(each)["score"].copy() for each in inputs]
    wrong = []

    def work(k: int) -> None:
        for _ in range(5):
            if not np.array_equal(opened.run(inputs[k])["score"], alone[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setattr(session, "find_spec", lambda name: None)
    with pytest.raises(VslamError, match=r"'openvino' is not installed.*vslam\[openvino\]"):
        choose_backend("openvino")
    with pytest.raises(VslamError, match="need a back end"):
        choose_backend("auto")


def test_unknown_backend_lists_the_known():
    with pytest.raises(VslamError, match="'tpu' is unknown; known: auto, onnx, openvino, torch"):
        choose_backend("tpu")


@pytest.mark.parametrize("backend", INSTALLED)
def test_damaged_file_is_one_line(tmp_path, backend):
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"no network at all" * 50)
    with pytest.raises(VslamError) as caught:
        open_session(file, backend).run(np.zeros((1, 1, 32, 32), np.float32))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_operator_set_is_one_line(tmp_path):
    onnx = pytest.importorskip("onnx")
    network = onnx.load(str(models.find_model(KEYPOINTS[0]).file("fp32")))
    network.opset_import[0].version = 999
    file = tmp_path / "future.onnx"
    onnx.save(network, str(file))
    with pytest.raises(VslamError, match="not a network that can be run"):
        open_session(file, "onnx")


def make_manifest(folder, content: bytes, sha256: str):
    (folder / "net.onnx").write_bytes(content)
    entry = {
        "licence": "x", "description": "x", "auto_precision": "fp32", "sigma": 1.0, "metrics": {}, "card": "net.md",
        "files": {"fp32": {"file": "net.onnx", "sha256": sha256, "bytes": len(content)}},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps({"net": entry}))
    return models.read_manifest(folder / "manifest.json")["net"]


def test_changed_weights_are_refused(tmp_path):
    model = make_manifest(tmp_path, b"abc", "0" * 64)
    with pytest.raises(VslamError, match=r"damaged weights \(sha256 ba7816bf8f01"):
        model.file()


def test_missing_weights_and_precisions_are_named(tmp_path):
    model = make_manifest(tmp_path, b"abc", "0" * 64)
    with pytest.raises(VslamError, match="net has no int8 weights; there are: fp32"):
        model.file("int8")
    (tmp_path / "net.onnx").unlink()
    with pytest.raises(VslamError, match="cannot be read"):
        model.file()


def test_damaged_manifest_is_one_line(tmp_path):
    (tmp_path / "manifest.json").write_text('{"net": {}}')
    with pytest.raises(VslamError, match="damaged list of weights"):
        models.read_manifest(tmp_path / "manifest.json")


def test_unknown_network_lists_the_shipped():
    with pytest.raises(VslamError, match=rf"'sift9' is not shipped; known: {NAMES[0]}"):
        models.find_model("sift9")


@pytest.mark.parametrize("name", NAMES)
def test_shipped_files_are_whole_and_described(name):
    model = models.find_model(name)
    for precision in model.files:
        assert model.file(precision).stat().st_size == model.files[precision]["bytes"]
    assert (model.folder / model.card).is_file()
    assert model.sigma == 0.0 if name in PLACES else 0.1 < model.sigma < 2.0
