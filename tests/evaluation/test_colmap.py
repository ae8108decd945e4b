"""COLMAP text read back by a small reader: poses, tracks and errors are the map's, pixels those of the images."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.mapping.map_of_points import make_map
from tests.world import CAMERA, make_features, make_frame, request, scatter
from vslam.errors import VslamError
from vslam.evaluation.colmap import image_names, keyframe_images, observations, write_colmap, write_images
from vslam.geometry import se3
from vslam.mapping.archive import StoredMap
from vslam.mapping.map import Map
from vslam.types import RawFrame

LENSES = {
    "PINHOLE": (),
    "OPENCV": (0.2, -0.3, 0.002, -0.001, 0.0),
    "FULL_OPENCV": (0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
}


@dataclass
class Model:
    """What the three files say: `camera` words, per image id `T_cw`, `name`, `xy` (N, 2), `point` (N,); per point id
    `xyz`, `rgb`, `error`, `track` (L, 2)."""

    camera: list[str]
    images: dict[int, tuple[np.ndarray, str, np.ndarray, np.ndarray]]
    points: dict[int, tuple[np.ndarray, list[int], float, np.ndarray]]

    def project(self, xyz: np.ndarray) -> np.ndarray:
        """COLMAP's pixels (N, 2) of points (N, 3) in the camera frame, by the formulas of its documentation."""
        fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, k5, k6 = [*map(float, self.camera[4:]), *[0.0] * 8][:12]
        u, v = (xyz[:, :2] / xyz[:, 2:]).T
        r2 = u * u + v * v
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        x = u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u)
        y = v * radial + 2 * p2 * u * v + p1 * (r2 + 2 * v * v)
        return np.stack([fx * x + cx, fy * y + cy], axis=1)

    def errors(self, point: int) -> np.ndarray:
        """Distance between where each image of the track sees the point and where it projects."""
        xyz, _, _, track = self.points[point]
        found = []
        for image, feature in track:
            T_cw, _, xy, shown = self.images[image]
            assert shown[feature] == point
            found.append(np.linalg.norm(self.project((T_cw[:3, :3] @ xyz + T_cw[:3, 3])[None])[0] - xy[feature]))
        return np.array(found)


def lines(file: Path) -> list[list[str]]:
    return [line.split() for line in file.read_text().split("\n")[:-1] if not line.startswith("#")]


def read(folder: Path) -> Model:
    (camera,) = lines(folder / "cameras.txt")
    images, points = {}, {}
    of_images = lines(folder / "images.txt")
    for (id, *pose, camera_id, name), seen in zip(of_images[::2], of_images[1::2], strict=True):
        w, x, y, z, *t = map(float, pose)
        T_cw = np.eye(4)
        T_cw[:3, :3], T_cw[:3, 3] = Rotation.from_quat([x, y, z, w]).as_matrix(), t
        table = np.array(seen, float).reshape(-1, 3)
        assert camera_id == camera[0]
        images[int(id)] = T_cw, name, table[:, :2], table[:, 2].astype(int)
    for id, *words in lines(folder / "points3D.txt"):
        track = np.array(words[7:], int).reshape(-1, 2)
        points[int(id)] = np.array(words[:3], float), [*map(int, words[3:6])], float(words[6]), track
    return Model(camera, images, points)


def seen_through(lens: tuple[float, ...], seed: int = 0, noise_px: float = 0.7) -> StoredMap:
    """Four keyframes with noise, seen through a lens; some points and a keyframe are gone."""
    made = make_map(4, noise_px, seed, world=scatter(60, seed))
    map_ = made.map
    map_.points.rgb[:] = np.random.default_rng(seed).integers(0, 256, map_.points.rgb.shape)
    map_.remove_points(np.flatnonzero(map_.points.alive)[:5])
    map_.remove_keyframe(1, 2)
    for slot, frame in map_.frames.items():
        rays = np.concatenate([(frame.xy - (CAMERA.cx, CAMERA.cy)) / CAMERA.fx, np.ones((len(frame), 1))], axis=1)
        none = np.zeros(3)
        xy = cv2.projectPoints(rays, none, none, CAMERA.K, np.array(lens or (0.0,) * 5))[0].reshape(-1, 2)
        map_.frames[slot] = replace(frame, features=replace(frame.features, xy=xy.astype(np.float32)))
    return StoredMap(map_, replace(CAMERA, distortion=lens), "orb", "orb")


