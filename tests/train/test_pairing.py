"""Training pairs by geometry, on a rendered room with a card that hides a part of it: every place is known exactly."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from tests.train.test_export import parse
from tests.world import CAMERA, render, walk
from vslam.cli import train as cli_train
from vslam.errors import VslamError
from vslam.train.data import pack as packs
from vslam.train.data.pairing import (
    PairJudge,
    PairRules,
    carried_points,
    find_pairs,
    pair_packs,
    patch_likeness,
    rotation_deg,
    rows_by_bin,
    rules_of,
    sharpness,
    with_pairs,
)
from vslam.train.data.pairs import CELL, PairConfig, PairSampler, apart_from, known_cells, listed_source
from vslam.train.data.warp import trusted_depth
from vslam.train.run import training_packs
from vslam.train.settings import TrainConfig, load_pair_rules

CARD_Z, CARD_HALF = 1.3, np.array([0.22, 0.18])
"""A painted card stands in the world's plane z = 1.3 m, about its axis."""
FRAMES = 40
EASY = PairRules(gaps=(5, 10, 20), blur_percentile=0.0, border_px=4.0)


def rays(T_wc: np.ndarray) -> np.ndarray:
    x, y = np.meshgrid(np.arange(CAMERA.width), np.arange(CAMERA.height))
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    return CAMERA.unproject(xy, np.ones(len(xy))).reshape(CAMERA.height, CAMERA.width, 3) @ T_wc[:3, :3].T


