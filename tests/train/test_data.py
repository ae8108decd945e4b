"""Packs, warps, light and pairs: truth is known because the pictures are drawn."""

import cv2
import numpy as np
import pytest

from tests.train.conftest import HEIGHT, WIDTH, K, drawn_picture, plane_sequence
from vslam.errors import VslamError
from vslam.train.data import build, pack
from vslam.train.data.corners import adapt, agree_between_views, corner_spots, peaks
from vslam.train.data.light import motion_kernel, relight, shade, spot_light
from vslam.train.data.pairs import PairConfig, PairSampler, cell_targets, join_by_depth, valid_cells
from vslam.train.data.warp import (
    apply_homography,
    carry,
    four_point_homography,
    random_homography,
    sample_depth,
    warp_by_depth,
    warp_grid,
)


def test_pack_gives_back_what_was_put_in(packs):
    opened = pack.open_pack(packs / "sequence.npz")
    images, depths, poses = plane_sequence()
    assert len(opened) == len(images)
    assert opened.is_sequence
    assert np.abs(opened.image(3).astype(int) - images[3]).mean() < 3  # JPEG
    np.testing.assert_allclose(opened.depth(3), depths[3], atol=1 / 5000)
    np.testing.assert_array_equal(opened.poses, poses)
    corners = cv2.goodFeaturesToTrack(images[3], 200, 0.01, 5).reshape(-1, 2)
    np.testing.assert_allclose(opened.corners(3), corners, atol=0.5 / pack.CORNER_UNIT)


def test_pack_without_poses_is_refused(tmp_path):
    arrays = pack.encode_images([drawn_picture(0)]) | pack.encode_depths([np.zeros((HEIGHT, WIDTH), np.uint16)], 5000.0)
    pack.write_pack(tmp_path / "half.npz", arrays, "")
    with pytest.raises(VslamError, match="has depth but no poses"):
        pack.open_pack(tmp_path / "half.npz")


def test_what_is_no_pack_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(VslamError, match="not a training pack"):
        pack.open_pack(tmp_path / "text.npz")
    (tmp_path / "text.npz").unlink()
    with pytest.raises(VslamError, match="no training packs"):
        pack.open_packs(tmp_path)


def test_folder_of_images_is_packed_at_two_scales(tmp_path):
    cv2.imwrite(str(tmp_path / "large.png"), drawn_picture(1, 640, 480))
    cv2.imwrite(str(tmp_path / "small.png"), drawn_picture(2, 200, 180))
    assert build.pack_images(tmp_path, tmp_path / "p.npz", "x", crops=2) == 1 + 2 + 1
    opened = pack.open_pack(tmp_path / "p.npz")
    assert opened.image(0).shape == (HEIGHT, WIDTH)
    assert len(opened.corners(0)) > 20


def test_folder_without_images_is_named(tmp_path):
    with pytest.raises(VslamError, match="no readable images"):
        build.pack_images(tmp_path, tmp_path / "p.npz", "x")


def write_tum(folder, images, depths, poses):
    (folder / "rgb").mkdir()
    (folder / "depth").mkdir()
    lists = {"rgb": [], "depth": [], "groundtruth": []}
    for k, (image, depth, pose) in enumerate(zip(images, depths, poses, strict=True)):
        cv2.imwrite(str(folder / f"rgb/{k}.png"), image)
        cv2.imwrite(str(folder / f"depth/{k}.png"), np.round(depth * 5000).astype(np.uint16))
        lists["rgb"].append(f"{k / 30:.4f} rgb/{k}.png")
        lists["depth"].append(f"{k / 30:.4f} depth/{k}.png")
        lists["groundtruth"].append(f"{k / 30:.4f} " + " ".join(map(str, pose[:3, 3])) + " 0 0 0 1")
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (folder / "camera.yaml").write_text("fx: 260\nfy: 260\ncx: 159.5\ncy: 119.5\ndepth_scale: 5000\n")


def test_sequence_is_packed_with_poses_and_intrinsics(tmp_path):
    images, depths, poses = plane_sequence(4)
    write_tum(tmp_path, images, depths, poses)
    assert build.pack_sequence(tmp_path, tmp_path / "s.npz", "x") == 4
    opened = pack.open_pack(tmp_path / "s.npz")
    np.testing.assert_allclose(opened.K, K)
    np.testing.assert_allclose(opened.poses, poses, atol=1e-9)


