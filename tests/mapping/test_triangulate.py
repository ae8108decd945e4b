"""What two keyframes see without depth becomes points, where geometry and looks allow."""

from dataclasses import replace

import numpy as np
import pytest

from tests import naive
from tests.mapping.map_of_points import Made
from tests.mapping.test_map import check_books
from tests.world import CAMERA, ByNumber, Points, request, scatter, see
from vslam.geometry import se3
from vslam.mapping.map import Map
from vslam.mapping.triangulate import fundamental, search_epipolar, triangulate, triangulate_around
from vslam.matching.distance import searchable

ASIDE = np.array([0.25, 0.05, 0.02, 0.01, -0.04, 0.02])  # 2 to 10 degrees of parallax in `scatter`


class Scaled(ByNumber):
    scale_pyramid = True


def make(keyframes=2, noise_px=0.0, step=ASIDE, world: Points | None = None, change=lambda k, frame: frame) -> Made:
    """A map whose even points have depth and are known; the odd ones are seen without depth."""
    world = scatter(800) if world is None else world
    made = Made(Map(), world, np.empty((0, 4, 4)), np.full(len(world), -1), [], [])
    for k in range(keyframes):
        T_cw = se3.exp(step * k)
        frame, shown = see(world, T_cw, k / 10, np.broadcast_to(noise_px, keyframes)[k], k)
        even = shown % 2 == 0
        frame = change(k, replace(frame, disparity=np.where(even, frame.disparity, 0).astype(np.float32)))
        T_frame_reference = T_cw @ se3.inverse(made.T_cw[k - 1]) if k else T_cw
        slot = made.map.insert(request(frame, k - 1, T_frame_reference, made.row[shown]), len(world))
        new = np.flatnonzero(even & (made.row[shown] < 0))
        made.row[shown[new]] = made.map.add_points(slot, new, world.xyz[shown[new]])
        made.T_cw = np.concatenate([made.T_cw, T_cw[None]])
        made.frames.append(frame), made.shown.append(shown)
    return made


def run(made: Made, extractor=ByNumber, neighbours=(0,)) -> np.ndarray:
    """Triangulate around the newest keyframe; (K, 2) numbers and rows of the points made."""
    slots = np.array([made.slot(k) for k in neighbours])
    before = made.map.points.alive.copy()
    slot = made.slot(len(made.T_cw) - 1)
    count = triangulate_around(made.map, slot, slots, CAMERA, extractor())
    check_books(made.map)
    seen = made.map.keyframes.point[slot, : len(made.shown[-1])]
    new = np.flatnonzero((seen >= 0) & (before[seen] == 0))
    assert len(new) == count
    return np.stack([made.shown[-1][new], seen[new]], axis=1)


def common(made: Made, min_degrees=3.0) -> np.ndarray:
    """Odd points in view of the first and the last keyframe under enough parallax."""
    both = np.intersect1d(made.shown[0], made.shown[-1])
    centre = se3.inverse(made.T_cw)[[0, -1], :3, 3]
    rays = made.points.xyz[both] - centre[:, None]
    cosine = (rays[0] * rays[1]).sum(1) / np.linalg.norm(rays, axis=2).prod(0)
    return both[(both % 2 == 1) & (np.degrees(np.arccos(cosine)) > min_degrees)]


def test_all_that_both_see_without_depth_is_made_where_it_is():
    made = make()
    numbers, rows = run(made).T
    wanted = common(made)
    assert set(numbers) == set(wanted) and len(wanted) > 100
    # float32 pixels are exact to 2^-16; in depth, at 4 m under 3 degrees, that is 4 / (262 sin 3) = 0.3 times as much,
    # and the bound is for both of two pixels in both of two directions at once
    assert np.linalg.norm(made.map.points.xyz[rows] - made.points.xyz[numbers], axis=1).max() < 0.3 * 4 * 2.0**-16
    assert run(made).shape == (0, 2)  # nothing is left


