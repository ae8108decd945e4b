"""The embedded sample: the same bytes each time, poses that explain its pictures, safe making and checking."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np
import pytest

from tests.datasets.sequences import check_one_line
from vslam.cache import cache_folder
from vslam.datasets import open_dataset, sample
from vslam.datasets.camera import read_camera
from vslam.datasets.synthetic import room
from vslam.datasets.synthetic.light import cosine_directions
from vslam.datasets.synthetic.motion import PERIOD_S, carried_poses
from vslam.datasets.synthetic.render import render
from vslam.datasets.synthetic.room import DEPTH, HEIGHT, WIDTH, build_scene, furnish
from vslam.datasets.synthetic.sensor import _correlated
from vslam.errors import VslamError
from vslam.types import Camera

PAINTED = cache(build_scene)
SMALL = {"width": 160, "height": 120, "quiet": True}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return sample.make_sample(tmp_path_factory.mktemp("made") / "small", frames=24, **SMALL)


@pytest.fixture(scope="module")
def scene():
    return build_scene(seed=7, quality=0.25)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_sample_reads_as_a_tum_folder(small):
    dataset = open_dataset("tum", small)
    assert len(dataset) == len(dataset.truth) == 24
    np.testing.assert_allclose(np.diff(dataset.timestamps), 1 / 30, atol=2e-6)
    assert dataset.camera == read_camera(small / "camera.yaml")
    frame = dataset.load(23)
    assert frame.image.shape == (120, 160, 3) and frame.depth[frame.depth > 0].min() >= 0.4
    assert 0.7 < np.mean(frame.depth > 0) < 1


def test_made_twice_gives_the_same_bytes(small, tmp_path):
    again = sample.make_sample(tmp_path / "again", frames=24, workers=1, **SMALL)
    assert contents(again) == contents(small)
    other = sample.make_sample(tmp_path / "other", frames=2, seed=8, **SMALL)
    assert contents(other)["rgb/0.000000.jpg"] != contents(small)["rgb/0.000000.jpg"]


def test_a_pixel_carried_by_depth_and_pose_lands_on_itself(small):
    """Colour and depth of frame 0 against frame 23, where they agree in depth (no occlusion)."""
    dataset = open_dataset("tum", small)
    a, b = dataset.load(0), dataset.load(23)
    error, seen = warp_error(a, b, dataset.camera, dataset.truth.poses[0], dataset.truth.poses[23])
    still, _ = warp_error(a, b, dataset.camera, np.eye(4), np.eye(4))
    assert seen > 0.5
    assert error < 10 and error < still / 2


def warp_error(a, b, camera, T_wa, T_wb):
    """Median colour difference of the pixels of `a` seen in `b`, and their share."""
    rows, columns = np.nonzero(a.depth > 0)
    points = camera.unproject(np.stack([columns, rows], axis=1), a.depth[rows, columns])
    T = np.linalg.solve(T_wb, T_wa)
    moved = points @ T[:3, :3].T + T[:3, 3]
    xy = np.round(camera.project(moved)).astype(int)
    inside = (moved[:, 2] > 0.3) & (xy >= 0).all(axis=1) & (xy < (camera.width, camera.height)).all(axis=1)
    x, y = xy[inside].T
    fits = np.abs(b.depth[y, x] - moved[inside, 2]) < 0.15
    smooth = [cv2.GaussianBlur(frame.image, (0, 0), 1).astype(float) for frame in (a, b)]
    difference = np.abs(smooth[0][rows[inside], columns[inside]] - smooth[1][y, x])[fits]
    return np.median(difference), fits.sum() / len(points)


def test_ideal_views_agree_to_the_millimetre(scene):
    """Depth of one view, carried into another, equals the depth cast there: rays, poses and pixels are exact."""
    camera = Camera(131.25, 131.25, 79.5, 59.5, 160, 120)
    poses = carried_poses(np.array([3.0, 3.3]))
    (_, depth_a, _), (_, depth_b, owner_b) = (render(scene, camera, pose) for pose in poses)
    rows, columns = np.mgrid[0:120, 0:160].reshape(2, -1)
    points = camera.unproject(np.stack([columns, rows], axis=1), depth_a.ravel())
    T = np.linalg.solve(poses[1], poses[0])
    moved = points @ T[:3, :3].T + T[:3, 3]
    xy = camera.project(moved)
    near = np.round(xy).astype(int)
    inside = (near > 0).all(axis=1) & (near < (159, 119)).all(axis=1)
    q = owner_b[near[inside, 1], near[inside, 0]]
    n, c = (scene.n @ poses[1][:3, :3], (scene.corner - poses[1][:3, 3]) @ poses[1][:3, :3])
    rays = np.concatenate(
        [(xy[inside] - (camera.cx, camera.cy)) / (camera.fx, camera.fy), np.ones((inside.sum(), 1))], 1
    )
    on_plane = np.sum(n[q] * c[q], axis=1) / np.sum(n[q] * rays, axis=1)
    assert np.mean(np.abs(on_plane - moved[inside, 2]) < 1e-9) > 0.9  # the rest is hidden by something in one view
    assert np.isfinite(depth_b).all()


def test_motion_returns_to_its_start_and_turns_fast():
    times = np.arange(300) / 30
    poses = carried_poses(times)
    assert times[-1] == pytest.approx(PERIOD_S)
    np.testing.assert_allclose(poses[-1], poses[0], atol=1e-9)
    np.testing.assert_allclose(
        poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (300, 1, 1)), atol=1e-12
    )
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) * 30
    cosines = (np.trace(poses[:-1, :3, :3].transpose(0, 2, 1) @ poses[1:, :3, :3], axis1=1, axis2=2) - 1) / 2
    turns = np.degrees(np.arccos(np.clip(cosines, -1, 1))) * 30
    assert 80 < turns.max() < 130 and 0.5 < steps.max() < 1.2 and steps.sum() / 30 > 5


def test_camera_stays_clear_of_everything():
    way = carried_poses(np.linspace(0, PERIOD_S, 300))[:, :3, 3]
    assert np.all(np.abs(way[:, 0]) < WIDTH / 2 - 1) and np.all(np.abs(way[:, 1]) < DEPTH / 2 - 1)
    assert np.all((way[:, 2] > 1) & (way[:, 2] < HEIGHT - 0.8))
    for x, y, z, a, b, h, c, s in furnish().boxes:
        d = way - (x, y, z)
        local = np.abs(np.stack([d[:, 0] * c + d[:, 1] * s, -d[:, 0] * s + d[:, 1] * c, d[:, 2]], axis=1))
        gap = np.linalg.norm(np.maximum(local - (a, b, h), 0), axis=1)
        assert gap.min() > 0.15


def test_noise_has_variance_one_and_light_directions_a_cosine():
    noise = _correlated((480, 640), np.random.default_rng(3))
    assert np.std(noise) == pytest.approx(1, abs=0.01)
    directions = cosine_directions(4000)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert directions[:, 2].mean() == pytest.approx(2 / 3, abs=1e-3)


@pytest.fixture
def painted_once(monkeypatch):
    """Makes the room only once where a test is about files, not pictures."""
    monkeypatch.setattr(room, "build_scene", PAINTED)


@pytest.fixture
def cached(tmp_path, monkeypatch, painted_once):
    """The user's cache in a temporary folder, and a sample small enough for tests."""
    monkeypatch.setenv("VSLAM_CACHE", str(tmp_path / "cache"))
    cache_folder.cache_clear()
    made = []

    def small_one(folder, quiet):
        made.append(folder)
        sample.make_sample(folder, frames=2, **SMALL)

    monkeypatch.setattr(sample, "make_apart", small_one)
    yield made
    cache_folder.cache_clear()


