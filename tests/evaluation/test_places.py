"""Figures of place recognition against counting by hand, and the truths they rest on."""

import csv

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vslam.datasets.trajectory import write_tum
from vslam.errors import VslamError
from vslam.evaluation import places_truth
from vslam.evaluation.places import Gap, check_sets, compare, precision_recall, score_places
from vslam.evaluation.places_images import ImageSet, in_order, open_images
from vslam.evaluation.places_report import comparison_html
from vslam.evaluation.places_truth import Tolerance, open_truth
from vslam.types import Trajectory


def a_set(count: int, where: str = "a", folder=None, stamps=None) -> ImageSet:
    return ImageSet(where, tuple(f"{row:04d}.png" for row in range(count)), folder, stamps)


def naive_scores(similarity, right):
    """Slow twin of `score_places`: recalls, and the curve as a dictionary from threshold to (recall, precision)."""
    ranked = [np.argsort(-row, kind="stable") for row in similarity]
    ranked = [[d for d in order if np.isfinite(row[d])] for order, row in zip(ranked, similarity, strict=True)]
    matched = [q for q in range(len(right)) if right[q].any()]
    recalls = {n: np.mean([any(right[q, d] for d in ranked[q][:n]) for q in matched]) for n in (1, 5, 10)}
    best = {q: (similarity[q, order[0]], right[q, order[0]]) for q, order in enumerate(ranked) if order}
    curve = []
    for threshold in sorted({score for score, _ in best.values()}, reverse=True):
        accepted = [is_right for score, is_right in best.values() if score >= threshold]
        curve.append((sum(accepted) / len(matched), sum(accepted) / len(accepted)))
    return recalls, curve


@given(st.integers(0, 10_000), st.integers(1, 15), st.integers(1, 14), st.booleans())
def test_scores_are_those_counted_by_hand(seed, queries, places, coarse):
    rng = np.random.default_rng(seed)
    similarity = rng.normal(size=(queries, places)).astype(np.float32)
    similarity = np.round(similarity) if coarse else similarity  # ties
    similarity[rng.random(similarity.shape) < 0.2] = -np.inf
    right = rng.random(similarity.shape) < 0.3
    right[0, 0] = True
    similarity[0, 0] = 0.5
    scores, (recalls, curve) = score_places(similarity, right), naive_scores(similarity, right)
    assert scores.recalls == pytest.approx(recalls)
    np.testing.assert_allclose(np.stack([scores.recall, scores.precision], axis=1), curve)
    assert scores.recall_at_full_precision == max([r for r, p in curve if p == 1.0], default=0.0)
    assert scores.precision_of_all == curve[-1][1]
    assert 0 <= scores.auc <= 1


def test_perfect_and_hopeless_are_one_and_zero():
    diagonal = np.eye(12, dtype=bool)
    perfect = score_places(np.eye(12), diagonal)
    assert perfect.recalls == {1: 1.0, 5: 1.0, 10: 1.0} and perfect.auc == 1.0 == perfect.recall_at_full_precision
    hopeless = score_places(1.0 - np.eye(12), diagonal)
    assert hopeless.recalls[1] == hopeless.auc == hopeless.recall_at_full_precision == 0.0


def test_area_is_that_of_the_published_rule():
    """Scores 4 3 2 1: right, wrong, right, right of 4 matches; trapezium from (0, first precision)."""
    recall, precision = precision_recall(np.array([4.0, 3, 2, 1]), np.array([1, 0, 1, 1], bool), 4)
    np.testing.assert_allclose(recall, [0.25, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3, 3 / 4])
    similarity = np.full((4, 4), -1.0)
    similarity[np.arange(4), [0, 0, 2, 3]] = [4, 3, 2, 1]
    scores = score_places(similarity, np.eye(4, dtype=bool))
    assert scores.auc == pytest.approx(0.25 * 1 + 0.25 * (1 / 2 + 2 / 3) / 2 + 0.25 * (2 / 3 + 3 / 4) / 2)