@pytest.mark.parametrize("noise", [(0.1, 0.1), (0.2, 0.02), (0.02, 0.2)])
def test_errors_are_those_of_the_pixels(noise):
    def change(k, frame):  # sigmas far above the noise: no gate takes part, their proportion does
        return replace(frame, features=replace(frame.features, sigma=frame.features.sigma * np.float32(10 * noise[k])))

    made = make(noise_px=noise, change=change)
    numbers, rows = run(made).T
    error = made.map.points.xyz[rows] - made.points.xyz[numbers]
    information = np.zeros((len(numbers), 3, 3))
    for k, T_cw in enumerate(made.T_cw):
        x, y, z = (made.points.xyz[numbers] @ T_cw[:3, :3].T + T_cw[:3, 3]).T
        zero = np.zeros_like(z)
        rows_uv = np.array([[CAMERA.fx / z, zero, -CAMERA.fx * x / z**2], [zero, CAMERA.fy / z, -CAMERA.fy * y / z**2]])
        J = rows_uv.transpose(2, 0, 1) @ T_cw[:3, :3] / noise[k]
        information += J.transpose(0, 2, 1) @ J
    chi2 = np.einsum("ni,nij,nj->n", error, information, error)  # 3 degrees of freedom: mean 3, variance 6
    assert abs(chi2.mean() - 3.0) < 4.0 * np.sqrt(6.0 / len(chi2))


def test_the_gate_passes_95_percent_of_pixels_as_noisy_as_their_sigma():
    step = ASIDE * (3, 3, 3, 1, 1, 1)  # wide: no other gate takes part
    made = make(noise_px=1.0, step=step, world=scatter(3000))
    wanted = common(made, 5.0)
    share = np.isin(wanted, run(made)[:, 0]).mean()
    assert abs(share - 0.95) < 4.0 * np.sqrt(0.95 * 0.05 / len(wanted))


def test_unlike_features_make_nothing():
    other = scatter(800, 9).descriptors
    made = make(change=lambda k, frame: replace(frame, words=searchable(other[: len(frame)])) if k else frame)
    assert not len(run(made))


def test_turning_on_the_spot_makes_nothing():
    assert not len(run(make(step=np.array([0, 0, 0, 0.02, 0.1, 0.05]))))


def test_points_under_less_than_three_degrees_are_left():
    made = make(step=np.array([0.15, 0, 0, 0, 0, 0]))  # 2.1 to 5.7 degrees
    numbers = run(made)[:, 0]
    assert set(numbers) == set(common(made)) and 10 < len(numbers) < 0.9 * len(common(made, 0.0))


@pytest.mark.parametrize(("share", "some"), [(0.0475, False), (0.0525, True)])
def test_a_neighbour_too_near_for_the_scene_is_left_out(share, some):
    world = scatter(800)
    world.xyz[1::2] *= 0.3  # near enough for their own parallax
    inside = make(1, world=world).shown[0]
    depth = np.median(world.xyz[inside[inside % 2 == 0], 2])
    made = make(step=np.array([share * depth, 0, 0, 0, 0, 0]), world=world)
    assert (len(run(made)) > 0) == some


def test_without_known_points_nothing_is_made():
    made = make(change=lambda k, frame: replace(frame, disparity=0 * frame.disparity))
    made.map.keyframes.point[made.slot(1)] = -1
    assert triangulate_around(made.map, made.slot(1), np.array([made.slot(0)]), CAMERA, ByNumber()) == 0


@pytest.mark.parametrize(
    ("extractor", "factor", "some"),
    [(Scaled, 1.3, True), (Scaled, 2, False), (Scaled, 0.5, False), (ByNumber, 2, True)],
)
def test_keypoints_of_unlike_size_make_nothing_if_sizes_mean_anything(extractor, factor, some):
    def change(k, frame):
        return replace(frame, features=replace(frame.features, sigma=frame.features.sigma * factor**k))

    made = make(change=change)
    assert len(run(made, extractor)) == (len(common(made)) if some else 0)