def test_no_path_opens_the_sample_and_makes_it_once(cached, tmp_path):
    first = open_dataset("tum", None)
    assert first.name == "sample" and len(first) == 2
    assert open_dataset("sample", None).images == first.images and len(cached) == 1
    assert first.images[0].is_relative_to(tmp_path / "cache")


@pytest.mark.parametrize("harm", ["list", "image", "missing", "manifest", "version"])
def test_broken_sample_is_made_again(cached, harm):
    folder = open_dataset("sample").images[0].parents[1]
    if harm == "list":
        (folder / "rgb.txt").write_text((folder / "rgb.txt").read_text().replace("0.033333 ", "0.033334 "))
    if harm == "image":
        with open(folder / "rgb" / "0.000000.jpg", "ab") as file:
            file.write(b"x")
    if harm == "missing":
        (folder / "depth" / "0.000000.png").unlink()
    if harm == "manifest":
        (folder / "manifest.json").write_text("{")
    if harm == "version":
        values = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(values | {"version": 0}))
    assert len(open_dataset("sample")) == 2 and len(cached) == 2
    assert sample.is_complete(folder)
    assert [left.name for left in folder.parent.iterdir()] == [folder.name]


def test_folder_of_something_else_is_left_alone(cached, tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_bytes(b"dear to me")
    with pytest.raises(VslamError) as error:
        open_dataset("sample", tmp_path / "holiday")
    check_one_line(error, "holiday", "not the sample")
    assert contents(tmp_path / "holiday") == {"photo.jpg": b"dear to me"}


def test_what_stops_the_process_that_makes_it_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VslamError) as error:
        sample.make_apart(tmp_path / "file" / "sample", quiet=True)
    check_one_line(error, "file", "cannot be written")


def test_two_at_once_are_fine(tmp_path, painted_once):
    target = tmp_path / "both"
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: sample.make_sample(target, frames=2, **SMALL), range(3)))
    assert sample.is_complete(target)
    assert [left.name for left in tmp_path.iterdir()] == ["both"]


def test_interrupted_making_leaves_nothing(tmp_path, monkeypatch, painted_once):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "_write_frame", stop)
    with pytest.raises(KeyboardInterrupt):
        sample.make_sample(tmp_path / "half", frames=3, **SMALL)
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vslam-sample")]


def test_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VslamError) as error:
        sample.make_sample(tmp_path / "file" / "sample", frames=1, **SMALL)
    check_one_line(error, "file", "VSLAM_CACHE")