def with_card(T_wc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The room of `tests.world` and the card in it: image (H, W) uint8, exact depth (H, W) float32."""
    image, depth = (array.copy() for array in render(T_wc))
    way = rays(T_wc)
    reach = (CARD_Z - T_wc[2, 3]) / way[..., 2]
    place = T_wc[:2, 3] + reach[..., None] * way[..., :2]
    on_card = (np.abs(place) < CARD_HALF).all(axis=2) & (reach > 0) & (reach < depth)
    squares = np.floor(place / 0.04).astype(int).sum(axis=2)
    image[on_card] = np.where(squares[on_card] % 2, 230, 25)
    depth[on_card] = reach[on_card]
    return image, depth


def sequence_arrays(poses: np.ndarray, views: list) -> dict[str, np.ndarray]:
    images = [image for image, _ in views]
    corners = [cv2.goodFeaturesToTrack(image, 250, 0.005, 5).reshape(-1, 2) for image in images]
    arrays = packs.encode_images(images, 98) | packs.encode_corners(corners) | {"poses": poses, "K": CAMERA.K}
    return arrays | packs.encode_depths([np.round(depth * 10000).astype(np.uint16) for _, depth in views], 10000.0)


@pytest.fixture(scope="module")
def poses() -> np.ndarray:
    return walk(FRAMES)


@pytest.fixture(scope="module")
def sequence(poses) -> packs.Pack:
    return packs.Pack("room", sequence_arrays(poses, [with_card(T) for T in poses]))


def truth(xy: np.ndarray, T_a: np.ndarray, T_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels of view a lie in view b, by casting rays, and whether nothing hides them there."""

    def hit(T: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        from tests.world import ROOM_M

        way = CAMERA.unproject(pixels, np.ones(len(pixels))) @ T[:3, :3].T
        wall = ((np.where(way > 0, ROOM_M, -ROOM_M) - T[:3, 3]) / way).min(axis=1)
        card = (CARD_Z - T[2, 3]) / way[:, 2]
        place = T[:2, 3] + card[:, None] * way[:, :2]
        is_card = (np.abs(place) < CARD_HALF).all(axis=1) & (card > 0) & (card < wall)
        return T[:3, 3] + np.where(is_card, card, wall)[:, None] * way

    world = hit(T_a, xy)
    T_cb = np.linalg.inv(T_b)
    there = CAMERA.project(world @ T_cb[:3, :3].T + T_cb[:3, 3])
    return there, np.linalg.norm(hit(T_b, there) - world, axis=1) < 1e-3


def test_carried_points_lie_where_rays_say(sequence, poses):
    """Exact places, nothing hidden among them, and few of those in plain view lost."""
    kept, lost, hidden = 0, 0, 0
    for i, j in ((0, 20), (5, 25), (30, 10)):
        xy = np.random.default_rng(i).uniform((10, 10), (309, 229), (800, 2))
        depths = [trusted_depth(sequence.depth(k), 0.3, 10.0) for k in (i, j)]
        motion = np.linalg.inv(poses[j]) @ poses[i]
        there, seen, known = carried_points(xy, *depths, sequence.K, motion, EASY)
        expected, in_view = truth(xy, poses[i], poses[j])
        assert np.linalg.norm(there[seen] - expected[seen], axis=1).max() < 0.2
        assert in_view[seen].all()  # no occluded point passes
        assert not seen[~known].any()
        inside = ((expected > 6) & (expected < (313, 233))).all(axis=1)
        kept += int((seen & in_view & inside).sum())
        lost += int((~seen & known & in_view & inside).sum())
        hidden += int((~in_view & inside).sum())
    assert hidden > 30  # the card hides something
    assert lost < 0.1 * kept  # beside the outlines


def test_depth_is_trusted_within_its_range_and_off_edges():
    depth = np.full((20, 30), 2.0, np.float32)
    depth[:, 15:] = 2.5
    depth[5, 5] = 0.0
    depth[15, 5] = 0.0
    trusted = trusted_depth(depth, 0.3, 10.0)
    assert (trusted[:, 14:16] == 0).all() and trusted[10, 12] == 2.0 and trusted[10, 18] == 2.5
    assert (trusted[4:7, 4:7] == 0).all()
    assert not trusted_depth(depth, 2.2, 10.0)[:, :15].any()
    assert not trusted_depth(depth, 0.3, 2.2)[:, 15:].any()
    slope = np.tile(np.linspace(1.0, 1.3, 30, dtype=np.float32), (20, 1))  # 1 % a pixel is no edge
    assert (trusted_depth(slope, 0.3, 10.0)[1:-1, 1:-1] > 0).all()


def test_pairs_obey_every_rule(sequence, poses):
    arrays, rejected = find_pairs(sequence, EASY)
    assert len(arrays["pairs"]) > 10
    for (i, j), overlap, points, turn, way, ncc in zip(
        *(arrays[key] for key in ("pairs", "overlap", "points", "rotation_deg", "translation_m", "ncc")), strict=True
    ):
        motion = np.linalg.inv(poses[j]) @ poses[i]
        assert j - i in EASY.gaps
        assert turn == pytest.approx(np.degrees(np.linalg.norm(cv2.Rodrigues(motion[:3, :3])[0])), abs=1e-3)
        assert way == pytest.approx(np.linalg.norm(motion[:3, 3]), abs=1e-6)
        assert turn <= 35 and way <= 0.6 and (turn >= 2 or way >= 0.02)
        assert 0.3 <= overlap <= 0.95 and points >= 60
        assert ncc > 0.8  # exact poses, no noise
    candidates = sum(FRAMES - gap for gap in EASY.gaps)
    assert len(arrays["pairs"]) + sum(rejected.values()) == candidates


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"max_rotation_deg": 1.0}, "moves too far"),
        ({"max_translation_m": 0.01}, "moves too far"),
        ({"min_rotation_deg": 170.0, "min_translation_m": 10.0}, "hardly moves"),
        ({"min_points": 100_000}, "too few points"),
        ({"far_m": 1.0}, "too few points"),
        ({"bins": (0.99, 1.0)}, "overlap"),
        ({"min_ncc": 1.0}, "pictures differ"),
        ({"blur_percentile": 100.0}, "blurred"),
    ],
)
def test_every_rule_can_reject(sequence, change, fault):
    judgement = PairJudge(sequence, dataclasses.replace(EASY, **change))(2, 12)
    assert judgement.fault == fault
    assert PairJudge(sequence, EASY)(2, 12).fault == ""


def test_wrong_poses_show_in_the_pictures(sequence, poses):
    """Depth alone does not notice a camera that slid along a wall; the pictures do."""
    wrong = poses.copy()
    wrong[12, :3, 3] += wrong[12, :3, :3] @ [0.09, 0.06, 0.0]
    judge = PairJudge(packs.Pack("wrong", sequence.arrays | {"poses": wrong}), EASY)
    assert judge(2, 12).fault in ("pictures differ", "too few points", "overlap")
    right = PairJudge(sequence, EASY)(2, 12)
    loose = dataclasses.replace(EASY, min_points=1, bins=(0.0, 1.0), min_ncc=-1.0)
    assert PairJudge(packs.Pack("wrong", sequence.arrays | {"poses": wrong}), loose)(2, 12).ncc < right.ncc - 0.4


