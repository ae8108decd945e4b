"""Front ends against truth: planes under known homographies, and a camera whose motion is known."""

import cv2
import numpy as np
import pytest

from tests.evaluation.test_frontend import features, random_bits
from tests.world import CAMERA, filmed, walk
from vslam.cli.main import main
from vslam.errors import FrameError, VslamError
from vslam.evaluation.frontend import Contender, Rules
from vslam.evaluation.homographies import (
    corner_error,
    project,
    read_scenes,
    scaled_homography,
    score_plane,
    score_planes,
)
from vslam.evaluation.motion import MotionRules, View, overlap, recovers, score_motion
from vslam.types import RawFrame, Trajectory

SHAPE = (240, 320)
TURN = np.array([[0.98, -0.1, 20.0], [0.11, 0.97, -8.0], [1e-4, -5e-5, 1.0]])


def test_perfect_keypoints_score_perfectly():
    rng = np.random.default_rng(0)
    xy = rng.uniform(40, 200, (60, 2))
    bits = random_bits(60)
    scores = score_plane(features(xy, bits), features(project(TURN, xy), bits), TURN, (SHAPE, SHAPE))
    for key in ("repeatability", "homography_1px", "homography_3px", "matching_score", "precision"):
        assert scores[key] == pytest.approx(1.0)
    assert scores["localisation_px"] == pytest.approx(0.0, abs=1e-4)


def test_scores_count_what_was_built_in():
    """40 keypoints a picture on a grid: 10 are 2 px off, 10 have no mate within 3 px, all matched as they are."""
    xy = np.stack(np.meshgrid(np.arange(8) * 30.0 + 40, np.arange(5) * 30.0 + 40), axis=-1).reshape(-1, 2)
    moved = xy.copy()
    moved[10:20, 0] += 2.0
    moved[20:30] += 12.0
    bits = random_bits(40)
    scores = score_plane(features(xy, bits), features(moved, bits), np.eye(3), (SHAPE, SHAPE))
    assert scores["repeatability"] == pytest.approx(60 / 80)
    assert scores["localisation_px"] == pytest.approx(20 * 2.0 / 60)
    assert scores["matching_score"] == pytest.approx(2 * 30 / 80)
    assert scores["precision"] == pytest.approx(30 / 40)


def test_what_the_other_picture_does_not_show_does_not_count():
    shift = np.eye(3)
    shift[0, 2] = 200.0
    xy = np.array([[50.0, 50], [250.0, 50]])  # the second leaves the picture
    bits = random_bits(2)
    scores = score_plane(features(xy, bits), features(xy + np.array([200, 0]), bits), shift, (SHAPE, SHAPE))
    assert scores["repeatability"] == 1.0


def test_nothing_found_is_a_failure_not_an_error():
    none = features(np.zeros((0, 2)), random_bits(0))
    scores = score_plane(none, none, np.eye(3), (SHAPE, SHAPE))
    assert scores["repeatability"] == scores["homography_5px"] == scores["matching_score"] == 0.0
    assert np.isnan(scores["localisation_px"])


def test_corner_error_of_a_known_shift():
    xy = np.random.default_rng(1).uniform(20, 200, (30, 2)).astype(np.float32)
    assert corner_error(xy, xy + np.float32([3, 4]), np.eye(3), SHAPE) == pytest.approx(5.0, abs=1e-3)
    assert corner_error(xy[:3], xy[:3], np.eye(3), SHAPE) == np.inf


def test_homography_follows_the_size_of_the_pictures():
    """A point of the large pictures and its place in the small ones belong together before and after."""
    small = scaled_homography(TURN, [(480, 640), (600, 800)], (320, 240))
    xy = np.random.default_rng(2).uniform(50, 400, (20, 2))
    there = project(TURN, xy)
    np.testing.assert_allclose(project(small, (xy + 0.5) / 2 - 0.5), (there + 0.5) / 2.5 - 0.5, atol=1e-9)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two scenes of a painted room's picture, each in one of the namings."""
    folder = tmp_path_factory.mktemp("scenes")
    image = filmed(1)[0].image
    for scene, picture, matrix in (("a", "{k}.png", "H_1_{k}"), ("b", "img{k}.png", "H1to{k}p")):
        (folder / scene).mkdir()
        cv2.imwrite(str(folder / scene / picture.format(k=1)), image)
        for k, strength in ((2, 0.3), (3, 1.0)):
            change = np.eye(3) + strength * (TURN - np.eye(3))
            warped = cv2.warpPerspective(image, change, image.shape[::-1], borderMode=cv2.BORDER_REFLECT_101)
            cv2.imwrite(str(folder / scene / picture.format(k=k)), warped)
            np.savetxt(folder / scene / matrix.format(k=k), change)
    return folder


