"""Training of place networks: overlap of views, relations and classes, losses, layers, resumed runs, exported files."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch
import yaml
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch.nn import functional as F

from tests.train.conftest import K, drawn_picture, plane_sequence
from tests.train.test_export import parse
from tests.train.two_processes import run_two
from vslam.cli import train as cli_train
from vslam.errors import VslamError
from vslam.features.learned import as_input
from vslam.inference.models import read_manifest
from vslam.inference.session import MODULES, open_session
from vslam.train.data.light import LightConfig
from vslam.train.export import fold_norms
from vslam.train.exporting import export
from vslam.train.places import losses
from vslam.train.places.build import pack_places
from vslam.train.places.evaluate import Recognition, by_network, mean_scores, precision_recall, recognition, score_pack
from vslam.train.places.initialise import k_means, whitening
from vslam.train.places.layout import discriminant, two_windows
from vslam.train.places.networks import (
    NETWORKS,
    GeneralisedMean,
    Layout,
    NetVlad,
    build_place_network,
    lack_of_detail,
    peaks,
    slope_kernels,
)
from vslam.train.places.overlap import UNKNOWN, overlap_matrix
from vslam.train.places.packs import GROUPS, PlacePack, open_place_pack, open_place_packs
from vslam.train.places.publish import pooled_recall, publish
from vslam.train.places.release import export_place, load_place_network
from vslam.train.places.sampler import ClassSampler, PlaceSampler, coarsen, places_of
from vslam.train.places.season import change_season
from vslam.train.places.settings import PlaceTrainConfig, ViewConfig, load_place_config
from vslam.train.places.training import train_places

SMALL = ViewConfig(width=64, height=48, worlds=2)


def write_walk(folder: Path, darker: float = 1.0) -> Path:
    """A walk in TUM layout: the wall of `plane_sequence`, under a light of the given strength."""
    images, depths, poses = plane_sequence()
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    rows = {"rgb": [], "depth": [], "groundtruth": []}
    for k, (image, depth, pose) in enumerate(zip(images, depths, poses, strict=True)):
        cv2.imwrite(str(folder / f"rgb/{k}.png"), (image * darker).astype(np.uint8))
        cv2.imwrite(str(folder / f"depth/{k}.png"), np.round(depth * 5000).astype(np.uint16))
        rows["rgb"].append(f"{k}.5 rgb/{k}.png")
        rows["depth"].append(f"{k}.5 depth/{k}.png")
        rows["groundtruth"].append(f"{k}.5 {pose[0, 3]} {pose[1, 3]} {pose[2, 3]} 0 0 0 1")
    for name, lines in rows.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    camera = {
        "fx": float(K[0, 0]),
        "fy": float(K[1, 1]),
        "cx": float(K[0, 2]),
        "cy": float(K[1, 2]),
        "depth_scale": 5000.0,
    }
    (folder / "camera.yaml").write_text(yaml.safe_dump(camera))
    return folder


@pytest.fixture(scope="module")
def place_packs(tmp_path_factory) -> Path:
    """A folder with a walk under two lights and a pack of drawn photos."""
    folder = tmp_path_factory.mktemp("places")
    walks = [write_walk(folder / "bright"), write_walk(folder / "dim", 0.4)]
    pack_places(walks, folder / "packs" / "wall.npz", "drawn")
    photos = folder / "photos"
    photos.mkdir()
    for seed in range(8):
        cv2.imwrite(str(photos / f"{seed}.png"), drawn_picture(seed))
    pack_places([photos], folder / "packs" / "photos.npz", "drawn")
    return folder / "packs"


def test_overlap_of_a_wall_is_the_share_that_stays_in_view():
    depths = np.full((3, 60, 80), 2.0, np.float32)
    coarse = np.diag([0.25, 0.25, 1.0]) @ K
    poses = np.stack([np.eye(4)] * 3)
    poses[1, 0, 3] = 0.8  # metres sideways: 0.8 * 65 / 2 = 26 of 80 pixels leave the view
    poses[2, :3, :3] = np.diag([-1.0, 1.0, -1.0])  # looks the other way
    found = overlap_matrix(depths, poses, coarse)
    assert found[0, 0] == 100
    assert abs(found[0, 1] - 100 * (1 - 26 / 80)) <= 5  # a column of the grid of points
    assert abs(int(found[0, 1]) - int(found[1, 0])) <= 5
    assert found[0, 2] == found[2, 0] == 0


def test_what_stands_before_a_wall_hides_it():
    coarse = np.diag([0.25, 0.25, 1.0]) @ K
    near = np.full((60, 80), 2.0, np.float32)
    near[:, :40] = 0.5
    depths = np.stack([np.full((60, 80), 2.0, np.float32), near])
    found = overlap_matrix(depths, np.stack([np.eye(4)] * 2), coarse)
    assert found[0, 1] == found[1, 0] == 50


def test_walks_of_several_lights_share_views_and_overlap(place_packs):
    pack = open_place_pack(place_packs / "wall.npz")
    assert len(pack.images) == 24
    assert pack.overlap.shape == (12, 12)
    assert pack.view.tolist() == [*range(12), *range(12)]
    assert pack.images[12:].mean() < 0.5 * pack.images[:12].mean()
    assert pack.time.tolist() == [k + 0.5 for k in range(12)]
    assert 1.5 < pack.reach < 2.0
    assert (pack.relation(30, 5, 45.0) == 1).all()


def test_another_walk_is_not_another_light(tmp_path):
    write_walk(tmp_path / "a")
    write_walk(tmp_path / "b")
    lines = (tmp_path / "b/groundtruth.txt").read_text().splitlines()
    (tmp_path / "b/groundtruth.txt").write_text("\n".join([lines[0].replace(" 0 0 0 1", " 0 0 1 1"), *lines[1:]]))
    with pytest.raises(VslamError, match="not the walk of"):
        pack_places([tmp_path / "a", tmp_path / "b"], tmp_path / "p.npz", "")


def test_video_frames_are_related_by_video_floor_and_area(tmp_path):
    rows = ["path,floor,video,frame,area"]
    for k, (floor, video, frame, area) in enumerate(
        [("f1", "a", 1, "hall"), ("f1", "a", 2, "hall"), ("f1", "a", 9, "hall"), ("f2", "b", 1, "hall"),
         ("f2", "c", 1, "stairs"), ("f3", "d", 1, "roof")]
    ):  # fmt: skip
        cv2.imwrite(str(tmp_path / f"{k}.png"), drawn_picture(k))
        rows.append(f"{k}.png,{floor},{video},{frame},{area}")
    (tmp_path / "index.csv").write_text("\n".join(rows))
    assert pack_places([tmp_path], tmp_path / "p.npz", "", only=("f1", "f2")) == 5
    pack = open_place_pack(tmp_path / "p.npz")
    relation = pack.relation(30, 5, 45.0)
    assert relation[0].tolist() == [1, 1, -1, -1, 0]
    assert pack.overlap[3, 4] == UNKNOWN


def test_bad_lists_of_frames_are_one_line(tmp_path):
    (tmp_path / "index.csv").write_text("path,floor\n")
    with pytest.raises(VslamError, match="has no rows"):
        pack_places([tmp_path], tmp_path / "p.npz", "")
    (tmp_path / "index.csv").write_text("path,floor\na.png,f1\n")
    with pytest.raises(VslamError, match="needs the columns"):
        pack_places([tmp_path], tmp_path / "p.npz", "")
    (tmp_path / "index.csv").write_text("path,floor,video,frame,area\na.png,f1,v,1,a\nb.png,f1,v,2,a\n")
    with pytest.raises(VslamError, match="no frames of floors f9; it has f1"):
        pack_places([tmp_path], tmp_path / "p.npz", "", only=("f9",))
    cv2.imwrite(str(tmp_path / "a.png"), drawn_picture(1))
    cv2.imwrite(str(tmp_path / "b.png"), drawn_picture(1, 320, 180))
    with pytest.raises(VslamError, match="images of different shapes"):
        pack_places([tmp_path], tmp_path / "p.npz", "")


def ring_pack(name: str = "ring", world: str = "w") -> PlacePack:
    """Views from many places, headings all round; their overlaps do not matter here."""
    rng = np.random.default_rng(4)
    poses = np.stack([np.eye(4)] * 300)
    yaw = rng.uniform(-np.pi, np.pi, 300)
    poses[:, :3, 2] = np.stack([np.cos(yaw), np.sin(yaw), np.zeros(300)], 1)
    poses[:, :2, 3] = rng.uniform(-6, 6, (300, 2))
    images = rng.integers(0, 255, (300, 48, 64)).astype(np.uint8)
    return PlacePack(name, world, images, np.arange(300), np.eye(300, dtype=np.uint8) * 100, None, poses, 2.5)


def test_classes_of_a_group_are_apart():
    pack = ring_pack()
    number, group = pack.classes(cell=0.4, heading_deg=45.0)
    yaw = np.arctan2(pack.poses[:, 1, 2], pack.poses[:, 0, 2])
    for i in range(300):
        other = (group == group[i]) & (number != number[i])
        gap = np.abs(pack.poses[other, :2, 3] - pack.poses[i, :2, 3]).max(axis=1)
        turn = np.abs(np.angle(np.exp(1j * (yaw[other] - yaw[i]))))
        assert ((gap >= 1.0 - 1e-9) | (turn >= np.radians(45.0) - 1e-9)).all()  # a cell of 0.4 * 2.5 m lies between
        same = number == number[i]
        assert np.abs(pack.poses[same, :2, 3] - pack.poses[i, :2, 3]).max() <= 1.0
        assert np.abs(np.angle(np.exp(1j * (yaw[same] - yaw[i])))).max() <= np.radians(45.0) + 1e-9


def test_batches_repeat_and_pair_views_of_one_place(place_packs):
    sampler = PlaceSampler(open_place_packs(place_packs), SMALL)
    first, again, other = (sampler.batch(1, step, 6) for step in (5, 5, 6))
    assert np.array_equal(first["images"], again["images"])
    assert not np.array_equal(first["images"], other["images"])
    assert first["images"].shape == (12, 48, 64)
    assert (np.diag(first["relation"]) == 1).all()
    assert (first["relation"][np.arange(0, 12, 2), np.arange(1, 12, 2)] == 1).all()
    assert np.array_equal(first["relation"], first["relation"].T)


def lit_pack(lights: int = 3) -> PlacePack:
    """Five places under several lights; each image is one grey value that names place and light."""
    values = 10 * np.arange(5)[None, :] + 60 * np.arange(lights)[:, None]
    images = np.tile(values.reshape(-1, 1, 1), (1, 48, 64)).astype(np.uint8)
    return PlacePack("lit", "w", images, np.tile(np.arange(5), lights), np.eye(5, dtype=np.uint8) * 100)


@given(st.integers(0, 1000))
@trials(max_examples=20, deadline=None)
def test_the_second_view_of_a_place_can_be_asked_for_in_another_light(seed):
    pack = lit_pack()
    sampler = PlaceSampler([pack], ViewConfig(width=64, height=48, worlds=1, other_light=1.0))
    rng = np.random.default_rng(seed)
    for image in range(15):
        _, partner = sampler._partner((0, image), rng)
        assert pack.view[partner] == pack.view[image]
        assert partner != image  # five images of each light follow each other
    alone = PlaceSampler([lit_pack(lights=1)], ViewConfig(width=64, height=48, worlds=1, other_light=1.0))
    assert alone._partner((0, 3), rng) == (0, 3)


def test_hard_negatives_are_looked_for_under_all_lights():
    sampler = PlaceSampler([lit_pack()], SMALL)
    pool = sampler.draw_pool(1, 0, 200)
    assert pool == [(0, image) for image in range(15)]
    assert [int(sampler.plain(spot, (64, 48))[0, 0]) for spot in pool[4:6]] == [40, 60]
    assert sampler.relate(pool)[0].tolist() == [1, 0, 0, 0, 0] * 3


def test_coarse_views_keep_size_and_light_and_lose_detail():
    image = drawn_picture(1)
    for seed in range(5):
        coarse = coarsen(image, np.random.default_rng(seed))
        assert coarse.shape == image.shape
        assert abs(coarse.mean() - image.mean()) < 2
        assert cv2.Laplacian(coarse, cv2.CV_64F).var() < cv2.Laplacian(image, cv2.CV_64F).var()


def test_what_happens_to_a_coarse_view_happens_to_its_small_picture():
    image, seen = drawn_picture(1), []

    def negative(grey, rng):
        seen.append(grey)
        return 1 - grey

    coarse = coarsen(image, np.random.default_rng(3))
    changed = coarsen(image, np.random.default_rng(3), negative)
    assert seen[0].dtype == np.float32 and seen[0].size < image.size and seen[0].max() <= 1
    assert np.abs(changed.astype(int) + coarse - 255).max() <= 2
    assert changed.shape == image.shape and changed.dtype == np.uint8


def test_season_changes_coarse_views_beyond_a_change_of_light():
    pack = PlacePack("p", "w", drawn_picture(1)[None], np.zeros(1, int), np.full((1, 1), 100, np.uint8))
    dull = LightConfig(0, 0, 0, 0, 0)  # gamma and gain alone: an order of greys that stays
    still = ViewConfig(64, 48, worlds=1, zoom=1.0, angle_deg=0.0, perspective=0.0, coarse=1.0, light=dull)
    order = {}
    for season in (0.0, 1.0):
        sampler = PlaceSampler([pack], replace(still, season=season))
        views = [sampler.view((0, 0), np.random.default_rng(k)) for k in range(20)]
        plain = sampler.plain((0, 0), (64, 48)).ravel()
        order[season] = np.mean([spearmanr(plain, view.ravel()).statistic for view in views])
    assert order[1.0] < order[0.0] - 0.2


def test_packs_are_drawn_by_the_places_they_show():
    photos, walk = np.eye(30, dtype=np.int8), np.ones((30, 30), np.int8)
    assert (places_of(photos), places_of(walk)) == (30, 1)
    views = np.full((30, 48, 64), 99, np.uint8), np.arange(30)
    packs = [PlacePack(name, name, *views, (relation * 100).astype(np.uint8)) for name, relation in
             (("photos", photos), ("walk", walk))]  # fmt: skip
    pool = PlaceSampler(packs, SMALL).draw_pool(1, 0, 60)
    assert {pack for pack, _ in pool} == {0, 1}
    assert sum(pack == 0 for pack, _ in pool) > sum(pack == 1 for pack, _ in pool)


def test_packs_of_one_world_are_not_negatives_of_each_other():
    sampler = PlaceSampler([ring_pack("a", "w"), ring_pack("b", "w"), ring_pack("c", "v")], SMALL)
    relation = sampler.relate([(0, 3), (1, 3), (2, 3), (0, 4)])
    assert relation[0].tolist() == [1, -1, 0, 0]


def test_class_batches_hold_classes_of_one_group():
    sampler = ClassSampler([ring_pack("a"), ring_pack("b", "v")], SMALL, group_steps=2)
    assert len(sampler.counts()) == GROUPS
    drawn = [sampler.batch(1, step, 5) for step in range(4)]
    assert drawn[0]["group"] == drawn[1]["group"]
    for batch in drawn:
        assert batch["labels"].max() < sampler.counts()[int(batch["group"])]
        assert (batch["labels"][::2] == batch["labels"][1::2]).all()


def random_pairs(seed: int, count: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(count, 6, generator=generator), dim=1)
    relation = torch.randint(-1, 2, (count, count), generator=generator)
    relation = torch.maximum(relation, relation.T)
    relation.fill_diagonal_(1)
    return vectors @ vectors.T, relation


@pytest.mark.parametrize("seed", range(5))
def test_multi_similarity_equals_its_definition(seed):
    cosines, relation = random_pairs(seed)
    total, rows = 0.0, 0
    for i in range(10):
        positive = [j for j in range(10) if j != i and relation[i, j] == 1]
        negative = [j for j in range(10) if relation[i, j] == 0]
        if not positive or not negative:
            continue
        kept_positive = [j for j in positive if cosines[i, j] - 0.1 < max(cosines[i, k] for k in negative)]
        kept_negative = [j for j in negative if cosines[i, j] + 0.1 > min(cosines[i, k] for k in positive)]
        if not kept_positive or not kept_negative:
            continue
        pull = np.log(1 + sum(np.exp(-2 * (float(cosines[i, j]) - 0.5)) for j in kept_positive)) / 2
        push = np.log(1 + sum(np.exp(50 * (float(cosines[i, j]) - 0.5)) for j in kept_negative)) / 50
        total, rows = total + pull + push, rows + 1
    expected = total / max(rows, 1)
    assert float(losses.multi_similarity(cosines, relation)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_hard_triplets_equal_their_definition(seed):
    cosines, relation = random_pairs(seed)
    found = []
    for i in range(10):
        positive = [2 - 2 * float(cosines[i, j]) for j in range(10) if j != i and relation[i, j] == 1]
        negative = sorted(2 - 2 * float(cosines[i, j]) for j in range(10) if relation[i, j] == 0)
        if positive:
            found += [max(0.0, min(positive) + 0.1 - n) for n in negative[:3]]
    violated = [value for value in found if value > 0]
    expected = sum(violated) / max(len(violated), 1)
    assert float(losses.hard_triplets(cosines, relation, 0.1, 3)) == pytest.approx(expected, abs=1e-5)


def test_large_margin_cosine_equals_its_definition():
    torch.manual_seed(0)
    loss = losses.LargeMarginCosine([3, 4], 6, scale=30.0, margin=0.4)
    vectors, labels = F.normalize(torch.randn(5, 6), dim=1), torch.tensor([0, 1, 3, 2, 1])
    weight = F.normalize(loss.classifiers[1], dim=1)
    expected = 0.0
    for vector, label in zip(vectors, labels, strict=True):
        logits = 30.0 * (weight @ vector)
        logits[label] -= 30.0 * 0.4
        expected -= logits.detach().log_softmax(0)[label].item() / 5
    assert loss(vectors, labels, 1).item() == pytest.approx(expected, rel=1e-4)


def test_share_of_nearest_that_are_right():
    cosines = torch.tensor([[1.0, 0.9, 0.2], [0.9, 1.0, 0.3], [0.2, 0.3, 1.0]])
    right = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert float(losses.nearest_is_right(cosines, right)) == 1.0
    unknown = torch.tensor([[1, -1, 1], [-1, 1, 0], [1, 0, 1]])
    assert float(losses.nearest_is_right(cosines, unknown)) == 0.5  # the third row's nearest is a wrong one


def test_generalised_mean_is_between_mean_and_maximum():
    x = torch.rand(2, 3, 4, 5) + 0.1
    assert torch.allclose(GeneralisedMean(1.0)(x), x.mean(dim=(2, 3), keepdim=True), atol=1e-6)
    assert torch.allclose(GeneralisedMean(200.0)(x), x.amax(dim=(2, 3), keepdim=True), rtol=0.03)


def test_peaks_are_the_largest_values_where_these_stand_out():
    x = torch.rand(2, 3, 15, 20)
    x[:, :, 4, 5] = torch.tensor([[7.0, 8.0, 9.0], [10.0, 11.0, 12.0]])
    assert torch.allclose(peaks(x), x[:, :, 4, 5], rtol=0.01)
    assert torch.allclose(peaks(x, 1e-6), x.mean(dim=(2, 3)), atol=1e-4)
    assert (peaks(x) <= x.amax(dim=(2, 3)) + 1e-6).all()


def test_vlad_equals_the_sum_over_all_differences():
    torch.manual_seed(1)
    network = NetVlad().eval()
    local = F.normalize(torch.randn(2, network.widths.local, 3, 4), dim=1)
    share = network.assign(local).softmax(dim=1)
    differences = local[:, None] - network.centres[None, :, :, None, None]
    blocks = F.normalize((share[:, :, None] * differences).sum(dim=(3, 4)), dim=2)
    assert torch.allclose(network.vlad(local), F.normalize(blocks.flatten(1), dim=1), atol=1e-5)


def test_whitened_descriptors_have_a_constant_share_of_the_cosine():
    torch.manual_seed(1)
    network = NetVlad().eval()
    network.is_whitened.fill_(1)
    local = F.normalize(torch.randn(5, network.widths.local, 3, 4), dim=1)
    found = network.head(local)
    assert found.shape == (5, network.widths.descriptor)
    white = F.normalize(network.whiten(network.vlad(local)[:, :, None, None])[:, :, 0, 0], dim=1)
    assert torch.allclose(found @ found.T, 0.5 + 0.5 * white @ white.T, atol=1e-5)


def test_cosines_of_gem_are_those_of_its_parts():
    torch.manual_seed(1)
    network = build_place_network("gem").eval()
    network.is_whitened.fill_(1)
    images = torch.rand(3, 1, 96, 128)
    with torch.no_grad():
        found = network(images)
        local = network.local(images)
        parts = [network.head(local), F.normalize(peaks(local), dim=1)]
        whole = torch.cat(parts, dim=1) / 2**0.5
        white = F.normalize(network.whiten(whole[:, :, None, None])[:, :, 0, 0], dim=1)
        layout, share = network.layout(images), 0.01 + 0.49 * lack_of_detail(images)
        both, rest = (share @ share.T).sqrt(), ((1 - share) @ (1 - share).T).sqrt()
    sides = rest * (white @ white.T) + both * (layout @ layout.T)
    assert found.shape == (3, network.width) == (3, 384)
    assert torch.allclose(found @ found.T, 0.5 + 0.5 * sides, atol=1e-5)


def test_gem_before_whitening_is_means_and_peaks_of_which_a_single_thing_moves_the_peaks():
    torch.manual_seed(1)
    network = build_place_network("gem").eval()
    local = torch.rand(1, network.widths.pooled, 15, 20)
    other = local.clone()
    other[:, ::2, 7, 9] = 3.0  # one cell of 300
    with torch.no_grad():
        first, second = network.means_and_peaks(local), network.means_and_peaks(other)
    assert torch.allclose(first.norm(dim=1), torch.ones(1))
    split = network.widths.descriptor
    mean, peak = (2 * float(first[0, part] @ second[0, part]) for part in (slice(split), slice(split, None)))
    assert mean > 0.95 > peak


def test_enlarged_thumbnails_lack_detail_and_pictures_do_not():
    picture = drawn_picture(3, 320, 240)
    enlarged = cv2.resize(cv2.resize(picture, (64, 48), interpolation=cv2.INTER_AREA), (320, 240))
    sharp, coarse = (float(lack_of_detail(torch.from_numpy(as_input(image)))) for image in (picture, enlarged))
    assert sharp < 0.2
    assert coarse > 0.7


def test_layout_sees_past_gain_and_offset_and_tells_the_mirror_image():
    torch.manual_seed(2)
    layout = Layout(16).eval()
    image = torch.from_numpy(as_input(drawn_picture(4, 320, 240)))
    with torch.no_grad():
        views = (image, image * 0.5 + 0.2, image.flip(3))
        one, dim, mirrored = (layout.features(layout.shrink(each)) for each in views)
    assert F.cosine_similarity(one, dim) > 0.99
    assert F.cosine_similarity(one, mirrored) < 0.5


def test_slopes_add_up_to_nothing_on_an_even_surface():
    kernels = slope_kernels()
    assert torch.allclose(kernels.sum(dim=(2, 3)), torch.zeros(4, 1), atol=1e-6)
    assert torch.allclose(kernels.abs().sum(dim=(2, 3)), torch.ones(4, 1), atol=1e-6)


def test_discriminant_takes_what_differs_and_leaves_what_the_season_changes():
    rng = np.random.default_rng(5)
    truth = rng.normal(size=(4000, 6)) * [1, 3, 3, 0.1, 0.1, 0.1]
    first, second = (truth + rng.normal(size=truth.shape) * [9, 0.5, 0.5, 0.5, 0.5, 0.5] + 7 for _ in range(2))
    mean, matrix = discriminant(first, second, 2)
    assert np.abs(mean - 7).max() < 0.5
    rows = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    assert np.linalg.norm(rows[:, 1:3], axis=1).min() > 0.95  # not the first, which varies most, by the season


@given(seed=st.integers(0, 2**32 - 1), picture=st.integers(0, 20))
@trials(max_examples=40, deadline=None)
def test_seasons_keep_size_and_range(seed, picture):
    grey = cv2.resize(drawn_picture(picture), (64, 48)).astype(np.float32) / 255
    changed, again = (change_season(grey, np.random.default_rng(seed)) for _ in range(2))
    assert changed.shape == grey.shape
    assert changed.dtype == np.float32
    assert changed.min() >= 0 and changed.max() <= 1
    assert np.array_equal(changed, again)


def test_second_window_is_the_first_one_a_little_off():
    image = cv2.GaussianBlur(drawn_picture(6), (0, 0), 20)
    for seed in range(5):
        first, second = two_windows(image, np.random.default_rng(seed))
        assert first.shape == second.shape == Layout.SIZE
        assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.7


def test_k_means_finds_separate_clusters():
    rng = np.random.default_rng(2)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = np.concatenate([c + rng.normal(0, 0.1, (50, 2)) for c in centres])
    found = k_means(points, 3, np.random.default_rng(0))
    assert np.linalg.norm(found[:, None] - centres[None], axis=2).min(axis=0).max() < 0.1


def test_whitened_vectors_are_uncorrelated():
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(2000, 8)) @ rng.normal(size=(8, 8)) + 5.0
    mean, matrix = whitening(vectors, 5)
    white = (vectors - mean) @ matrix.T
    covariance = np.cov(white.T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-9
    assert (np.diag(covariance) <= 1 + 1e-9).all() and np.diag(covariance)[0] > 0.99
    _, softer = whitening(vectors, 5, 0.2)
    spread = np.var((vectors - mean) @ softer.T, axis=0)
    whole = np.sort(np.linalg.eigvalsh(np.cov(vectors.T)))[::-1][:5]
    assert np.allclose(spread, whole * (whole + 1e-3 * whole[0]) ** -0.4, rtol=1e-2)
    _, flat = whitening(vectors[:3], 5)  # three vectors span a plane
    assert (flat[2:] == 0).all()


def test_recognition_counts_only_what_may_be_looked_at():
    likeness = np.array([[0.9, 0.8, 0.1], [0.2, 0.7, 0.6], [0.3, 0.2, 0.4]])
    relation = np.array([[-1, 1, 0], [0, 0, 1], [0, 0, 0]])
    found = recognition(likeness, relation)
    assert found.queries == 2  # the third has no answer
    assert found.recall == 0.5
    assert found.recall_sure == 0.5  # taken by likeness: right (0.8), wrong (0.7)


def test_precision_recall_of_a_known_order():
    auc, sure = precision_recall(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]), 4)
    assert sure == 0.5
    assert auc == pytest.approx(0.5 * 1.0 + 0.25 * (2 / 3 + 3 / 4) / 2)
    assert precision_recall(np.array([0.9]), np.array([False]), 1) == (0.0, 0.0)
    assert precision_recall(np.array([0.9, 0.8]), np.array([True, True]), 2) == (1.0, 1.0)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_descriptors_have_unit_length_and_any_size(name):
    network = build_place_network(name).eval()
    for shape in ((48, 64), (144, 192)):
        with torch.no_grad():
            places = network(torch.rand(2, 1, *shape))
        assert torch.allclose(places.norm(dim=1), torch.ones(2), atol=1e-4)


def config_for(name: str, packs: Path, **settings) -> PlaceTrainConfig:
    small = {"steps": 4, "batch": 4, "views": SMALL, "image_size": (64, 48), "layout_pairs": 200}
    return PlaceTrainConfig(name, str(packs), **small | settings)


@pytest.mark.parametrize(("name", "settings"), [
    ("gem", {}), ("cosplace", {"group_steps": 1}), ("netvlad", {"mine_every": 3, "mine_pool": 12, "mine_nearest": 3}),
])  # fmt: skip
def test_interrupted_run_ends_with_the_same_weights(place_packs, tmp_path, name, settings):
    class Stop(Exception):
        pass

    config = config_for(name, place_packs, **settings)
    whole = train_places(config, tmp_path / "whole", quiet=True)

    import vslam.train.run as run

    steps = []

    def stop(self, progress):
        steps.append(progress.step)
        if progress.step == 2:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Journal, "step", stop)
        with pytest.raises(Stop):
            train_places(config, tmp_path / "cut", quiet=True)
    resumed = train_places(config, tmp_path / "cut", quiet=True)
    assert resumed.step == whole.step == 4
    for key, value in whole.averaged.state_dict().items():
        torch.testing.assert_close(resumed.averaged.state_dict()[key], value, rtol=0, atol=0, msg=key)
    network, step = load_place_network(tmp_path / "cut", name)
    assert step == 4
    export_place(network, tmp_path / "n.onnx")


def test_backbone_of_another_place_network_can_be_the_start(place_packs, tmp_path):
    gem = train_places(config_for("gem", place_packs), tmp_path / "gem", quiet=True)
    config = PlaceTrainConfig("netvlad", str(place_packs), steps=0, batch=4, views=SMALL)
    started = train_places(config, tmp_path / "netvlad", True, tmp_path / "gem")
    expected = gem.averaged.network.backbone.state_dict()
    for key, value in started.averaged.network.backbone.state_dict().items():
        assert torch.equal(value, expected[key])
    assert started.averaged.network.is_whitened


def test_netvlad_begun_from_netvlad_keeps_its_clusters(place_packs, tmp_path):
    first = train_places(config_for("netvlad", place_packs), tmp_path / "a", quiet=True).averaged.network
    config = PlaceTrainConfig("netvlad", str(place_packs), steps=0, batch=4, views=SMALL, image_size=(64, 48))
    trainer = train_places(config, tmp_path / "b", True, tmp_path / "a")
    assert torch.equal(trainer.averaged.network.centres, first.centres)
    assert trainer.averaged.network.is_whitened and not trainer.model.network.is_whitened


def test_trunk_at_rate_zero_stays_as_it_is(place_packs, tmp_path):
    start = train_places(config_for("gem", place_packs), tmp_path / "start", quiet=True).averaged.state_dict()
    config = config_for("gem", place_packs, trunk_rate=0.0)
    trained = train_places(config, tmp_path / "run", True, tmp_path / "start").model
    kept = trained.network.backbone.at8.state_dict()
    assert all(torch.equal(value, start[f"network.backbone.at8.{key}"]) for key, value in kept.items())
    assert not torch.equal(trained.network.linear.weight, start["network.linear.weight"])


def test_classes_begin_at_their_views(place_packs, tmp_path):
    config = PlaceTrainConfig("cosplace", str(place_packs), steps=0, batch=4, views=SMALL)
    trainer = train_places(config, tmp_path, quiet=True)
    for group, weight in enumerate(trainer.model.classifier.classifiers):
        for label, spots in enumerate(trainer.sampler.first_members(group)):
            images = [trainer.sampler.plain(spot, (64, 48)) for spot in spots]
            places = by_network(trainer.model.network, torch.device("cpu"))(images)
            np.testing.assert_allclose(weight[label].detach().numpy(), places.sum(axis=0), atol=1e-5)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_exported_places_equal_pytorch_on_every_back_end(name, tmp_path):
    torch.manual_seed(0)
    network = build_place_network(name).train()
    with torch.no_grad():
        network(torch.rand(4, 1, 64, 64))
    network.eval()
    if name != "cosplace":
        network.is_whitened.fill_(1)
    export_place(network, tmp_path / "n.onnx")
    images = np.concatenate([as_input(drawn_picture(seed)[:144, :192]) for seed in (1, 2)])
    with torch.no_grad():
        expected = fold_norms(network)(torch.from_numpy(images)).numpy()
    for backend, package in MODULES.items():
        pytest.importorskip(package)
        session = open_session(tmp_path / "n.onnx", backend)
        assert session.outputs == ("place",)
        np.testing.assert_allclose(session.run(images)["place"], expected, atol=1e-2)
        np.testing.assert_allclose(session.run(images[:1])["place"], expected[:1], atol=1e-2)


def test_checkpoint_of_another_version_is_one_line(tmp_path):
    averaged = {f"network.{key}": value for key, value in build_place_network("gem").state_dict().items()}
    del averaged["network.layout.project.bias"]
    torch.save({"network": "gem", "model": {}, "averaged": averaged, "step": 7}, tmp_path / "c.pt")
    with pytest.raises(VslamError, match="another version of 'gem'"):
        load_place_network(tmp_path / "c.pt", "gem")


def test_netvlad_of_an_unfinished_run_is_not_exported(tmp_path):
    network = build_place_network("netvlad")
    averaged = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"network": "netvlad", "model": {}, "averaged": averaged, "step": 7}, tmp_path / "c.pt")
    with pytest.raises(VslamError, match="has no whitening yet"):
        load_place_network(tmp_path / "c.pt", "netvlad")
    with pytest.raises(VslamError, match="holds network 'netvlad', not 'gem'"):
        load_place_network(tmp_path / "c.pt", "gem")


def test_scores_of_a_pack_are_named_by_light(place_packs):
    network = build_place_network("gem").eval()
    found = score_pack(by_network(network, torch.device("cpu")), open_place_pack(place_packs / "wall.npz"), (64, 48))
    assert set(found) == {"light 0", "light 1", "light 0 in 1", "light 1 in 0"}
    relit = score_pack(by_network(network, torch.device("cpu")), open_place_pack(place_packs / "photos.npz"), (64, 48))
    assert set(relit) == {"relit"}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_shipped_settings_are_of_their_network(name):
    assert load_place_config(f"train-{name}").network == name


def test_command_trains_and_refuses_another_networks_settings(place_packs, tmp_path, capsys):
    settings = tmp_path / "s.yaml"
    settings.write_text("network: gem\nbatch: 2\nlayout_pairs: 200\nviews: {width: 64, height: 48}\n")
    words = ["--config", str(settings), "--packs", str(place_packs), "--steps", "1", "--quiet", "--out", str(tmp_path)]
    assert cli_train.run(parse(cli_train, "gem", *words)) == 0
    assert "vslam export gem" in capsys.readouterr().out
    with pytest.raises(VslamError, match="is for network 'gem', not 'netvlad'"):
        cli_train.run(parse(cli_train, "netvlad", *words))


def test_pack_command_packs_photos(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/a.png"), drawn_picture(1))
    words = ["pack-places", str(tmp_path / "p.npz"), str(tmp_path / "photos"), "--world", "home"]
    assert cli_train.run(parse(cli_train, *words)) == 0
    assert "p.npz: 1 images" in capsys.readouterr().out
    assert open_place_pack(tmp_path / "p.npz").world == "home"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image_size": (320,)}, "image_size"),
        ({"batch": 0}, "batch: 0"),
        ({"views": ViewConfig(width=100)}, "views.width"),
    ],
)
def test_impossible_settings_are_one_line(place_packs, tmp_path, settings, said):
    with pytest.raises(VslamError, match=said):
        train_places(PlaceTrainConfig("gem", str(place_packs), **settings), tmp_path, quiet=True)


WORKER = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from vslam.train.places.settings import PlaceTrainConfig, ViewConfig
from vslam.train.places.training import train_places
out, views = Path(sys.argv[2]), ViewConfig(width=64, height=48, worlds=2)
small = dict(steps=3, batch=4, views=views, image_size=(64, 48), layout_pairs=200, group_steps=1)
t = train_places(PlaceTrainConfig(sys.argv[3], sys.argv[1], **small), out, quiet=True)
torch.save(torch.cat([p.detach().flatten() for p in t.model.parameters()]), out / f"weights{t.rank}.pt")
"""