@pytest.mark.parametrize("undistorted", [False, True])
@pytest.mark.parametrize("model", LENSES)
def test_points_reproject_as_the_file_says(tmp_path, model, undistorted):
    stored = seen_through(LENSES[model])
    write_colmap(tmp_path / "sparse" / "0", stored, undistorted)
    found, map_ = read(tmp_path / "sparse" / "0"), stored.map
    assert found.camera[1] == ("PINHOLE" if undistorted else model)
    assert found.camera[2:4] == ["320", "240"]
    assert [*map(float, found.camera[4:8])] == [
        262.5,
        262.5,
        160.0,
        120.0,
    ]  # the middle of the image, in this convention
    assert set(found.points) == set(np.flatnonzero(map_.points.alive) + 1)
    assert set(found.images) == {id + 1 for id in map_.slot_of}
    for id, (xyz, rgb, error, track) in found.points.items():
        assert len(track) == map_.points.observations[id - 1]
        assert rgb == map_.points.rgb[id - 1].tolist()
        np.testing.assert_allclose(xyz, map_.points.xyz[id - 1], rtol=1e-8)
        assert error == pytest.approx(found.errors(id).mean(), abs=1e-3)  # keypoints are written to 0.0001 px
    for id, (T_cw, _, xy, shown) in found.images.items():
        slot = map_.slot_of[id - 1]
        np.testing.assert_allclose(T_cw, map_.pose(id - 1), atol=1e-10)
        frame = map_.frames[slot]
        np.testing.assert_allclose(xy - 0.5, frame.xy if undistorted else frame.features.xy, atol=1e-4)
        assert np.array_equal(shown, np.where(map_.keyframes.point[slot, : len(xy)] >= 0, shown, -1))
    tracks = sum(len(track) for *_, track in found.points.values())
    assert tracks == sum((shown > 0).sum() for *_, shown in found.images.values())


def test_errors_are_those_of_the_map():
    """With noise of 0.7 px in each of two coordinates an error is sqrt(pi / 2) 0.7 in the mean."""
    stored = seen_through((), noise_px=0.7)
    seen = observations(stored.map, CAMERA)
    map_ = stored.map
    for k in np.random.default_rng(0).integers(0, len(seen.row), 50):
        T_cw = map_.pose(int(seen.keyframe[k]))
        xyz = T_cw[:3, :3] @ map_.points.xyz[seen.row[k]] + T_cw[:3, 3]
        xy = map_.keyframes.xy[map_.slot_of[int(seen.keyframe[k])], seen.feature[k]]
        assert seen.error[k] == pytest.approx(np.linalg.norm(CAMERA.project(xyz[None])[0] - xy), abs=1e-9)
    assert seen.error.mean() == pytest.approx(np.sqrt(np.pi / 2) * 0.7, rel=0.15)
    assert not observations(seen_through((), noise_px=0.0).map, CAMERA).error.max() > 1e-3


def test_map_without_points_and_image_without_features_are_written(tmp_path):
    map_ = Map()
    frame = make_frame(make_features(np.zeros((0, 2)), np.zeros((0, 32), np.uint8)))
    map_.insert(request(frame, -1, np.eye(4)), 10)
    map_.insert(request(frame, 0, se3.exp([0.1, 0, 0, 0, 0, 0])), 10)
    write_colmap(tmp_path, StoredMap(map_, CAMERA, "orb", "orb"))
    found = read(tmp_path)
    assert found.points == {} and [len(xy) for *_, xy, _ in found.images.values()] == [0, 0]


