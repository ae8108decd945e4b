"""Camera files, and which camera a folder has."""

import pytest

from tests.datasets.sequences import CAMERA, check_one_line
from vslam.datasets.camera import TUM_CAMERAS, find_camera, read_camera, write_camera
from vslam.errors import VslamError
from vslam.types import Camera


def test_camera_file_written_and_read_is_the_same(tmp_path):
    camera = Camera(517.3, 516.5, 318.6, 255.3, 640, 480, 29.5, 1000.0, 0.06, (0.26, -0.95, -0.005, 0.002, 1.16), 0.02)
    write_camera(tmp_path / "camera.yaml", camera)
    assert read_camera(tmp_path / "camera.yaml") == camera
    assert [file.name for file in tmp_path.iterdir()] == ["camera.yaml"]


def test_whole_numbers_and_no_distortion_are_fine(tmp_path):
    file = tmp_path / "camera.yaml"
    file.write_text(CAMERA.replace("}", ", distortion: [], baseline: 1}"))
    assert read_camera(file).fx == 50.0 and read_camera(file).distortion == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("fx: 50", "fx: 0"), ("fx is 0", "positive")),
        (("fy: 50", "fy: -480"), ("fy is -480", "ICL-NUIM")),
        (("fx: 50", "fx: .nan"), ("fx is nan",)),
        (("cx: 31.5", "cx: 320"), ("cx is 320", "width 64")),
        (("cy: 23.5", "cy: -1"), ("cy is -1", "height 48")),
        (("cx: 31.5", "cx: .nan"), ("cx is nan",)),
        (("depth_scale: 5000", "depth_scale: 0"), ("depth_scale is 0",)),
        (("fps: 30", "fps: 30, readout: -0.01"), ("readout is -0.01", "global shutter")),
        (("fps: 30", "fps: 30, readout: 26"), ("readout is 26", "0.0333")),
        (("fps: 30", "fps: 30, readout: .nan"), ("readout is nan",)),
        (("fps: 30", "fps: -1"), ("fps is -1",)),
        (("fps: 30", "fps: many"), ("fps is 'many'",)),
        (("width: 64", "width: 64.5"), ("width is '64.5'",)),
        (("fps: 30", "fps: 30, focus: 3"), ("unknown key 'focus'", "known: fx")),
        (("fps: 30, ", ""), ("missing fps",)),
        (("fps: 30", "fps: 30, distortion: [1, 2]"), ("distortion is [1.0, 2.0]", "k1")),
        (("fps: 30", "fps: 30, distortion: 3"), ("distortion", "list")),
        (("fps: 30", "fps: 30, model: fisheye"), ("model",)),
        (("{", ""), ("YAML",)),
    ],
)
def test_wrong_camera_file_is_one_line(tmp_path, change, words):
    file = tmp_path / "camera.yaml"
    assert change[0] in CAMERA
    file.write_text(CAMERA.replace(*change))
    with pytest.raises(VslamError) as error:
        read_camera(file)
    check_one_line(error, str(file), *words)


@pytest.mark.parametrize("content", [b"", b"just words", b"\xff\xfe\x00binary", b"- 1\n- 2\n", b"# nothing\n"])
def test_camera_file_that_is_none_shows_how_to_write_one(tmp_path, content):
    file = tmp_path / "camera.yaml"
    file.write_bytes(content)
    with pytest.raises(VslamError) as error:
        read_camera(file)
    check_one_line(error, str(file), "depth_scale: 5000")


@pytest.mark.parametrize(
    ("name", "fx"),
    [
        ("rgbd_dataset_freiburg1_xyz", 517.3),
        ("fr1", 517.3),
        ("tum_fr2_desk", 520.9),
        ("FR3-office", 535.4),
        ("my freiburg2", 520.9),
    ],
)
def test_camera_from_the_folders_name(tmp_path, name, fx):
    (tmp_path / name).mkdir()
    assert find_camera(tmp_path / name).fx == fx


def test_current_folder_has_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "fr1_xyz").mkdir()
    monkeypatch.chdir(tmp_path / "fr1_xyz")
    from pathlib import Path

    assert find_camera(Path()).fx == 517.3


@pytest.mark.parametrize("name", ["freiburg10_x", "fr1xyz", "xfr1", "fr4_desk", "afr2", "kitchen"])
def test_unknown_name_shows_how_to_write_a_camera(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(VslamError) as error:
        find_camera(tmp_path / name)
    check_one_line(error, name, "camera.yaml", "fx: 525.0")


def test_given_file_wins_over_folder_and_name(tmp_path):
    folder = tmp_path / "fr1_xyz"
    folder.mkdir()
    (folder / "camera.yaml").write_text(CAMERA)
    (tmp_path / "mine.yaml").write_text(CAMERA.replace("fx: 50", "fx: 60"))
    assert find_camera(folder).fx == 50
    assert find_camera(folder, tmp_path / "mine.yaml").fx == 60
    with pytest.raises(VslamError) as error:
        find_camera(folder, tmp_path / "none.yaml")
    check_one_line(error, "none.yaml")


def test_readout_is_the_files_or_else_the_sensors_that_the_name_tells(tmp_path):
    kinect = TUM_CAMERAS["1"].readout
    assert 0.02 < kinect < 1 / 30
    folder, plain = tmp_path / "fr1_xyz", tmp_path / "kitchen"
    for place in (folder, plain):
        place.mkdir()
        (place / "camera.yaml").write_text(CAMERA)
    assert find_camera(folder).readout == kinect
    assert find_camera(plain).readout == 0
    assert find_camera(plain, default=TUM_CAMERAS["1"]).readout == kinect
    (folder / "camera.yaml").write_text(CAMERA.replace("}", ", readout: 0}"))
    assert find_camera(folder).readout == 0
    (plain / "camera.yaml").write_text(CAMERA.replace("}", ", readout: 0.01}"))
    assert find_camera(plain).readout == 0.01