def test_query_without_match_costs_precision_but_no_recall():
    similarity = np.array([[0.9, 0.1], [0.2, 0.8]])
    scores = score_places(similarity, np.array([[True, False], [False, False]]))
    assert scores.recalls[1] == 1.0 and scores.precision_of_all == 0.5
    assert scores.figures()["queries_with_match"] == 1
    with pytest.raises(VslamError, match="no query has a match"):
        score_places(similarity, np.zeros((2, 2), bool))


def test_gap_leaves_only_what_was_before():
    images = a_set(6)
    truth = places_truth.Truth(np.ones((6, 6), bool), np.arange(6), np.arange(6), "all")
    found = compare(images, images, truth, "net", np.ones((6, 6), np.float32), Gap.parse("2"))
    expected = np.tril(np.ones((6, 6), bool), -2)
    np.testing.assert_array_equal(np.isfinite(found.similarity), expected)
    np.testing.assert_array_equal(found.right, expected)
    assert found.scores["image"].figures()["queries_with_match"] == 4


def test_gap_in_seconds_needs_time_stamps():
    stamps = np.array([0.0, 1, 2, 10, 11, 12])
    np.testing.assert_array_equal(Gap.parse("8s").times(a_set(6, stamps=stamps)), stamps)
    with pytest.raises(VslamError, match="no time stamps"):
        Gap.parse("8s").times(a_set(6))
    for text in ("-3", "s", "0", "1.5", "2m"):
        with pytest.raises(VslamError, match="--gap"):
            Gap.parse(text)


def test_one_set_needs_a_gap_and_two_sets_none():
    with pytest.raises(VslamError, match="give --gap"):
        check_sets(a_set(3), a_set(3), None)
    with pytest.raises(VslamError, match="two sets"):
        check_sets(a_set(3), a_set(3, "b"), Gap.parse("2"))
    check_sets(a_set(3), a_set(3), Gap.parse("2"))
    many = ImageSet("c", ("x",) * 20_000, a_set(1).folder)
    with pytest.raises(VslamError, match="20000 and 20000 images make over"):
        check_sets(many, ImageSet("d", many.names, many.folder), None)


def test_sequences_are_scored_beside_single_images():
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(80, 80)).astype(np.float32) + 2.0 * np.eye(80, dtype=np.float32)
    truth = places_truth.by_index(a_set(80), a_set(80, "b"), 0)
    found = compare(a_set(80), a_set(80, "b"), truth, "net", similarity, sequence=10)
    assert list(found.scores) == ["image", "sequence of 10"]
    assert found.scores["sequence of 10"].recalls[1] > found.scores["image"].recalls[1]
    assert found.figures()["scores"]["image"]["queries_with_match"] == 80


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2", "2 frames"), ("10frames", "10 frames"), ("1 frame", "1 frame"), ("3f", "3 frames"), ("25m", "25 m"),
     ("0.5 m", "0.5 m")],
)  # fmt: skip
def test_tolerances_are_read(text, expected):
    assert str(Tolerance.parse(text)) == f"within {expected}"


@pytest.mark.parametrize("text", ["", "m", "-1", "1.5", "2km", "1e3"])
def test_other_tolerances_are_refused(text):
    with pytest.raises(VslamError, match="--tolerance"):
        Tolerance.parse(text)


def test_index_truth_is_a_band():
    truth = places_truth.by_index(a_set(5), a_set(5, "b"), 1)
    np.testing.assert_array_equal(truth.right, np.abs(np.subtract.outer(range(5), range(5))) <= 1)
    with pytest.raises(VslamError, match="a has 5 images, b 4"):
        open_truth(["frames"], a_set(5), a_set(4, "b"), Tolerance.parse("2"))