@pytest.mark.parametrize("name", ["gem", "cosplace"])
def test_two_processes_end_with_the_same_weights(place_packs, tmp_path, name):
    run_two(WORKER, place_packs, tmp_path, name, timeout_s=300)
    assert torch.equal(torch.load(tmp_path / "weights0.pt"), torch.load(tmp_path / "weights1.pt"))
    assert load_place_network(tmp_path, name)[1] == 3


def test_bad_packs_are_one_line(tmp_path):
    with pytest.raises(VslamError, match="no place packs"):
        open_place_packs(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(VslamError, match="not a place pack"):
        open_place_packs(tmp_path)
    np.savez(
        tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8), view=np.array([0, 2]), overlap=np.eye(2), world="w"
    )
    with pytest.raises(VslamError, match="do not fit together"):
        open_place_packs(tmp_path)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_export_command_writes_places(place_packs, tmp_path, precision):
    train_places(config_for("gem", place_packs), tmp_path / "run", quiet=True)
    out = tmp_path / "gem.onnx"
    lines = list(export("gem", tmp_path / "run", out, "onnx", precision, place_packs.parent / "photos"))
    assert str(out) in lines[-1]
    assert ("cosine between" in lines[0]) == (precision == "int8")
    assert open_session(out, "onnx").run(np.zeros((1, 1, 48, 64), np.float32))["place"].shape == (1, 384)


