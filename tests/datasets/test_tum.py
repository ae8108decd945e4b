"""TUM folders: what is read, and what is refused in one line."""

import logging

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets.sequences import check_one_line, make_tum, write_pair
from vslam.datasets import open_dataset
from vslam.datasets.lists import MAX_GAP_S, associate
from vslam.errors import FrameError, VslamError


def refused(folder, *words, layout="tum"):
    with pytest.raises(VslamError) as error:
        open_dataset(layout, folder)
    check_one_line(error, *words)


def edit(file, change):
    lines = file.read_text().splitlines()
    change(lines)
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_folder_reads_pairs(tmp_path, kind):
    dataset = open_dataset("tum", make_tum(tmp_path / "desk", kind=kind))
    assert dataset.name == "desk" and len(dataset) == 5 and len(dataset.truth) == 5
    assert dataset.timestamps.dtype == np.float64 and np.all(np.diff(dataset.timestamps) > 0)
    frame = dataset.load(2)
    assert frame.timestamp == dataset.timestamps[2] == pytest.approx(100 + 2 / 30, abs=1e-6)
    assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8
    assert frame.depth.shape == (48, 64) and frame.depth.dtype == np.float32
    assert frame.depth[0, 0] == 0 and frame.depth[20, 20] == pytest.approx(2.0, abs=0.01)


def test_grey_images_stay_grey(tum):
    for file in (tum / "rgb").iterdir():
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))
    assert open_dataset("tum", tum).load(0).image.shape == (48, 64)


def test_associations_file_replaces_the_lists(tum):
    colour, depth = ((tum / f"{name}.txt").read_text().splitlines() for name in ("rgb", "depth"))
    rows = [f"{a} {b}" for a, b in zip(colour[3:], depth[1:], strict=True)]
    (tum / "rgb.txt").unlink()
    (tum / "associate.txt").write_text("\n".join(rows))
    dataset = open_dataset("tum", tum)
    assert len(dataset) == 5 and dataset.images[0].parent.name == "rgb"
    swapped = [" ".join(row.split()[2:] + row.split()[:2]) for row in rows]
    (tum / "associate.txt").write_text("\n".join(swapped))
    assert open_dataset("tum", tum).images == dataset.images


def test_frame_without_depth_is_left_out(tum):
    edit(tum / "depth.txt", lambda lines: lines.pop(2))
    assert len(open_dataset("tum", tum)) == 4


def test_without_ground_truth_there_is_no_truth(tum):
    (tum / "groundtruth.txt").unlink()
    assert open_dataset("tum", tum).truth is None


def test_missing_folder_and_files(tum, tmp_path):
    refused(tmp_path / "nowhere", "nowhere", "no such folder")
    refused(tum / "rgb.txt", "is a file")
    refused(None, "--path", layout="icl")
    (tum / "depth.txt").unlink()
    refused(tum, str(tum / "depth.txt"), "no such file")
    (tum / "rgb.txt").unlink()
    refused(tum, str(tum / "rgb.txt"), "associations.txt")


@pytest.mark.parametrize("content", ["", "# only\n\n   \n# comments\n"])
def test_empty_list(tum, content):
    (tum / "rgb.txt").write_text(content)
    refused(tum, "rgb.txt", "empty list")


def test_lines_of_another_form(tum):
    edit(tum / "rgb.txt", lambda lines: lines.append("101.5"))
    refused(tum, "rgb.txt:9", "'101.5'")
    edit(tum / "rgb.txt", lambda lines: lines.__setitem__(-1, "today rgb/a.png"))
    refused(tum, "rgb.txt:9", "'today'")
    edit(tum / "rgb.txt", lambda lines: lines.__setitem__(-1, "nan rgb/a.png"))
    refused(tum, "rgb.txt:9", "'nan'")
    (tum / "rgb.txt").write_bytes(b"\xff\xfe\x00\x81")
    refused(tum, "rgb.txt", "not a text file")


def test_time_stamps_out_of_order_or_twice(tum):
    edit(tum / "rgb.txt", lambda lines: lines.append("100.01 rgb/a.png"))
    refused(tum, "rgb.txt:9", "100.010000", "earlier", "line 8")
    edit(tum / "rgb.txt", lambda lines: lines.__setitem__(-1, lines[-2]))
    refused(tum, "rgb.txt:9", "same as line 8")


def test_lists_of_different_recordings(tum):
    (tum / "depth.txt").write_text("5.0 depth/a.png\n")
    refused(tum, "depth.txt", "0.02 s")


def test_associations_with_three_columns(tum):
    (tum / "rgb.txt").unlink()
    (tum / "associations.txt").write_text("1.0 rgb/a.png 1.0\n")
    refused(tum, "associations.txt:1", "3 columns")


def first(tum, name):
    return min((tum / name).iterdir())