def write_rows(file, *rows):
    with open(file, "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return file


def test_pairs_are_names_or_indices(tmp_path):
    file = write_rows(tmp_path / "pairs.csv", ("query", "database"), ("0001.png", "0003.png"), ("0", "4"))
    right = open_truth([str(file)], a_set(6), a_set(2, "b"), Tolerance.parse("1")).right
    np.testing.assert_array_equal(np.argwhere(right), [[0, 3], [0, 4], [0, 5], [1, 2], [1, 3], [1, 4]])
    write_rows(file, ("query", "database"), ("0001.png", "0009.png"))
    with pytest.raises(VslamError, match=r"pairs\.csv:2: '0009\.png' is no image of a"):
        open_truth([str(file)], a_set(6), a_set(2, "b"), Tolerance.parse("1"))
    write_rows(file, ("a", "b"))
    with pytest.raises(VslamError, match="need columns query,database"):
        open_truth([str(file)], a_set(6), a_set(2, "b"), Tolerance.parse("1"))


def test_positions_and_headings_decide(tmp_path):
    database = write_rows(tmp_path / "d.csv", ("x", "y", "heading"), (0, 0, 0), (10, 0, 0), (10, 0, 180))
    queries = write_rows(
        tmp_path / "q.csv", ("image", "x", "y", "heading"), ("0001.png", 9, 0, 350), ("0000.png", 1, 0, 20)
    )
    words, sets = [str(database), str(queries)], (a_set(3), a_set(3, "b"))
    truth = open_truth(words, *sets, Tolerance.parse("2m"), 30.0)
    np.testing.assert_array_equal(truth.queries, [0, 1])  # the third query has no position
    np.testing.assert_array_equal(truth.right[:2], [[True, False, False], [False, True, False]])
    either_way = open_truth(words, *sets, Tolerance.parse("2m"), 180.0)
    np.testing.assert_array_equal(either_way.right[1], [False, True, True])
    assert "within 2 m and 30 degrees" in truth.rule and "degrees" not in either_way.rule
    with pytest.raises(VslamError, match="no query was taken within"):
        open_truth(words, *sets, Tolerance.parse("0.1m"))
    with pytest.raises(VslamError, match="judged in metres"):
        open_truth(words, *sets, Tolerance.parse("2"))
    with pytest.raises(VslamError, match="judged in frames"):
        open_truth(["frames"], *sets, Tolerance.parse("2m"))


def test_positions_that_do_not_fit_are_refused(tmp_path):
    file = write_rows(tmp_path / "p.csv", ("x", "y"), (0, 0), (1, "east"))
    for images, message in ((a_set(3), "2 positions for the 3 images"), (a_set(2), "p.csv:3: 'east' is not a finite")):
        with pytest.raises(VslamError, match=message):
            places_truth.read_positions(file, images)
    write_rows(file, ("x", "y"), (0, 0), (1,))
    with pytest.raises(VslamError, match="1 columns"):
        places_truth.read_positions(file, a_set(2))
    with pytest.raises(VslamError, match=r"none\.csv: cannot be read"):
        places_truth.read_positions(tmp_path / "none.csv", a_set(2))


def straight(count: int) -> Trajectory:
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 2, 3] = np.arange(count)
    return Trajectory(100.0 + 0.1 * np.arange(count), poses)


def test_poses_are_matched_by_time_or_order(tmp_path):
    write_tum(tmp_path / "groundtruth.txt", straight(30))
    stamped = a_set(3, stamps=np.array([100.5, 101.0, 500.0]))
    found = places_truth.read_positions(tmp_path / "groundtruth.txt", stamped)
    np.testing.assert_allclose(found.xyz[:2, 2], [5, 10])
    assert np.isnan(found.xyz[2]).all()
    np.testing.assert_allclose(found.facing[0], [0, 0, 1])
    by_order = places_truth.read_positions(tmp_path / "groundtruth.txt", a_set(30))
    np.testing.assert_allclose(by_order.xyz[:, 2], np.arange(30))
    by_name = places_truth.read_positions(
        tmp_path / "groundtruth.txt", ImageSet("c", ("rgb/100.700000.png",), tmp_path)
    )
    np.testing.assert_allclose(by_name.xyz[0, 2], 7)
    with pytest.raises(VslamError, match="30 poses for the 4 images"):
        places_truth.read_positions(tmp_path / "groundtruth.txt", a_set(4))
    with pytest.raises(VslamError, match="no pose within"):
        places_truth.read_positions(tmp_path / "groundtruth.txt", a_set(2, stamps=np.array([1.0, 2.0])))
    assert places_truth.find_positions(a_set(3, folder=tmp_path)) == (tmp_path / "groundtruth.txt").resolve()
    with pytest.raises(VslamError, match="--truth poses: a has no"):
        places_truth.find_positions(a_set(3, folder=tmp_path / "x" / "y"))