def test_blurred_frames_are_in_no_pair(poses):
    views = [with_card(T) for T in poses[:20]]
    blurred = {4, 11}
    views = [(cv2.blur(image, (9, 9)) if k in blurred else image, depth) for k, (image, depth) in enumerate(views)]
    sequence = packs.Pack("blur", sequence_arrays(poses[:20], views))
    arrays, rejected = find_pairs(sequence, dataclasses.replace(EASY, gaps=(5,), blur_percentile=10.0))
    assert not blurred & set(arrays["pairs"].ravel().tolist())
    assert rejected["blurred"] == 3  # (4, 9), (6, 11) and (11, 16)
    assert sharpness(views[0][0]) > sharpness(cv2.blur(views[0][0], (5, 5)))


def test_likeness_is_one_for_the_same_and_ignores_gain():
    image = np.random.default_rng(0).integers(0, 255, (60, 80)).astype(np.uint8)
    seen, xy = np.ones(image.shape, bool), np.array([[20.0, 20.0], [50.0, 30.0], [1.0, 1.0]])
    brighter = (20 + 0.7 * image).astype(np.float32)
    assert patch_likeness(image, brighter, seen, xy) == pytest.approx([1.0, 1.0], abs=1e-6)  # the third is at the rim
    other = np.random.default_rng(1).integers(0, 255, (60, 80)).astype(np.uint8)
    assert np.abs(patch_likeness(image, other, seen, xy)).max() < 0.4
    assert not len(patch_likeness(image, np.full_like(image, 7), seen, xy))  # flat patches say nothing
    seen[20, 10:30] = False
    assert len(patch_likeness(image, brighter, seen, xy)) == 2
    seen[15:22] = False
    assert len(patch_likeness(image, brighter, seen, xy)) == 1


def test_angle_of_a_known_turn():
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.radians([0.0, 12.5, 0.0]))[0]
    assert rotation_deg(T) == pytest.approx(12.5)


def test_bins_hold_their_limits():
    rows = rows_by_bin(np.array([0.3, 0.49, 0.5, 0.69, 0.95]), (0.3, 0.5, 0.7, 0.95))
    assert [r.tolist() for r in rows] == [[0, 1], [2, 3], [4]]
    assert [r.tolist() for r in rows_by_bin(np.array([0.8]), (0.3, 0.5, 0.7, 0.95))] == [[0]]


@pytest.fixture(scope="module")
def folder(sequence, tmp_path_factory):
    """A folder of packs and one of their pair files."""
    root = tmp_path_factory.mktemp("paired")
    packs.write_pack(root / "packs" / "room.npz", sequence.arrays, "drawn")
    (root / "rules.yaml").write_text("gaps: [5, 10, 20]\nblur_percentile: 0\nborder_px: 4\n")
    words = ["pair", str(root / "packs"), str(root / "pairs"), "--rules", str(root / "rules.yaml")]
    assert cli_train.run(parse(cli_train, *words)) == 0
    return root


def test_pair_files_hold_pairs_rules_and_reasons(folder, sequence):
    with np.load(folder / "pairs" / "room.pairs.npz", allow_pickle=False) as stored:
        keys = {"pairs", "overlap", "points", "rotation_deg", "translation_m", "ncc", "rules", "rejected"}
        assert set(stored.files) == keys
        assert len({len(stored[key]) for key in keys - {"rules", "rejected"}}) == 1
        assert json.loads(str(stored["rules"]))["gaps"] == [5, 10, 20]
        tried = sum(FRAMES - gap for gap in EASY.gaps)
        assert len(stored["pairs"]) + sum(json.loads(str(stored["rejected"])).values()) == tried
    opened = with_pairs(packs.open_pack(folder / "packs" / "room.npz"), folder / "pairs")
    assert rules_of(opened) == EASY
    assert ["there already" in line for line in pair_packs(folder / "packs", folder / "pairs", EASY)] == [True]


def test_bins_are_drawn_evenly(sequence):
    overlap = np.array([0.4] * 50 + [0.6] * 5 + [0.9] * 2, np.float32)
    pairs = np.array([(0, 5)] * 50 + [(1, 6)] * 5 + [(2, 7)] * 2, np.int32)
    rules = np.array(json.dumps(dataclasses.asdict(EASY)))
    listed = packs.Pack("room", sequence.arrays | {"pairs": pairs, "overlap": overlap, "rules": rules})
    firsts = []
    for seed in range(60):
        source = listed_source(listed, np.random.default_rng(seed))
        firsts.append(
            min(k for k in range(8) if any(np.array_equal(source.images[s], sequence.image(k)) for s in (0, 1)))
        )
    assert min(firsts.count(k) for k in (0, 1, 2)) > 10


