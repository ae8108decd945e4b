"""Front-end scores on pictures whose motion is known, and on hand-made features."""

import cv2
import numpy as np
import pytest

from tests.world import filmed
from vslam.errors import VslamError
from vslam.evaluation import frontend, frontend_page, match_view
from vslam.evaluation.frontend import Rules, contenders, coverage, fits, ratio_matches, score_frontends, score_pair
from vslam.evaluation.pictures import open_pictures, read_picture
from vslam.types import Features


def features(xy: np.ndarray, descriptors: np.ndarray) -> Features:
    n = len(xy)
    ones = np.ones(n, np.float32)
    return Features(np.float32(xy).reshape(-1, 2), ones, ones, np.zeros(n, np.uint8), 0 * ones, descriptors)


def random_bits(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32)).astype(np.uint8)


def naive_ratio(a: np.ndarray, b: np.ndarray, ratio: float) -> list[tuple[int, int]]:
    found = []
    for i, row in enumerate(a):
        if a.dtype == np.uint8:
            distance = [np.unpackbits(row ^ other).sum() for other in b]
        else:
            distance = [np.linalg.norm(row - other) for other in b]
        first, second, *_ = np.argsort(distance, kind="stable")
        if distance[first] < ratio * distance[second]:
            found.append((i, int(first)))
    return found


@pytest.mark.parametrize("binary", [True, False])
def test_ratio_test_equals_its_naive_twin(binary):
    rng = np.random.default_rng(3)
    b = random_bits(40)
    a = b[rng.permutation(40)[:30]] ^ (rng.random((30, 32)) < 0.2).astype(np.uint8)
    if not binary:
        a, b = (d.astype(np.float32) / np.linalg.norm(d.astype(np.float32), axis=1, keepdims=True) for d in (a, b))
    found = ratio_matches(features(np.zeros((30, 2)), a), features(np.zeros((40, 2)), b), 0.7)
    assert len(found) > 5
    assert [tuple(pair) for pair in found.tolist()] == naive_ratio(a, b, 0.7)


def test_scores_of_a_shifted_picture_count_what_was_built_in():
    """40 keypoints: 30 move with a camera that turns, 6 match wrongly and fly off, 4 have no mate."""
    rng = np.random.default_rng(1)
    xy = rng.uniform(20, 220, (40, 2))
    bits = random_bits(40)
    depth = rng.uniform(1, 4, 40)
    there = xy + np.stack([20 / depth, np.zeros(40)], axis=1)  # a camera that moves sideways: rows stay
    there[30:36, 1] += 60
    other = bits.copy()
    other[36:] = random_bits(4, seed=9)
    found = score_pair(features(xy, bits), features(there, other), (240, 320), Rules())
    assert found["num_kp"] == 40
    assert found["matches"] == 36
    assert found["match_prec"] == pytest.approx(36 / 40)
    assert found["inliers"] == 30
    assert found["outlier_prec"] == pytest.approx(6 / 36)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_matches_are_all_outliers(count):
    few = features(np.random.default_rng(0).uniform(0, 99, (count, 2)), random_bits(count))
    found = score_pair(few, few, (240, 320), Rules())
    assert found["outlier_prec"] == 1.0
    assert found["inliers"] == 0
    assert found["match_prec"] == (1.0 if count > 1 else 0.0)


def test_coverage_counts_cells_of_16_pixels():
    assert coverage(np.zeros((0, 2)), (240, 320)) == 0
    assert coverage(np.array([[0, 0], [15.4, 15.4], [15.5, 0], [319, 239]]), (240, 320)) == pytest.approx(3 / 300)
    y, x = np.mgrid[8:240:16, 8:320:16]
    assert coverage(np.stack([x.ravel(), y.ravel()], axis=1), (240, 320)) == 1.0


