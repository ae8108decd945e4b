"""ICL-NUIM and 7-Scenes: the folders as published, and as converted to TUM's lists."""

import cv2
import numpy as np
import pytest

from tests.datasets.sequences import CAMERA, check_one_line, make_tum, write_pair
from vslam.datasets import open_dataset
from vslam.errors import VslamError


@pytest.fixture
def icl(tmp_path):
    """As in the published archives: frame numbers for time stamps, depth first, poses with y up, from frame 1 on."""
    folder = tmp_path / "living_room_traj2_frei_png"
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    for k in range(4):
        write_pair(folder / "rgb" / f"{k}.png", folder / "depth" / f"{k}.png", k)
    (folder / "associations.txt").write_text("".join(f"{k} depth/{k}.png {k} rgb/{k}.png\n" for k in range(4)))
    turn = np.array([0.1, 0.2, 0.3, 0.9]) / np.linalg.norm([0.1, 0.2, 0.3, 0.9])
    rows = (f"{k} {0.1 * k} {0.2 * k} {0.3 * k} {turn[0]} {turn[1]} {turn[2]} {turn[3]}\n" for k in range(1, 4))
    (folder / "livingRoom2.gt.freiburg").write_text("".join(rows))
    (folder / "camera.yaml").write_text(CAMERA)
    return folder


def test_icl_as_published(icl):
    dataset = open_dataset("icl", icl)
    np.testing.assert_allclose(dataset.timestamps, np.arange(4) / 30)
    np.testing.assert_allclose(dataset.truth.timestamps, np.arange(1, 4) / 30)
    assert dataset.images[1].parent.name == "rgb" and dataset.load(1).image.ndim == 3
    np.testing.assert_allclose(
        dataset.truth.poses[:, :3, 3], [(0.1 * k, -0.2 * k, 0.3 * k) for k in (1, 2, 3)], atol=1e-9
    )
    assert np.linalg.det(dataset.truth.poses[0, :3, :3]) == pytest.approx(1)


def test_icl_truth_is_mirrored_with_its_camera(icl):
    """A point seen by the published camera (fy < 0) is seen at the same pixel by ours, at the mirrored place."""
    from vslam.datasets.trajectory import read_trajectory

    published = read_trajectory(icl / "livingRoom2.gt.freiburg").poses[2]
    ours = open_dataset("icl", icl).truth.poses[2]
    point = published @ np.array([0.3, 0.4, 2.0, 1])
    mirrored = point * (1, -1, 1, 1)
    seen = np.linalg.solve(ours, mirrored)
    assert 480 * seen[1] / seen[2] == pytest.approx(-480 * 0.4 / 2.0)
    assert seen[0] == pytest.approx(0.3) and seen[2] == pytest.approx(2.0)


def test_icl_camera_needs_no_file(icl):
    (icl / "camera.yaml").unlink()
    with pytest.raises(VslamError) as error:  # the tiny images do not fit the published camera
        open_dataset("icl", icl)
    check_one_line(error, "64x48", "640x480")


def test_icl_folder_of_something_else(icl):
    (icl / "associations.txt").unlink()
    with pytest.raises(VslamError) as error:
        open_dataset("icl", icl)
    check_one_line(error, "associations.txt", "TUM RGB-D compatible")


def test_icl_converted(tmp_path, real):
    assert len(open_dataset("icl", make_tum(tmp_path / "kt2"))) == 5
    dataset = open_dataset("icl", real("icl_lr_kt2"))
    assert len(dataset) == 100 and dataset.camera.fy == 480.0


@pytest.fixture
def seven(tmp_path):
    folder = tmp_path / "redkitchen" / "seq-03"
    folder.mkdir(parents=True)
    for k in range(4):
        stem = folder / f"frame-{k:06d}"
        write_pair(stem.with_suffix(".color.png"), stem.with_suffix(".depth.png"), k, scale=1000)
        pose = np.eye(4)
        pose[0, 3] = k
        stem.with_suffix(".pose.txt").write_text("\n".join("\t ".join(f"{v: .7e}" for v in row) for row in pose) + "\n")
    (folder / "camera.yaml").write_text(CAMERA.replace("5000", "1000, depth_camera: none"))
    return folder


def refused(folder, *words):
    with pytest.raises(VslamError) as error:
        open_dataset("seven_scenes", folder)
    check_one_line(error, *words)


def test_seven_scenes_as_published(seven):
    file = seven / "frame-000001.depth.png"
    raw = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    raw[30:, 30:] = 65535
    cv2.imwrite(str(file), raw)
    dataset = open_dataset("seven_scenes", seven)
    assert dataset.name == "redkitchen-seq-03" and len(dataset) == 4
    np.testing.assert_allclose(dataset.timestamps, np.arange(4) / 30)
    np.testing.assert_allclose(dataset.truth.poses[:, 0, 3], np.arange(4))
    depth = dataset.load(1).depth
    assert depth[40, 40] == 0 and depth[10, 10] == pytest.approx(2.0, abs=0.06)


def test_seven_scenes_frames_without_depth_or_pose(seven):
    (seven / "frame-000002.depth.png").unlink()
    (seven / "frame-000001.pose.txt").unlink()
    dataset = open_dataset("seven_scenes", seven)
    assert len(dataset) == 3 and len(dataset.truth) == 2
    for file in seven.glob("*.pose.txt"):
        file.unlink()
    assert open_dataset("seven_scenes", seven).truth is None


def test_seven_scenes_wrong_folders(seven, tmp_path):
    refused(seven.parent, "seq-03")
    refused(tmp_path / "none", "no such folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "frame-000000.color.png")
    for file in seven.glob("*.depth.png"):
        file.unlink()
    refused(seven, "frame-000000.depth.png")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("1 0 0 0", "four lines"),
        ("a " * 16, "four lines"),
        ("nan " * 16, "nan"),
        ("2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1", "rotation"),
        ("1 0 0 0 0 -1 0 0 0 0 1 0 0 0 0 1", "rotation"),
    ],
)
def test_seven_scenes_wrong_pose(seven, text, word):
    (seven / "frame-000002.pose.txt").write_text(text)
    refused(seven, "frame-000002.pose.txt", word)


def test_seven_scenes_converted(real):
    dataset = open_dataset("seven_scenes", real("7s_redkitchen"))
    assert len(dataset) == 250 and dataset.load(100).depth.max() < 60