@pytest.fixture
def folder(tmp_path):
    """Five images whose grey is their number, in two folders, and a file that is none."""
    for name, grey in (("b/img2.png", 2), ("b/img10.png", 10), ("a/1.JPG", 1), ("img3.png", 3), ("img1.png", 0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.full((20, 30), 20 * grey, np.uint8))
    (tmp_path / "readme.txt").write_text("hello")
    return tmp_path


def test_folders_are_read_in_the_order_of_their_numbers(folder):
    images = open_images(folder)
    assert images.names == ("a/1.JPG", "b/img2.png", "b/img10.png", "img1.png", "img3.png")
    np.testing.assert_allclose([images.grey(row).mean() for row in range(5)], [20, 40, 200, 0, 60], atol=1)
    assert images.picture(1).shape == (20, 30, 3)
    assert len(open_images(folder / "img3.png")) == 1
    assert sorted(["x10", "x9", "x1"], key=in_order) == ["x1", "x9", "x10"]


def test_tum_sequences_bring_their_time_stamps(folder):
    (folder / "rgb.txt").write_text("# list\n5.0 img3.png\n6.5 b/img2.png\n")
    images = open_images(folder)
    assert images.names == ("img3.png", "b/img2.png")
    np.testing.assert_array_equal(images.timestamps, [5.0, 6.5])


def test_arrays_are_sets_too(tmp_path):
    summer = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)
    np.savez(tmp_path / "n.npz", summer=summer, winter=summer[:1], numbers=np.arange(3))
    images = open_images(f"{tmp_path}/n.npz:summer")
    assert images.names == ("summer:0", "summer:1")
    np.testing.assert_array_equal(images.grey(1), summer[1])
    with pytest.raises(VslamError, match="name one array"):
        open_images(f"{tmp_path}/n.npz")
    with pytest.raises(VslamError, match="the file holds summer, winter, numbers"):
        open_images(f"{tmp_path}/n.npz:spring")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no")
    for name in ("bad.npz:a", "none.npz:a"):
        with pytest.raises(VslamError, match=name.split(":")[0]):
            open_images(tmp_path / name)


def test_what_holds_no_images_is_named(folder):
    (folder / "empty").mkdir()
    with pytest.raises(VslamError, match="no images in this folder"):
        open_images(folder / "empty")
    with pytest.raises(VslamError, match="no such folder"):
        open_images(folder / "nowhere")
    (folder / "b" / "img2.png").write_bytes(b"\x89PNG no")
    with pytest.raises(VslamError, match=r"img2\.png: not an image that can be read"):
        open_images(folder).grey(1)
    (folder / "b" / "img2.png").write_bytes(b"")
    with pytest.raises(VslamError, match=r"img2\.png: not an image that can be read"):
        open_images(folder).grey(1)


def test_page_shows_hits_misses_and_loads_nothing(folder):
    images = open_images(folder)
    other = ImageSet("<b>", images.names, images.folder)
    similarity = np.eye(5, dtype=np.float32)[[0, 1, 2, 4, 3]]
    found = compare(images, other, places_truth.by_index(images, other, 0), "net-1", similarity, sequence=2)
    page = comparison_html(found)
    assert "Misses" in page and "Hits" in page and "&lt;b&gt;" in page and "within 0 frames" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count("data:image/jpeg") == 15