@pytest.fixture(scope="module")
def listed(folder) -> packs.Pack:
    return with_pairs(packs.open_pack(folder / "packs" / "room.npz"), folder / "pairs")


def test_listed_pairs_carry_labels_both_ways_and_mask_what_nobody_knows(listed, poses):
    for seed in range(6):
        source = listed_source(listed, np.random.default_rng(seed))
        i, j = (next(k for k in range(FRAMES) if np.array_equal(image, listed.image(k))) for image in source.images)
        expected, in_view = truth(source.points[0].astype(np.float64), poses[i], poses[j])
        assert np.linalg.norm(source.points[1] - expected, axis=1).max() < 0.3
        assert in_view.all()
        assert len(source.corners[0]) == len(source.corners[1]) == source.is_corner.sum() >= 60
        y, x = np.mgrid[8 : CAMERA.height - 8 : 5, 8 : CAMERA.width - 8 : 5]
        grid = np.stack([x.ravel(), y.ravel()], axis=1)
        there, in_view = truth(grid.astype(np.float64), poses[i], poses[j])
        inside = ((there >= 0) & (there <= (319, 239))).all(axis=1)
        known = source.known[0][grid[:, 1], grid[:, 0]]
        assert (in_view & inside)[known].mean() > 0.99  # what is called known is in view
        assert known[in_view & inside].mean() > 0.85  # and little of what is in view is called unknown


def test_unknown_cells_do_not_count(listed):
    known = np.ones((CAMERA.height, CAMERA.width), bool)
    known[:, :160] = False
    shift = np.eye(3)
    shift[0, 2] = -80.0  # the view begins 80 px to the right
    cells = known_cells(known, shift, (128, 96))
    assert not cells[:, : 80 // CELL].any() and cells[:, 80 // CELL :].all()
    sampler = PairSampler([listed], PairConfig(depth_share=1.0, points=200))
    shares = [sampler.pair(1, k).masks.mean() for k in range(6)]
    free = dataclasses.replace(PairConfig(depth_share=1.0, points=200), min_overlap=0.0)
    plain = PairSampler([packs.Pack("room", {k: v for k, v in listed.arrays.items() if k != "pairs"})], free)
    assert np.mean(shares) < np.mean([plain.pair(1, k).masks.mean() for k in range(6)]) - 0.05


def test_doubles_are_dropped():
    assert apart_from(np.array([[0.0, 0], [5, 0]]), np.array([[0.0, 2.9]]), 3.0).tolist() == [False, True]
    assert apart_from(np.array([[0.0, 0]]), np.zeros((0, 2)), 3.0).tolist() == [True]


def test_runs_take_pair_files(folder):
    config = TrainConfig(packs=str(folder / "packs"), pair_files=str(folder / "pairs"))
    assert "pairs" in training_packs(config)[0].arrays
    assert "pairs" not in training_packs(dataclasses.replace(config, pair_files=""))[0].arrays


def test_mistakes_are_said_in_one_line(folder, sequence, tmp_path):
    opened = packs.open_pack(folder / "packs" / "room.npz")
    with pytest.raises(VslamError, match="no pairs of pack 'room'"):
        with_pairs(opened, tmp_path)
    (tmp_path / "room.pairs.npz").write_text("hello")
    with pytest.raises(VslamError, match="not a file of pairs"):
        with_pairs(opened, tmp_path)
    wrong = {"pairs": np.array([[0, 99]]), "overlap": np.array([0.5]), "rules": np.array("{}")}
    packs.write_arrays(tmp_path / "room.pairs.npz", wrong)
    with pytest.raises(VslamError, match="frames that pack 'room' does not have"):
        with_pairs(opened, tmp_path)
    still = sequence.arrays | {"poses": np.tile(np.eye(4), (FRAMES, 1, 1))}
    packs.write_pack(tmp_path / "still" / "still.npz", still, "")
    with pytest.raises(VslamError, match=r"no frames make a pair \(.*hardly moves"):
        list(pair_packs(tmp_path / "still", tmp_path / "out", EASY))
    packs.write_pack(tmp_path / "photos" / "p.npz", packs.encode_images([sequence.image(0)]), "")
    with pytest.raises(VslamError, match="no sequences among the packs"):
        list(pair_packs(tmp_path / "photos", tmp_path / "out", EASY))
    (tmp_path / "bad.yaml").write_text("gapps: [1]\n")
    with pytest.raises(VslamError, match="unknown key 'gapps'"):
        load_pair_rules(tmp_path / "bad.yaml")