def test_scenes_are_read_and_scored(scenes):
    pairs = read_scenes(scenes, (320, 240))
    assert [(pair.scene, pair.number) for pair in pairs] == [("a", 2), ("a", 3), ("b", 2), ("b", 3)]
    np.testing.assert_allclose(pairs[1].homography, TURN, atol=1e-9)  # the pictures have that size already
    assert len(read_scenes(scenes / "a", (0, 0))) == 2
    found = score_planes(pairs, [Contender("orb", "orb"), Contender("sift", "sift")], Rules(keypoints=300))
    for scores in found["frontends"].values():
        assert scores["mean"]["homography_3px"] == 1.0
        assert scores["mean"]["repeatability"] > 0.4
        assert scores["mean"]["precision"] > 0.6
        assert len(scores["pairs"]) == 4


def test_broken_scenes_are_named(scenes, tmp_path):
    with pytest.raises(VslamError, match="no such folder"):
        read_scenes(tmp_path / "none", (320, 240))
    with pytest.raises(VslamError, match="no scenes"):
        read_scenes(tmp_path, (320, 240))
    (tmp_path / "1.png").write_bytes((scenes / "a" / "1.png").read_bytes())
    (tmp_path / "H_1_2").write_text("1 0 0\n0 1 0\n0 0 1\n")
    with pytest.raises(VslamError, match="no picture 2"):
        read_scenes(tmp_path, (320, 240))
    (tmp_path / "2.png").write_bytes((scenes / "a" / "2.png").read_bytes())
    for text in ("1 2\n3 4\n", "1 0 0\n0 1 0\n0 0 zero\n", "1 0 0\n0 1 0\n0 0 0\n"):
        (tmp_path / "H_1_2").write_text(text)
        with pytest.raises(VslamError, match="not a homography"):
            read_scenes(tmp_path, (320, 240))


class Film:
    """The walk of `tests.world` as a data set."""

    name, camera = "film", CAMERA

    def __init__(self, frames: int = 24, broken: int = -1, has_depth: bool = True, has_truth: bool = True):
        self.frames = filmed(frames)
        self.timestamps = np.array([frame.timestamp for frame in self.frames])
        self.truth = Trajectory(self.timestamps, walk(frames)) if has_truth else None
        self._broken, self._has_depth = broken, has_depth

    def __len__(self) -> int:
        return len(self.frames)

    def load(self, index: int) -> RawFrame:
        if index == self._broken:
            raise FrameError("broken")
        frame = self.frames[index]
        return frame if self._has_depth else RawFrame(frame.timestamp, frame.image)


RULES = MotionRules(gaps=(3, 10), stride=4)


def test_motion_of_the_walk_is_recovered():
    found = score_motion(Film(), [Contender("orb", "orb")], Rules(), RULES)
    rows = found["frontends"]["orb"]["gaps"]
    assert rows["3"]["pairs"] == 6 and rows["10"]["pairs"] == 4
    assert rows["3"]["success"] > 0.6
    assert 0.5 < rows["10"]["overlap"] < rows["3"]["overlap"] <= 1.0
    assert found["frontends"]["orb"]["mean"] == pytest.approx((rows["3"]["success"] + rows["10"]["success"]) / 2)


def ideal_views() -> tuple[View, View]:
    """Two views of points at known places, every keypoint exact and told apart by its bits."""
    rng = np.random.default_rng(4)
    T_wc = np.eye(4)
    T_wc[:3, :3] = cv2.Rodrigues(np.array([0.05, 0.1, -0.08]))[0]
    T_wc[:3, 3] = 0.2, -0.1, 0.15
    world = CAMERA.unproject(rng.uniform(20, 220, (80, 2)), rng.uniform(1, 4, 80))
    views = []
    for T in (np.eye(4), T_wc):
        T_cw = np.linalg.inv(T)
        local = world @ T_cw[:3, :3].T + T_cw[:3, 3]
        xy = CAMERA.project(local).astype(np.float32)
        views.append(View(features(xy, random_bits(80)), xy, local[:, 2], T, np.ones((15, 20), np.float32)))
    return views[0], views[1]


