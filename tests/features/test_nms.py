"""Kernels that decode score maps, against slow twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vslam.features import maps, nms

BLOB = maps.Search(0.1, radius=4, border=2)


def random_map(seed: int, shape: tuple[int, int] = (24, 30)) -> np.ndarray:
    """Few levels in one half of the cases, so that ties abound."""
    rng = np.random.default_rng(seed)
    values = rng.random(shape).astype(np.float32)
    return np.round(values * 4) / np.float32(4) if seed % 2 else values


def naive_peaks(score: np.ndarray, threshold: float, border: int) -> set[tuple[int, int]]:
    found = set()
    border = max(border, 1)
    for y in range(border, score.shape[0] - border):
        for x in range(border, score.shape[1] - border):
            before = [score[y - 1, x - 1], score[y - 1, x], score[y - 1, x + 1], score[y, x - 1]]
            after = [score[y, x + 1], score[y + 1, x - 1], score[y + 1, x], score[y + 1, x + 1]]
            if score[y, x] > threshold and max(before) < score[y, x] >= max(after):
                found.add((y, x))
    return found


def naive_greedy(points: list[tuple[int, int]], radius: int) -> list[tuple[int, int]]:
    kept: list[tuple[int, int]] = []
    for point in points:
        if all(max(abs(point[0] - q[0]), abs(point[1] - q[1])) > radius for q in kept):
            kept.append(point)
    return kept


def naive_sample(described: np.ndarray, stride: int, x: float, y: float) -> np.ndarray:
    height, width, _ = described.shape
    u = np.clip((x - (stride - 1) / 2) / stride, 0, width - 1)
    v = np.clip((y - (stride - 1) / 2) / stride, 0, height - 1)
    x0, y0 = min(int(u), width - 2), min(int(v), height - 2)
    top = described[y0, x0] * (1 - (u - x0)) + described[y0, x0 + 1] * (u - x0)
    low = described[y0 + 1, x0] * (1 - (u - x0)) + described[y0 + 1, x0 + 1] * (u - x0)
    return top * (1 - (v - y0)) + low * (v - y0)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), border=st.integers(0, 5))
def test_peaks_equal_naive(seed, border):
    score = random_map(seed)
    rows, columns = np.empty(score.size, np.int32), np.empty(score.size, np.int32)
    values = np.empty(score.size, np.float32)
    count = nms.find_peaks(score, np.float32(0.3), border, rows, columns, values)
    found = set(zip(rows[:count].tolist(), columns[:count].tolist(), strict=True))
    assert len(found) == count
    assert found == naive_peaks(score, 0.3, border)
    assert np.array_equal(values[:count], score[rows[:count], columns[:count]])


def test_peaks_stop_when_buffers_are_full():
    rows, columns, values = np.empty(3, np.int32), np.empty(3, np.int32), np.empty(3, np.float32)
    assert nms.find_peaks(random_map(2), np.float32(0.0), 0, rows, columns, values) == 3


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), radius=st.integers(1, 5))
def test_suppression_equals_naive(seed, radius):
    rng = np.random.default_rng(seed)
    points = [(int(y), int(x)) for y, x in rng.integers(0, (24, 30), (60, 2))]
    rows, columns = np.array(points, np.int32).T.copy()
    kept, taken = np.empty(60, np.int32), np.zeros((24, 30), np.uint8)
    count = nms.suppress(rows, columns, np.arange(60, dtype=np.int32), radius, taken, kept)
    assert [points[i] for i in kept[:count]] == naive_greedy(points, radius)


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.3, -0.2), (-0.45, 0.4)])
def test_refined_place_follows_a_blob(dx, dy):
    y, x = np.mgrid[:20, :20].astype(np.float32)
    blob = np.exp(-((x - 9 - dx) ** 2 + (y - 11 - dy) ** 2) / (2 * 0.7**2)).astype(np.float32)
    xy, score, sigma = maps.find_keypoints(blob, BLOB, maps.Workspace())
    # a window of +-2.5 px cuts off at most exp(-(2.05 / 0.7)^2 / 2) = 1.4 % of the blob, 2 px away: 0.03 px
    np.testing.assert_allclose(xy, [[9 + dx, 11 + dy]], atol=0.03)
    np.testing.assert_allclose(sigma, maps.FLAT[0] + maps.FLAT[1] * 0.49, atol=maps.FLAT[1] * 0.06)
    assert score[0] > 0.65


def naive_sharpen(response: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, float]:
    height, width = response.shape
    x, y = np.clip(np.floor(place + 0.5).astype(int), 2, [width - 3, height - 3])
    nine = [(y, x)] + [(v, u) for v in (y - 1, y, y + 1) for u in (x - 1, x, x + 1)]
    y, x = max(nine, key=lambda pixel: response[pixel])  # the first of equals
    v, u = (t.ravel() for t in np.mgrid[-1:2, -1:2].astype(float))
    terms = np.stack([u * u, v * v, u * v, u, v, np.ones(9)], axis=1)
    patch = response[y - 1 : y + 2, x - 1 : x + 2].ravel().astype(float)
    a, b, c, d, e, _ = np.linalg.lstsq(terms, patch, rcond=None)[0]
    hessian = np.array([[2 * a, c], [c, 2 * b]])
    step = np.zeros(2)
    if a < 0 and np.linalg.det(hessian) > 0:
        step = np.clip(-np.linalg.solve(hessian, [d, e]), -1, 1)
    peak = np.array([x, y]) + step
    return (place + peak) / 2, float(np.linalg.norm(peak - place))


@settings(max_examples=25)
@given(seed=st.integers(0, 1000))
def test_sharpened_places_equal_naive(seed):
    rng = np.random.default_rng(seed)
    response = random_map(2 * seed)
    places = rng.uniform((0, 0), (29, 23), (40, 2)).astype(np.float32)
    expected = [naive_sharpen(response, place) for place in places.astype(float)]
    found, steps = places.copy(), np.empty(40, np.float32)
    nms.sharpen(response, found, steps)
    np.testing.assert_allclose(found, [place for place, _ in expected], atol=1e-3)
    np.testing.assert_allclose(steps, [step for _, step in expected], atol=2e-3)


def test_places_move_half_way_to_a_corner_and_trust_it_where_both_agree():
    y, x = np.mgrid[:20, :20].astype(np.float32)
    corners = 9 - (x - 9.3) ** 2 - (y - 10.6) ** 2
    blob = np.exp(-((x - 9) ** 2 + (y - 11) ** 2) / 0.98).astype(np.float32)
    near, _, sigma = maps.find_keypoints(blob, BLOB, maps.Workspace(), corners)
    np.testing.assert_allclose(near, [[9.15, 10.8]], atol=0.02)
    exact, _, less = maps.find_keypoints(blob, BLOB, maps.Workspace(), 9 - (x - 9) ** 2 - (y - 11) ** 2)
    np.testing.assert_allclose(exact, [[9, 11]], atol=0.03)
    assert less[0] < sigma[0]


def test_keypoints_come_best_first_and_apart():
    xy, score, _ = maps.find_keypoints(random_map(4, (60, 80)), maps.Search(0.2), maps.Workspace())
    assert len(xy) > 20
    assert (np.diff(score) <= 0).all()
    apart = np.abs(np.round(xy)[:, None] - np.round(xy)[None]).max(axis=2) + 99 * np.eye(len(xy))
    assert apart.min() >= 1  # whole pixels are 4 apart; refinement moves each by less than 2


@pytest.mark.parametrize("at_least", [0, 10, 60, 10_000])
def test_weak_keypoints_fill_up_and_leave_the_strong_ones_as_they_are(at_least):
    score = random_map(4, (60, 80))
    weak, strong = (maps.find_keypoints(score, maps.Search(t), maps.Workspace()) for t in (0.7, 0.98))
    assert 10 < len(strong[0]) < 60 < len(weak[0])
    found = maps.find_keypoints(score, maps.Search(0.98, 0.7, at_least), maps.Workspace())
    wanted = min(max(len(strong[0]), at_least), len(weak[0]))
    for values, all_values in zip(found, weak, strict=True):
        np.testing.assert_array_equal(values, all_values[:wanted])


@pytest.mark.parametrize("weigh", [True, False])
def test_outputs_of_a_padded_image_give_keypoints_of_the_image_alone(weigh):
    rng = np.random.default_rng(3)
    score, corners = rng.random((2, 1, 48, 64), np.float32)
    outputs = {"score": score, "corners": corners, "reliability": rng.random((1, 6, 8), np.float32)}
    search = maps.Search(0.5)
    xy, value, sigma = maps.find_in_outputs(outputs, (41, 50), search, maps.Workspace(), weigh)
    expected = maps.find_keypoints(score[0, :41, :50].copy(), search, maps.Workspace(), corners[0, :41, :50])
    np.testing.assert_array_equal(xy, expected[0])
    np.testing.assert_array_equal(sigma, expected[2])
    chance = maps.weigh_by_reliability(np.ones(len(xy), np.float32), xy, outputs["reliability"][0], 8)
    np.testing.assert_array_equal(value, expected[1] * (chance if weigh else np.float32(1)))


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), stride=st.sampled_from([8, 16]))
def test_sampled_descriptors_equal_naive(seed, stride):
    rng = np.random.default_rng(seed)
    described = rng.standard_normal((5, 7, 64)).astype(np.float32)
    xy = rng.uniform((0, 0), (7 * stride - 1, 5 * stride - 1), (30, 2)).astype(np.float32)
    expected = np.array([naive_sample(described, stride, x, y) for x, y in xy])
    unit = maps.describe(described, stride, xy, binary=False)
    np.testing.assert_allclose(unit, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    bits = np.unpackbits(maps.describe(described, stride, xy, binary=True), axis=1)
    clear = np.abs(expected) > 1e-5  # rounding decides the rest
    assert np.array_equal(bits[clear], (expected > 0)[clear])


def test_cell_centres_are_sampled_exactly():
    described = np.random.default_rng(1).standard_normal((4, 6, 32)).astype(np.float32)
    unit = maps.describe(described, 8, np.array([[8 * 2 + 3.5, 8 * 1 + 3.5]], np.float32), binary=False)
    np.testing.assert_allclose(unit[0], described[1, 2] / np.linalg.norm(described[1, 2]), atol=1e-6)


def test_one_cell_map_is_sampled_everywhere():
    described = np.ones((1, 1, 8), np.float32)
    assert maps.describe(described, 16, np.array([[3.0, 9.0]], np.float32), binary=True).tolist() == [[255]]


def test_reliability_weighs_the_cell_of_a_keypoint():
    reliability = np.arange(6, dtype=np.float32).reshape(2, 3)
    xy = np.array([[0.0, 0.0], [7.6, 0.0], [23.0, 15.0]], np.float32)
    weighed = maps.weigh_by_reliability(np.ones(3, np.float32), xy, reliability, 8)
    assert weighed.tolist() == [0.0, 1.0, 5.0]


@pytest.mark.parametrize("shape", [(3, 3), (5, 4), (9, 17), (12, 40)])
@pytest.mark.parametrize("border", [0, 1, 4])
def test_peaks_of_small_and_odd_maps_equal_naive(shape, border):
    """Widths about the eight that are read at a time; values with many ties."""
    score = np.random.default_rng(shape[1] + border).integers(0, 5, shape).astype(np.float32)
    rows, columns = (np.empty(score.size, np.int32) for _ in range(2))
    values = np.empty(score.size, np.float32)
    count = nms.find_peaks(score, np.float32(0.5), border, rows, columns, values)
    b, expected = max(border, 1), []
    for y in range(b, shape[0] - b):
        for x in range(b, shape[1] - b):
            value = score[y, x]
            before = [score[y - 1, x - 1], score[y - 1, x], score[y - 1, x + 1], score[y, x - 1]]
            after = [score[y, x + 1], score[y + 1, x - 1], score[y + 1, x], score[y + 1, x + 1]]
            if value > 0.5 and max(before) < value and max(after) <= value:
                expected.append((y, x))
    assert list(zip(rows[:count].tolist(), columns[:count].tolist(), strict=True)) == expected


def test_scores_are_weighed_by_the_cell_they_lie_in():
    rng = np.random.default_rng(2)
    weights = rng.random((5, 7), dtype=np.float32)
    xy = rng.uniform(-3, (58, 42), (200, 2)).astype(np.float32)
    xy[:4] = [[7.5, 0], [7.4, 0], [55.5, 39.5], [-0.6, -0.6]]
    score = rng.random(200, dtype=np.float32)
    out = np.empty(200, np.float32)
    nms.weigh(score, xy, weights, 8, out)
    for i, (x, y) in enumerate(xy):
        column = min(max(int((x + np.float32(0.5)) / np.float32(8)), 0), 6)
        row = min(max(int((y + np.float32(0.5)) / np.float32(8)), 0), 4)
        assert out[i] == score[i] * weights[row, column]