def test_pooled_recall_counts_queries_not_sets():
    scores = {
        "a": Recognition(3, 1.0, 1.0, 1.0),
        "b": Recognition(1, 0.0, 0.0, 0.0),
        "none": Recognition(0, *[np.nan] * 3),
    }
    assert pooled_recall(scores | {"mean": mean_scores(list(scores.values()))}) == 0.75
    assert mean_scores(list(scores.values())) == Recognition(4, 0.5, 0.5, 0.5)


def test_published_network_has_card_and_manifest_entry(place_packs, tmp_path):
    train_places(config_for("gem", place_packs), tmp_path / "run", quiet=True)
    facts = {"data": "drawn", "command": "vslam train gem", "hours": "none", "machine": "any", "notes": "A note."}
    card = publish(
        "gem",
        tmp_path / "run",
        place_packs,
        place_packs,
        tmp_path / "weights",
        facts,
        (64, 48),
        drawn_picture(1, 640, 480),
    )
    assert card.startswith("# gem") and "4 steps" in card and "wall light 0 in 1" in card and "A note." in card
    model = read_manifest(tmp_path / "weights/manifest.json")["gem"]
    assert model.metrics["image_size"] == [64, 48] and model.metrics["width"] == 384
    for precision in ("fp32", "int8"):
        assert open_session(model.file(precision), "onnx").run(np.zeros((1, 1, 48, 64), np.float32))["place"].shape