@pytest.mark.parametrize("missing", ["groundtruth.txt", "depth.txt", "camera.yaml"])
def test_sequence_without_depth_or_poses_is_named(tmp_path, missing):
    write_tum(tmp_path, *plane_sequence(3))
    (tmp_path / missing).unlink()
    with pytest.raises(VslamError, match=missing):
        build.pack_sequence(tmp_path, tmp_path / "s.npz", "x")


def test_homography_maps_its_four_points():
    rng = np.random.default_rng(4)
    source = np.array([[0, 0], [100, 0], [100, 80], [0, 80]], float)
    target = source + rng.uniform(-10, 10, (4, 2))
    np.testing.assert_allclose(apply_homography(four_point_homography(source, target), source), target, atol=1e-9)


def test_random_homography_without_freedom_is_identity():
    matrix = random_homography(np.random.default_rng(0), (320, 240), 0.0, (1.0, 1.0), 0.0, 0.0)
    np.testing.assert_allclose(matrix, np.eye(3), atol=1e-12)


def test_points_of_a_wall_land_where_its_picture_does():
    images, depths, poses = plane_sequence()
    T_b_a = np.linalg.inv(poses[10]) @ poses[0]
    xy = np.random.default_rng(1).uniform((60, 60), (260, 180), (50, 2))
    there, seen = warp_by_depth(xy, depths[0], depths[10], K, T_b_a)
    assert seen.all()
    patches = [
        cv2.remap(images[k], *p.astype(np.float32).T[:, :, None], cv2.INTER_LINEAR) for k, p in ((0, xy), (10, there))
    ]
    assert np.median(np.abs(patches[0].astype(int) - patches[1])) < 4


def test_occluded_points_are_not_seen():
    _, depths, poses = plane_sequence()
    nearer = depths[5].copy()
    nearer[:, :160] = 1.0
    xy = np.array([[80.0, 120.0], [260.0, 120.0]])
    _, seen = warp_by_depth(xy, depths[0], nearer, K, np.linalg.inv(poses[5]) @ poses[0])
    assert seen.tolist() == [False, True]


def test_depth_at_edges_and_holes_is_none():
    depth = np.full((10, 10), 2.0, np.float32)
    depth[:, 5:] = 3.0
    depth[8, 1] = 0.0
    assert sample_depth(depth, np.array([[2.5, 2.5], [4.5, 2.5], [1.2, 7.5], [-1.0, 3.0]])).tolist() == [2.0, 0, 0, 0]


def test_warp_grid_equals_points_carried_one_by_one():
    _, depths, poses = plane_sequence()
    T_b_a = np.linalg.inv(poses[7]) @ poses[2]
    x, y, seen = warp_grid(depths[2], depths[7], K, T_b_a)
    xy = np.array([[30.0, 40.0], [200.0, 150.0]])
    there, _ = carry(xy, np.full(2, depths[2][0, 0]), K, T_b_a)
    np.testing.assert_allclose([[x[40, 30], y[40, 30]], [x[150, 200], y[150, 200]]], there, atol=1e-3)
    assert seen[40, 30]
    assert not seen[0, 0]  # moved out of the image


def test_adapted_corners_lie_on_corners():
    image = np.full((HEIGHT, WIDTH), 60, np.uint8)
    cv2.rectangle(image, (100, 80), (200, 160), 200, -1)
    found = peaks(adapt(image, corner_spots, np.random.default_rng(0), warps=8), 0.12)
    truth = np.array([[100, 80], [200, 80], [100, 160], [200, 160]], float)
    for corner in truth:
        assert np.linalg.norm(found - corner, axis=1).min() < 1.5
    assert len(found) == 4


def test_corners_of_one_view_alone_lose():
    _, depths, poses = plane_sequence(3)
    scores = [np.zeros((HEIGHT, WIDTH), np.float32) for _ in range(3)]
    scores[1][100, 100] = 1.0
    merged = agree_between_views(scores, depths, poses, K, gaps=(-1, 1))
    assert merged[1][100, 100] == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_light_keeps_size_and_type(seed):
    image = drawn_picture(seed)
    changed = relight(image, np.random.default_rng(seed))
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(changed, relight(image, np.random.default_rng(seed)))


def test_light_masks_are_positive():
    rng = np.random.default_rng(0)
    for mask in (spot_light((64, 80), rng), shade((64, 80), rng)):
        assert mask.shape == (64, 80)
        assert mask.min() > 0


def test_motion_kernel_neither_moves_nor_brightens():
    for seed in range(10):
        kernel = motion_kernel(np.random.default_rng(seed), 9.0)
        assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
        y, x = np.mgrid[: kernel.shape[0], : kernel.shape[1]] - kernel.shape[0] // 2
        assert abs((kernel * x).sum()) < 0.3
        assert abs((kernel * y).sum()) < 0.3