def test_each_point_is_seen_by_the_two_at_features_that_show_it():
    made = make(4, step=ASIDE / 2)
    known = made.map.point_count
    pairs = run(made, neighbours=(0, 1, 2, 3))  # 3 is the keyframe itself
    sights = naive.observations(made.map)
    assert len(set(pairs[:, 0])) == len(pairs) == made.map.point_count - known > 100
    for number, row in pairs:
        at = [(int(made.map.keyframes.id[slot]), feature) for slot, feature in sights[row]]
        assert len(at) == 2 and 3 in dict(at)
        assert all(made.shown[k][feature] == number and not made.frames[k].disparity[feature] for k, feature in at)
    assert (made.map.points.born[pairs[:, 1]] == 3).all()


def test_rays_that_meet_behind_the_cameras_make_nothing():
    T_ba = se3.exp(2 * ASIDE)  # over 3 degrees for all
    for side, good in ((1, True), (-1, False)):
        xyz = side * scatter(50).xyz
        xy_a, xy_b = (CAMERA.project(p).astype(np.float32) for p in (xyz, xyz @ T_ba[:3, :3].T + T_ba[:3, 3]))
        match, out, sigma = np.arange(50, dtype=np.int32), np.empty((50, 3)), np.ones(50, np.float32)
        triangulate(fundamental(T_ba, CAMERA), T_ba, CAMERA.pinhole, xy_a, sigma, xy_b, sigma, match, out)
        assert ((match >= 0) == good).all()


def naive_search(F, a, b, limit, ratio) -> np.ndarray:
    """Every feature against every other; `a`, `b` are (xy, sigma, descriptors)."""
    far = naive.distances(a[2], b[2])
    wishes = {}  # feature of b: (distance, feature of a)
    for i in range(len(far)):
        candidates = []
        for j in range(far.shape[1]):
            x_a, x_b = np.append(a[0][i], 1.0), np.append(b[0][j], 1.0)
            variance = a[1][i] ** 2 * ((F.T @ x_b)[:2] ** 2).sum() + b[1][j] ** 2 * ((F @ x_a)[:2] ** 2).sum()
            if (x_b @ F @ x_a) ** 2 / variance < 3.841:
                candidates.append((far[i, j], j))
        candidates.sort()
        if candidates and candidates[0][0] < limit:
            if len(candidates) > 1 and candidates[0][0] > ratio * candidates[1][0]:
                continue
            best, j = candidates[0]
            wishes[j] = min(wishes.get(j, (best, i)), (best, i))
    match = np.full(len(far), -1)
    for j, (_, i) in wishes.items():
        match[i] = j
    return match


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("binary", [True, False])
def test_search_is_that_of_the_twin(seed, binary):
    rng = np.random.default_rng(seed)
    n, kinds = 150, 12  # few kinds, so that ratio and rivalry have work to do

    def side(pool):
        noisy = pool[rng.integers(0, kinds, n)]
        if binary:
            noisy = noisy ^ np.packbits(rng.random((n, 256)) < rng.uniform(0, 0.15, (n, 1)), axis=1)
        else:
            noisy = noisy + rng.uniform(0, 0.4, (n, 1)) * rng.normal(size=noisy.shape)
            noisy = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
        xy = rng.uniform(0, (CAMERA.width, CAMERA.height), (n, 2)).astype(np.float32)
        return xy, rng.uniform(1, 6, n).astype(np.float32), noisy

    pool = rng.integers(0, 256, (kinds, 32), np.uint8) if binary else rng.normal(size=(kinds, 32))
    a, b = side(pool), side(pool)
    F = fundamental(se3.exp(rng.normal(size=6) * 0.2), CAMERA)
    limit, match, scratch = (60.0 if binary else 1.2), np.empty(n, np.int32), np.empty(n, np.float32)
    words = searchable(a[2]), searchable(b[2])
    search_epipolar(F, *a[:2], words[0], *b[:2], words[1], np.float32(limit), np.float32(0.9), match, scratch)
    expected = naive_search(F, a, b, limit, 0.9)
    assert np.array_equal(match, expected) and 5 < (match >= 0).sum() < 0.9 * n
