"""Reading and writing trajectories: laws, formats, and mistakes in files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests.evaluation.synthetic import poses_of, smooth_trajectory
from vslam.datasets import trajectory as files
from vslam.errors import VslamError
from vslam.types import Trajectory

NANOMETRE = 0.5001e-9
"""Nine decimals are written."""
TUM_LINE = "{} 1.0 2.0 3.0 0.0 0.0 0.0 1.0"
EUROC_HEADER = "#timestamp [ns],p_x,p_y,p_z,q_w,q_x,q_y,q_z,v_x,v_y,v_z\n"


@st.composite
def trajectories(draw, lowest=-1e3):
    count = draw(st.integers(1, 12))
    start = draw(st.floats(lowest, 2e9, allow_nan=False))
    steps = draw(st.lists(st.floats(1e-3, 50.0), min_size=count, max_size=count))
    seed = draw(st.integers(0, 2**31))
    positions = np.random.default_rng(seed).uniform(-1, 1, (count, 3)) * 10.0 ** draw(st.integers(-6, 4))
    rotations = Rotation.random(count, random_state=seed).as_matrix()
    return Trajectory(start + np.cumsum(steps), poses_of(positions, rotations))


@given(trajectories())
@settings(max_examples=60, deadline=None)
def test_tum_reads_back_what_was_written(tmp_path_factory, trajectory):
    path = tmp_path_factory.mktemp("tum") / "trajectory.txt"
    files.write_tum(path, trajectory)
    back = files.open_trajectory(path)
    assert (back.format, back.unit) == ("tum", "s")
    np.testing.assert_array_equal(back.trajectory.timestamps, trajectory.timestamps)
    np.testing.assert_allclose(back.trajectory.poses[:, :3, 3], trajectory.poses[:, :3, 3], rtol=1e-15, atol=NANOMETRE)
    np.testing.assert_allclose(back.trajectory.poses[:, :3, :3], trajectory.poses[:, :3, :3], atol=5e-9)


@given(trajectories())
@settings(max_examples=30, deadline=None)
def test_kitti_reads_back_what_was_written(tmp_path_factory, trajectory):
    path = tmp_path_factory.mktemp("kitti") / "poses.txt"
    files.write_kitti(path, trajectory)
    back = files.open_trajectory(path)
    assert (back.format, back.unit) == ("kitti", "index")
    np.testing.assert_array_equal(back.trajectory.timestamps, np.arange(len(trajectory)))
    np.testing.assert_allclose(back.trajectory.poses, trajectory.poses, rtol=1e-15, atol=NANOMETRE)


@given(trajectories(lowest=1e6))
@settings(max_examples=30, deadline=None)
def test_euroc_reads_back_what_was_written(tmp_path_factory, trajectory):
    path = tmp_path_factory.mktemp("euroc") / "data.csv"
    files.write_euroc(path, trajectory)
    back = files.open_trajectory(path)
    assert (back.format, back.unit) == ("euroc", "ns")
    np.testing.assert_allclose(back.trajectory.timestamps, trajectory.timestamps, rtol=3e-16, atol=1e-9)
    np.testing.assert_allclose(back.trajectory.poses, trajectory.poses, rtol=1e-15, atol=5e-9)


def test_quaternion_orders_of_tum_and_euroc(tmp_path):
    """A quarter turn about z: (0, 0, sin 45, cos 45)."""
    half = np.sqrt(0.5)
    (tmp_path / "tum.txt").write_text(f"0.0 1 2 3 0 0 {half} {half}\n")
    (tmp_path / "euroc.csv").write_text(EUROC_HEADER + f"1403636579758555392,1,2,3,{half},0,0,{half},0,0,0\n")
    for name in ("tum.txt", "euroc.csv"):
        pose = files.read_trajectory(tmp_path / name).poses[0]
        np.testing.assert_allclose(pose, [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], atol=1e-15)
    assert files.read_trajectory(tmp_path / "euroc.csv").timestamps[0] == pytest.approx(1403636579.758555392, abs=3e-7)


def test_sloppy_files_are_read(tmp_path):
    path = tmp_path / "trajectory.txt"
    text = "\ufeff# comment\r\n\r\n  0.5\t1 2 3 0 0 0 0.9999 # why\r\n" + TUM_LINE.format("1.5") + "\r\n\r\n# end"
    path.write_bytes(text.encode())
    trajectory = files.read_trajectory(path)
    np.testing.assert_array_equal(trajectory.timestamps, [0.5, 1.5])
    np.testing.assert_allclose(trajectory.poses[0, :3, :3], np.eye(3), atol=1e-15)


@pytest.mark.parametrize("start", [0, 1403636579758555392])
def test_nanoseconds_in_a_tum_file_are_recognised(tmp_path, start):
    path = tmp_path / "trajectory.txt"
    path.write_text("\n".join(TUM_LINE.format(start + 50_000_000 * k) for k in range(4)))
    back = files.open_trajectory(path)
    assert back.unit == "ns"
    np.testing.assert_allclose(np.diff(back.trajectory.timestamps), 0.05, atol=5e-7)


def test_kitti_takes_times_from_a_file(tmp_path):
    trajectory = smooth_trajectory(5)
    files.write_kitti(tmp_path / "poses.txt", trajectory)
    (tmp_path / "times.txt").write_text("\n".join(map(repr, trajectory.timestamps.tolist())))
    back = files.open_trajectory(tmp_path / "poses.txt", times=tmp_path / "times.txt")
    assert back.unit == "s"
    np.testing.assert_array_equal(back.trajectory.timestamps, trajectory.timestamps)
    (tmp_path / "times.txt").write_text("1\n2\n")
    with pytest.raises(VslamError, match=r"times.txt: expected 5 finite times"):
        files.open_trajectory(tmp_path / "poses.txt", times=tmp_path / "times.txt")


GOOD = TUM_LINE.format("1.0") + "\n"
BAD_FILES = {
    "nan": (GOOD + "2.0 1 nan 3 0 0 0 1\n", r"t.txt:3: 'nan' is not a finite number"),
    "infinite": (GOOD + "2.0 1 inf 3 0 0 0 1\n", r"t.txt:3: 'inf' is not a finite number"),
    "word": (GOOD + "2.0 1 x 3 0 0 0 1\n", r"t.txt:3: 'x' is not a number"),
    "short": (GOOD + "2.0 1 2 3 0 0 1\n", r"t.txt:3: 7 columns; tum needs timestamp tx ty tz qx qy qz qw"),
    "long": (GOOD + "2.0 1 2 3 0 0 0 1 9\n", r"t.txt:3: 9 columns"),
    "zero": (GOOD + "2.0 1 2 3 0 0 0 0\n", r"t.txt:3: quaternion of length 0, not 1"),
    "not unit": (GOOD + "2.0 1 2 3 0 0 0 1.1\n", r"t.txt:3: quaternion of length 1.1, not 1"),
    "repeated": (GOOD + GOOD, r"t.txt:3: time stamp 1.0 repeats the one before it \(1.0\)"),
    "unsorted": (GOOD + TUM_LINE.format("0.5") + "\n", r"t.txt:3: time stamp 0.5 is before the one before it \(1.0\)"),
    "milliseconds": (TUM_LINE.format("1403636579758") + "\n", r"t.txt: time stamps such as 1403636579758 are neither"),
    "euroc short": ("1,2,3,4\n", r"t.txt:2: 4 columns; euroc needs"),
    "kitti mirror": ("1 0 0 0 0 1 0 0 0 0 -1 0\n", r"t.txt:2: the 3x3 part is not a rotation"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_mistake_in_a_file_is_one_line_with_its_place(tmp_path, name):
    text, message = BAD_FILES[name]
    path = tmp_path / "t.txt"
    path.write_text("# header\n" + text)
    with pytest.raises(VslamError, match=message) as error:
        files.read_trajectory(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"# only a header\n", b"\n\n", b"\x89PNG\r\n\x1a\n\xff\xfe"])
def test_file_without_poses_is_refused(tmp_path, content):
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    with pytest.raises(VslamError, match=r"t.txt: "):
        files.read_trajectory(path)


def test_missing_file_folder_and_unknown_format_are_refused(tmp_path):
    with pytest.raises(VslamError, match="No such file"):
        files.read_trajectory(tmp_path / "none.txt")
    with pytest.raises(VslamError, match="cannot be read"):
        files.read_trajectory(tmp_path)
    (tmp_path / "t.txt").write_text(GOOD)
    with pytest.raises(VslamError, match="unknown trajectory format 'csv'"):
        files.read_trajectory(tmp_path / "t.txt", "csv")


def test_wrong_format_asked_for_names_the_layout(tmp_path):
    (tmp_path / "t.txt").write_text(GOOD)
    with pytest.raises(VslamError, match=r"t.txt:1: 8 columns; kitti needs the 12 numbers"):
        files.read_trajectory(tmp_path / "t.txt", "kitti")


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "t.txt"
    path.write_text("old")
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(VslamError, match="cannot be written: No space left"):
        files.write_tum(path, smooth_trajectory(3))
    assert [file.name for file in tmp_path.iterdir()] == ["t.txt"] and path.read_text() == "old"


def test_writing_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(VslamError, match="cannot be written: No such file"):
        files.write_tum(tmp_path / "none" / "t.txt", smooth_trajectory(3))


def test_empty_trajectory_is_written_as_a_header(tmp_path):
    files.write_tum(tmp_path / "t.txt", Trajectory(np.zeros(0), np.zeros((0, 4, 4))))
    assert (tmp_path / "t.txt").read_text() == "# timestamp tx ty tz qx qy qz qw (camera to world)\n"