class Recording:
    """Three frames as files in a folder, at the times of the map's keyframes."""

    name = "room"

    def __init__(self, folder: Path, timestamps, camera=CAMERA, split=False):
        self.camera, self.timestamps = camera, np.array(timestamps)
        self.images = [folder / ("ab"[k % 2] if split else "rgb") / f"{k}.jpg" for k in range(len(timestamps))]

    def load(self, index: int) -> RawFrame:
        rows = np.arange(self.camera.height, dtype=np.uint8)
        return RawFrame(float(self.timestamps[index]), np.repeat(rows[:, None], self.camera.width, 1) // (index + 1))


def test_images_have_the_names_of_their_files(tmp_path):
    stored = seen_through(())
    map_ = stored.map
    recording = Recording(tmp_path, map_.timestamp_of)
    assert keyframe_images(map_, recording) == {k: f"{k}.jpg" for k in range(4)}
    assert keyframe_images(map_, Recording(tmp_path, map_.timestamp_of, split=True))[1] == "b/1.jpg"
    assert keyframe_images(map_, Recording(tmp_path, [0.1, 7.0])) == {1: "0.jpg"}
    assert keyframe_images(map_, recording, first=3) == {3: "3.jpg"}
    assert keyframe_images(map_, object()) == {}
    write_colmap(tmp_path, replace(stored, images=keyframe_images(map_, recording)))
    assert [name for _, name, *_ in read(tmp_path).images.values()] == ["0.jpg", "2.jpg", "3.jpg"]


def test_names_differ_and_have_no_spaces():
    stored = seen_through(())
    assert list(image_names(stored).values()) == ["0.000000.png", "0.200000.png", "0.300000.png"]
    twice = replace(stored, images={0: "a/my 1.png", 2: "a/my 1.png", 3: "a/my 1.jpg"})
    assert list(image_names(twice).values()) == ["a/my_1.png", "a/2-my_1.png", "a/my_1.jpg"]
    assert list(image_names(twice, ".png").values()) == ["a/my_1.png", "a/2-my_1.png", "a/3-my_1.png"]


def test_written_images_have_no_distortion_and_the_names_of_the_text(tmp_path):
    stored = seen_through(LENSES["OPENCV"])
    recording = Recording(tmp_path / "sequence", stored.map.timestamp_of, stored.camera)
    stored = replace(stored, images=keyframe_images(stored.map, recording))
    assert write_images(tmp_path / "images", stored, recording) == 3
    write_colmap(tmp_path, stored, undistorted=True)
    for id, (_, name, *_) in read(tmp_path).images.items():
        found = cv2.imread(str(tmp_path / "images" / name), cv2.IMREAD_UNCHANGED)
        image = recording.load(id - 1).image
        pixels = np.array([[40.0, 50.0], [100.0, 200.0], [300.0, 30.0]])
        bent = cv2.projectPoints(
            stored.camera.unproject(pixels, np.ones(3)), np.zeros(3), np.zeros(3), CAMERA.K, np.array(LENSES["OPENCV"])
        )[0].reshape(-1, 2)  # fmt: skip
        for (x, y), (_, v) in zip(pixels.astype(int), bent, strict=True):
            assert (
                abs(int(found[y, x]) - v / id) < 1.5 and found.shape == image.shape
            )  # rows are painted with their number


def test_images_of_another_sequence_are_refused(tmp_path):
    stored = seen_through(())
    with pytest.raises(VslamError, match="2 of 3 keyframes are not of sequence room;"):
        write_images(tmp_path, stored, Recording(tmp_path, [0.0, 0.1]))


def test_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "in"):
        with pytest.raises(VslamError, match="cannot be made"):
            write_colmap(folder, seen_through(()))