def test_epipolar_fit_needs_eight_matches():
    xy = np.random.default_rng(2).uniform(0, 100, (20, 2))
    assert not fits(xy[:7], xy[:7] + 1, 5.0).any()
    assert fits(xy, xy + np.array([3.0, 0.0]), 5.0).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five frames of a walk through a painted room, named so that letters would sort 10 before 9."""
    path = tmp_path_factory.mktemp("pictures")
    for k, frame in enumerate(filmed(5)):
        cv2.imwrite(str(path / f"{8 + k}.png"), frame.image)
    return path


def test_front_ends_are_scored_on_the_same_pictures(folder):
    seen = []
    found = score_frontends(
        open_pictures(folder), contenders(["orb", "sift"], ["auto"], ["auto"]), Rules(), lambda: seen.append(1)
    )
    assert found["pictures"] == len(seen) == 5
    assert found["image_size"] == [320, 240]
    for scores in found["frontends"].values():
        assert scores["match_prec"]["mean"] > 0.5
        assert scores["outlier_prec"]["mean"] < 0.1
        assert scores["num_kp"]["median"] > 300
        assert all(len(curve) == 4 for curve in scores["curves"].values())  # the first picture has no predecessor
        assert scores["ratio"] == pytest.approx(scores["extract_cpu_ms"]["median"] / found["peer_cpu_ms"])
        assert set(scores["stage_ms"]) == {"load", "resize", "extract", "match"}
    picture = frontend_page.draw(found)
    labels = {item.text for item in picture.items if isinstance(item, frontend_page.Label)}
    assert {"orb", "sift", "Keypoints"} <= labels


def test_only_networks_are_run_by_back_ends():
    pytest.importorskip("onnxruntime")
    labels = [c.label for c in contenders(["orb", "gcnv2"], ["auto", "onnx"], ["fp32"])]
    assert labels == ["orb", "gcnv2 fp32", "gcnv2 onnx fp32"]


def test_one_picture_is_not_enough(folder):
    with pytest.raises(VslamError, match="1 pictures can be read; at least two"):
        score_frontends(open_pictures(folder, most=1), contenders(["orb"], ["auto"], ["auto"]))


def test_pictures_come_in_the_order_of_their_numbers(folder):
    assert [p.name for p in open_pictures(folder)] == ["8.png", "9.png", "10.png", "11.png", "12.png"]
    assert [p.name for p in open_pictures(folder, start=1, step=2, most=2)] == ["9.png", "11.png"]


def test_listed_pictures_come_in_the_order_of_the_list(folder, tmp_path):
    (tmp_path / "rgb").mkdir()
    for k in (9, 10):
        (tmp_path / "rgb" / f"{k}.png").write_bytes((folder / f"{k}.png").read_bytes())
    assert [p.name for p in open_pictures(tmp_path)] == ["9.png", "10.png"]
    (tmp_path / "rgb.txt").write_text("# time file\n0.1 rgb/10.png\n0.2 rgb/9.png\n")
    assert [p.name for p in open_pictures(tmp_path)] == ["10.png", "9.png"]


def test_broken_pictures_are_left_out(folder, tmp_path):
    (tmp_path / "1.png").write_bytes((folder / "8.png").read_bytes())
    (tmp_path / "2.png").write_text("no picture")
    assert [p.name for p in open_pictures(tmp_path)] == ["1.png"]


def test_video_gives_the_pictures_put_in(tmp_path):
    images = [np.full((64, 80, 3), 40 * k, np.uint8) for k in range(5)]
    assert match_view.write_video(tmp_path / "v.avi", images) == 5
    found = [int(p.image.mean()) for p in open_pictures(tmp_path / "v.avi", step=2)]
    assert found == pytest.approx([0, 80, 160], abs=4)


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "bad.png").write_text("hello")
    (tmp_path / "bad.avi").write_text("hello")
    for call, words in (
        (lambda: open_pictures(tmp_path / "nowhere"), "no such file or folder"),
        (lambda: open_pictures(tmp_path / "notes.txt"), "not a video"),
        (lambda: list(open_pictures(tmp_path / "bad.avi")), "not a video that can be read"),
        (lambda: open_pictures(tmp_path, start=9), "none left from number 9"),
        (lambda: read_picture(tmp_path / "bad.png"), "not an image that can be read"),
        (lambda: read_picture(tmp_path / "none.png"), "no such image"),
        (lambda: match_view.write_video(tmp_path / "v.gif", []), "unknown video format"),
        (lambda: match_view.write_video(tmp_path / "v.avi", []), "nothing to show"),
        (lambda: match_view.write_image(tmp_path / "v.tga", np.zeros((2, 2, 3), np.uint8)), "unknown picture format"),
    ):
        with pytest.raises(VslamError, match=words):
            call()


def test_drawn_matches_are_green_where_they_fit_and_red_elsewhere():
    blank = np.zeros((60, 80), np.uint8)
    xy = np.array([[10.0, 20.0], [10.0, 40.0]])
    view = match_view.View(blank, features(xy, random_bits(2)))
    pairs = np.array([[0, 0], [1, 1]], np.int32)
    drawn = match_view.draw_matches(view, view, pairs, np.array([True, False]))
    middle = 80 + match_view.GAP // 2
    assert np.allclose(drawn[match_view.BANNER + 20, middle], match_view.FIT, atol=90)
    assert np.allclose(drawn[match_view.BANNER + 40, middle], match_view.MISFIT, atol=90)
    assert tuple(drawn[match_view.BANNER + 30, middle]) == match_view.PAPER


def test_percentiles_are_in_order():
    found = frontend.spread_of([3.0, 1.0, 2.0, 10.0])
    assert found["p5"] < found["median"] == 2.5 < found["mean"] == 4.0 < found["p95"]
