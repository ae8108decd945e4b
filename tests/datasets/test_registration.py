"""Depth of a camera beside the colour camera: planes of known place, and what camera.yaml may say."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests.datasets.sequences import CAMERA, check_one_line, make_tum
from vslam.datasets import open_dataset
from vslam.datasets.registration import DepthCamera, register
from vslam.errors import VslamError
from vslam.types import Camera

COLOUR = Camera(120.0, 118.0, 79.5, 59.5, 160, 120)
SENSOR = "depth_camera: {fx: 60, fy: 60, cx: 31.5, cy: 23.5, width: 64, height: 48, T_camera_depth: %s}"
BESIDE = "[[1, 0, 0, -0.1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]"


def beside(turn=(0.0, 0.0, 0.0), shift=(-0.025, 0.0, 0.0), focal=135.0, size=(160, 120)) -> DepthCamera:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    T[:3, 3] = shift
    rows = tuple(tuple(map(float, row)) for row in T)
    return DepthCamera(focal, focal, (size[0] - 1) / 2, (size[1] - 1) / 2, *size, rows)


def plane_depth(K, size, T, normal, distance):
    """Depth (H, W) of the plane normal . X = distance, stated in the frame that T maps to, seen by a pinhole camera."""
    rays = np.linalg.solve(K, np.stack([*np.meshgrid(*map(np.arange, size)), np.ones(size[::-1])]).reshape(3, -1)).T
    depth = (distance - T[:3, 3] @ normal) / (rays @ T[:3, :3].T @ normal)
    return depth.reshape(size[::-1]).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.floats(-0.05, 0.05)] * 3), st.tuples(*[st.floats(-0.05, 0.05)] * 3),
    st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)), st.floats(0.8, 5.0),
)  # fmt: skip
def test_a_plane_stays_where_it_is(turn, shift, tilt, distance):
    sensor = beside(turn, shift)
    normal = np.array([*tilt, 1.0])
    seen = plane_depth(sensor.K, (160, 120), np.array(sensor.T_camera_depth), normal, distance)
    registered = register(seen, sensor, COLOUR)
    truth = plane_depth(COLOUR.K, (160, 120), np.eye(4), normal, distance)
    known = registered > 0
    assert known[30:90, 40:120].mean() > 0.95
    # a pixel's depth is that of a point within a pixel of its centre
    slope = np.maximum(*map(np.abs, np.gradient(truth)))[known]
    assert (np.abs(registered - truth)[known] <= 1.5 * slope + 1e-4).all()


def test_the_same_camera_changes_nothing():
    sensor = DepthCamera(COLOUR.fx, COLOUR.fy, COLOUR.cx, COLOUR.cy, 160, 120, tuple(map(tuple, np.eye(4))))
    depth = np.random.default_rng(0).uniform(0.5, 4, (120, 160)).astype(np.float32)
    depth[20:40, 30:50] = 0
    np.testing.assert_allclose(register(depth, sensor, COLOUR), depth, atol=1e-6)


def test_the_nearest_point_counts():
    """A post before a wall, seen from 10 cm beside: the post moves by its parallax and hides the wall."""
    sensor = beside(shift=(-0.1, 0, 0), focal=120.0)
    depth = np.full((120, 160), 3.0, np.float32)
    depth[:, 80:90] = 1.0
    registered = register(depth, sensor, replace(COLOUR, fy=120.0))
    assert (registered[60, 69:77] == 1.0).all()  # 12 px for the post, 4 px for the wall
    assert (registered[60, 10:60] == 3.0).all() and (registered[60, 100:150] == 3.0).all()
    assert (registered[60, 79:85] == 0).all()  # the shadow: nothing saw the wall there


def test_a_finer_colour_image_has_few_holes():
    sensor = beside(focal=60.0, size=(80, 60))
    registered = register(np.full((60, 80), 2.0, np.float32), sensor, COLOUR)
    assert (registered[20:100, 20:140] == 2.0).mean() > 0.75


def test_the_lens_of_the_colour_camera_counts():
    bent = replace(COLOUR, distortion=(0.3, -0.2, 0.0, 0.0, 0.0))
    sensor = DepthCamera(COLOUR.fx, COLOUR.fy, COLOUR.cx, COLOUR.cy, 160, 120, tuple(map(tuple, np.eye(4))))
    depth = np.zeros((120, 160), np.float32)
    depth[15, 25] = 2.0
    rows, columns = np.nonzero(register(depth, sensor, bent))
    assert len(rows) == 1
    np.testing.assert_allclose(bent.undistort(np.array([[columns[0], rows[0]]]))[0], (25, 15), atol=1.0)


def test_a_folder_with_a_depth_camera(tmp_path):
    folder = make_tum(tmp_path / "walk")
    plain = open_dataset("tum", folder).load(1).depth
    (folder / "camera.yaml").write_text(CAMERA[:-1] + f", {SENSOR % BESIDE}}}")
    dataset = open_dataset("tum", folder)
    assert dataset.camera == open_dataset("tum", folder).camera
    registered = dataset.load(1).depth
    # 2 m away, 10 cm beside, 50 px focal length: 2.5 px to the left; 50 px instead of 60: smaller
    assert (plain[20:28, 50:60] > 1.9).all() and (registered[20:28, 20:40] > 1.9).all()
    assert (registered[:, :2] == 0).all() and (registered[:, 56:] == 0).all()


def test_depth_of_its_own_size(tmp_path):
    folder = make_tum(tmp_path / "walk")
    half = "fx: 25, fy: 25, cx: 15.5, cy: 11.5, width: 32, height: 24"
    (folder / "camera.yaml").write_text(CAMERA[:-1] + f", depth_camera: {{{half}, T_camera_depth: {BESIDE}}}}}")
    with pytest.raises(VslamError) as error:
        open_dataset("tum", folder)
    check_one_line(error, "64x48", "32x24", "depth_camera")
    for file in (folder / "depth").iterdir():
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[::2, ::2])
    assert open_dataset("tum", folder).load(0).depth.shape == (48, 64)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("depth_camera: 3", ("depth_camera is 3", "T_camera_depth")),
        ("depth_camera: {fx: 60}", ("lacks fy", "T_camera_depth")),
        (SENSOR % "[[1, 0], [0, 1]]", ("no rotation", "four rows")),
        (SENSOR % BESIDE.replace("[[1", "[[2"), ("no rotation",)),
        (SENSOR % BESIDE.replace("-0.1", ".nan"), ("no rotation",)),
        (SENSOR % "7", ("T_camera_depth", "list")),
        ((SENSOR % BESIDE).replace("fx: 60", "fx: -60"), ("fx is -60", "positive")),
        ((SENSOR % BESIDE).replace("cx: 31.5", "cx: 99"), ("cx is 99", "outside")),
        ((SENSOR % BESIDE).replace("fx", "focus: 1, fx"), ("unknown key", "focus")),
    ],
)
def test_a_wrong_depth_camera_is_one_line(tmp_path, text, words):
    folder = make_tum(tmp_path / "walk")
    (folder / "camera.yaml").write_text(CAMERA[:-1] + f", {text}}}")
    with pytest.raises(VslamError) as error:
        open_dataset("tum", folder)
    check_one_line(error, "camera.yaml", *words)


def test_seven_scenes_registers_unless_told_otherwise(real, tmp_path):
    folder = real("7s_redkitchen")
    raw, registered = (open_dataset(layout, folder).load(100).depth for layout in ("tum", "seven_scenes"))
    assert (raw > 0).mean() > (registered > 0).mean() > 0.6  # 585 px became 525: a border sees nothing
    camera = tmp_path / "camera.yaml"
    camera.write_text((folder / "camera.yaml").read_text() + "depth_camera: none\n")
    np.testing.assert_array_equal(open_dataset("seven_scenes", folder, camera).load(100).depth, raw)