def test_ideal_keypoints_recover_the_motion_and_no_other():
    a, b = ideal_views()
    assert recovers(a, b, CAMERA, RULES)
    for offset, turn in (((0.06, 0, 0), (0, 0, 0)), ((0, 0, 0), (0, 0, np.radians(6)))):
        wrong = b.T_wc.copy()
        wrong[:3, 3] += offset
        wrong[:3, :3] = wrong[:3, :3] @ cv2.Rodrigues(np.array(turn, float))[0]
        assert not recovers(a, View(b.features, b.xy, b.depth, wrong, b.surface), CAMERA, RULES)
    close = b.T_wc.copy()
    close[0, 3] += 0.04
    assert recovers(a, View(b.features, b.xy, b.depth, close, b.surface), CAMERA, RULES)
    assert not recovers(View(a.features, a.xy, np.zeros(80), a.T_wc, a.surface), b, CAMERA, RULES)  # no depth


def test_unreadable_frames_are_left_out():
    found = score_motion(Film(broken=4), [Contender("orb", "orb")], Rules(), RULES)
    assert found["frontends"]["orb"]["gaps"]["3"]["pairs"] == 5


def test_wrong_truth_is_not_recovered():
    film = Film()
    film.truth.poses[1::2, 0, 3] += 0.3  # jumps that the camera did not make
    rows = score_motion(film, [Contender("orb", "orb")], Rules(), MotionRules((3,), 4))["frontends"]["orb"]["gaps"]
    assert rows["3"]["success"] == 0.0


def test_overlap_of_known_views():
    depth = np.full((15, 20), 2.0, np.float32)
    none = features(np.zeros((0, 2)), random_bits(0))
    here = View(none, np.zeros((0, 2)), np.zeros(0), np.eye(4), depth)
    beside, behind = np.eye(4), np.eye(4)
    beside[0, 3] = 2.0 * 160 / CAMERA.fx  # half a picture to the right
    behind[:3, :3] = cv2.Rodrigues(np.array([0.0, np.pi, 0.0]))[0]
    assert overlap(here, here, CAMERA) == 1.0
    assert overlap(here, View(none, here.xy, here.depth, beside, depth), CAMERA) == pytest.approx(0.5, abs=0.05)
    assert overlap(here, View(none, here.xy, here.depth, behind, depth), CAMERA) == 0.0
    assert not recovers(here, here, CAMERA, RULES)  # nothing to match


def test_missing_truth_or_depth_is_named():
    orb = [Contender("orb", "orb")]
    with pytest.raises(VslamError, match="film: no true poses"):
        score_motion(Film(has_truth=False), orb)
    with pytest.raises(VslamError, match="film: no depth"):
        score_motion(Film(has_depth=False), orb, Rules(), RULES)
    with pytest.raises(VslamError, match=r"24 frames with true poses; gaps of \(50,\) need more"):
        score_motion(Film(), orb, Rules(), MotionRules((50,), 1))


def test_commands_print_tables(scenes, tmp_path, capsys):
    words = ["bench", "homographies", "--path", str(scenes), "--extractor", "orb", "--json", str(tmp_path / "h.json")]
    assert main(words) == 0
    head, columns, row = capsys.readouterr().out.splitlines()
    assert "4 pairs of 2 scenes at 320x240" in head
    assert columns.split()[:2] == ["extractor", "repeatability"] and row.split()[0] == "orb"
    assert (tmp_path / "h.json").is_file()
    for words, expected in (
        (["homographies", "--path", str(tmp_path)], "no scenes"),
        (["motion", "--path", str(tmp_path / "none")], "no such folder"),
        (["motion", "--gaps", "5,x"], "--gaps 5,x: expected"),
        (["motion", "--stride", "0"], "--stride 0: expected"),
    ):
        assert main(["bench", *words]) == 2
        captured = capsys.readouterr()
        assert expected in captured.err and captured.err.count("\n") == 1