def test_first_image_missing_broken_or_empty(tum):
    file = first(tum, "rgb")
    data = file.read_bytes()
    for content in (b"", b"not an image", data[: len(data) // 2]):
        file.write_bytes(content)
        refused(tum, str(file), "does not decode")
    file.unlink()
    refused(tum, str(file), "cannot be read")


def test_image_broken_in_the_middle_is_an_error_of_that_frame(tmp_path):
    tum = make_tum(tmp_path / "desk", kind="jpg")
    files = sorted((tum / "rgb").iterdir())
    files[1].write_bytes(files[1].read_bytes()[:-200])
    files[3].unlink()
    dataset = open_dataset("tum", tum)
    for k in (1, 3):
        with pytest.raises(FrameError) as error:
            dataset.load(k)
        check_one_line(error, str(files[k]))
    assert dataset.load(2).image is not None


def test_depth_of_another_size_or_kind(tum):
    file = first(tum, "depth")
    cv2.imwrite(str(file), np.full((24, 32), 10000, np.uint16))
    refused(tum, str(file), "32x24", "64x48")
    cv2.imwrite(str(file), np.full((48, 64), 100, np.uint8))
    refused(tum, str(file), "depth is 8-bit", "16-bit", "depth_scale")
    cv2.imwrite(str(file), np.full((48, 64, 3), 100, np.uint16))
    refused(tum, str(file), "3 channels")


def test_images_of_another_size_than_the_camera(tum):
    edit(tum / "camera.yaml", lambda lines: lines.__setitem__(0, lines[0].replace("width: 64", "width: 128")))
    refused(tum, "64x48", "128x48")


@pytest.mark.parametrize(
    ("scale", "is_refused"), [(5000 * 30, True), (5000 / 30, True), (5000 * 10, False), (800, False)]
)
def test_depth_scale_that_cannot_be_or_is_unusual(tum, caplog, scale, is_refused):
    edit(tum / "camera.yaml", lambda lines: lines.__setitem__(0, lines[0].replace("5000", f"{scale:g}")))
    if is_refused:
        refused(tum, "median depth", "depth_scale")
        return
    with caplog.at_level(logging.WARNING):
        open_dataset("tum", tum)
    assert "unusual" in caplog.text and "depth_scale" in caplog.text


def test_usual_depth_makes_no_warning_but_none_at_all_does(tum, caplog):
    open_dataset("tum", tum)
    assert not caplog.text
    for file in (tum / "depth").iterdir():
        cv2.imwrite(str(file), np.zeros((48, 64), np.uint16))
    open_dataset("tum", tum)
    assert "no depth" in caplog.text


@pytest.mark.parametrize("row", ["100.1 nan 0 0 0 0 0 1", "100.1 0 0 0 0 0 inf 1", "100.1 0 0", "x 0 0 0 0 0 0 1"])
def test_ground_truth_that_is_none(tum, row):
    edit(tum / "groundtruth.txt", lambda lines: lines.__setitem__(4, row))
    refused(tum, "groundtruth.txt")


def test_ground_truth_of_another_time_is_said(tum, caplog):
    (tum / "groundtruth.txt").write_text("5 0 0 0 0 0 0 1\n6 0 0 0 0 0 0 1\n")
    open_dataset("tum", tum)
    assert "no moment in common" in caplog.text


times = st.lists(st.integers(0, 2000), min_size=1, max_size=25, unique=True).map(lambda v: np.sort(v) * 1e-3)


@settings(max_examples=60, deadline=None)
@given(times, times)
def test_association_is_one_to_one_near_and_greedy(a, b):
    pairs = associate(a, b)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    assert np.all(np.abs(a[pairs[:, 0]] - b[pairs[:, 1]]) <= MAX_GAP_S + 1e-12)
    candidates = sorted((abs(a[i] - b[j]), i, j) for i in range(len(a)) for j in range(len(b)))
    used_a, used_b, naive = set(), set(), []
    for gap, i, j in candidates:
        if gap <= MAX_GAP_S - 1e-9 and i not in used_a and j not in used_b:
            used_a.add(i)
            used_b.add(j)
            naive.append(gap)
    gaps = np.sort(np.abs(a[pairs[:, 0]] - b[pairs[:, 1]]))
    assert np.all(np.diff(pairs[:, 0]) > 0)
    inner = gaps[gaps <= MAX_GAP_S - 1e-9]
    np.testing.assert_allclose(inner, np.sort(naive), atol=1e-9)


@pytest.mark.parametrize(
    ("name", "frames"),
    [("tum_fr1_xyz", 320), ("tum_fr1_rpy", 110), ("tum_fr3_structure_notexture_far", 123), ("7s_redkitchen", 250)],
)
def test_real_sequences(real, name, frames):
    dataset = open_dataset("tum", real(name))
    assert len(dataset) == frames and dataset.truth is not None
    frame = dataset.load(frames - 1)
    assert frame.image.shape == (480, 640, 3) and 0.4 < np.median(frame.depth[frame.depth > 0]) < 10


def test_pairs_written_here_decode(tmp_path):
    write_pair(tmp_path / "a.png", tmp_path / "b.png", 0)
    assert cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