def test_cell_targets_keep_places_below_a_pixel():
    xy = np.array([[10.25, 20.5], [40.0, 9.0]])
    target = cell_targets(xy, (64, 48))
    np.testing.assert_allclose(target.sum(axis=0), 1.0, atol=1e-6)
    places = target[:64].reshape(8, 8, 6, 8).transpose(2, 0, 3, 1).reshape(48, 64)
    y, x = np.nonzero(places)
    first = (x < 30).nonzero()[0]
    weights = places[y[first], x[first]]
    np.testing.assert_allclose([(weights * x[first]).sum(), (weights * y[first]).sum()], [10.25, 20.5], atol=1e-6)
    assert places[9, 40] == 1.0


def test_cells_outside_the_source_are_masked():
    shift = np.eye(3)
    shift[0, 2] = 16.0  # the view shows 16 px left of the source
    mask = valid_cells(shift, (HEIGHT, WIDTH), (256, 192), margin=0.0)
    assert not mask[:, :2].any()
    assert mask[1:-1, 3:-1].all()


@pytest.fixture(scope="module")
def sampler(packs):
    return PairSampler(pack.open_packs(packs), PairConfig(points=200, max_gap=8))


def test_same_seed_same_pair(sampler):
    a, b = sampler.pair(3, 14, 1), sampler.pair(3, 14, 1)
    assert np.array_equal(a.images, b.images)
    assert not np.array_equal(a.images, sampler.pair(3, 14, 2).images)


def test_homography_pairs_agree_with_their_points(sampler):
    for k in range(12):
        pair = sampler.pair(1, k)
        if np.isnan(pair.homography).any():
            continue
        expected = apply_homography(pair.homography, pair.points[0][pair.valid])
        np.testing.assert_allclose(pair.points[1][pair.valid], expected, atol=1e-2)


def test_depth_pairs_join_the_same_wall_point(packs):
    sequence = pack.open_pack(packs / "sequence.npz")
    source, overlap = join_by_depth(sequence, 0, 8, np.random.default_rng(0))
    assert overlap > 0.5
    on_wall = []
    for index, points in zip((0, 8), source.points, strict=True):
        z = 2.0 - sequence.poses[index][2, 3]
        on_wall.append((points - K[:2, 2]) / 260.0 * z + sequence.poses[index][:2, 3])
    np.testing.assert_allclose(on_wall[0], on_wall[1], atol=2e-3)


def test_batches_lead_with_the_two_views(sampler):
    batch = sampler.batch(1, 2, 3)
    assert batch["images"].shape == (2, 3, 192, 256)
    assert batch["targets"].shape == (2, 3, 65, 24, 32)
    assert batch["points"].shape == (2, 3, 200, 2)
    assert batch["valid"].shape == (3, 200)
    assert batch["valid"].sum() > 100


@pytest.mark.parametrize("depth_share", [0.0, 1.0])
def test_cells_are_carried_to_where_points_are(packs, depth_share):
    """Of a cell's centre and of points drawn by the pair itself the same truth holds."""
    config = PairConfig(points=200, max_gap=8, cells=True, depth_share=depth_share, photo_share=0.0)
    sampler = PairSampler(pack.open_packs(packs), config)
    for k in range(4):
        pair = sampler.pair(7, k)
        known = np.isfinite(pair.cells).all(axis=1)
        assert pair.cells.shape == (24 * 32, 2)
        assert known.mean() > 0.5
        columns, rows = np.meshgrid(np.arange(32), np.arange(24))
        centres = np.stack([columns.ravel(), rows.ravel()], 1) * 8 + 3.5
        points = pair.points[:, pair.valid]
        # the motion is smooth (homography of a plane): fit it to the points, and ask it about the cells
        fitted, _ = cv2.findHomography(points[0], points[1], cv2.RANSAC, 1.0)
        inside = known & (centres > 16).all(1) & (centres < (240, 176)).all(1)
        error = np.linalg.norm(apply_homography(fitted, centres[inside]) - pair.cells[inside], axis=1)
        assert np.median(error) < 0.5


def test_batches_carry_cells_only_when_asked(packs):
    opened = pack.open_packs(packs)
    assert "cells" not in PairSampler(opened, PairConfig(points=50)).batch(1, 2, 2)
    assert PairSampler(opened, PairConfig(points=50, cells=True)).batch(1, 2, 2)["cells"].shape == (2, 768, 2)
