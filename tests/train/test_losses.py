"""Losses against written-out twins."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vslam.train import losses
from vslam.train.data.pairs import cell_targets


def unit_rows(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return F.normalize(torch.from_numpy(rng.standard_normal(shape).astype(np.float32)), dim=-1)


def naive_dual_softmax(a, b, points_a, points_b, valid, scale) -> float:
    """One pair; plain loops over rows and columns."""
    terms = []
    for i in np.flatnonzero(valid):
        for query, others, places in ((a[i], b, points_b), (b[i], a, points_a)):
            logits = {}
            for j in np.flatnonzero(valid):
                if j == i or np.linalg.norm(places[j] - places[i]) > 8.0:
                    logits[j] = scale * float(query @ others[j])
            terms.append(np.log(sum(np.exp(v) for v in logits.values())) - logits[i])
    return float(np.mean(terms))


def test_dual_softmax_equals_naive():
    rng = np.random.default_rng(0)
    a, b = unit_rows(rng, 1, 30, 8), unit_rows(rng, 1, 30, 8)
    points = torch.from_numpy(rng.uniform(0, 60, (2, 1, 30, 2)).astype(np.float32))
    valid = torch.from_numpy(rng.random((1, 30)) < 0.8)
    blocked = [losses.blocked_pairs(points[k], valid) for k in (0, 1)]
    loss, _ = losses.dual_softmax(a, b, torch.tensor(5.0), *blocked, valid)
    expected = naive_dual_softmax(a[0].numpy(), b[0].numpy(), points[0, 0].numpy(), points[1, 0].numpy(), valid[0], 5.0)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_hardest_triplet_equals_naive():
    rng = np.random.default_rng(2)
    a, b = unit_rows(rng, 1, 25, 8), unit_rows(rng, 1, 25, 8)
    points = torch.from_numpy(rng.uniform(0, 60, (2, 1, 25, 2)).astype(np.float32))
    valid = torch.from_numpy(rng.random((1, 25)) < 0.8)
    blocked = [losses.blocked_pairs(points[k], valid) for k in (0, 1)]
    found = losses.hardest_triplet(a @ b.transpose(1, 2), *blocked, valid, margin=0.5)
    terms = []
    for i in np.flatnonzero(valid[0]):
        for query, others, places in ((a[0, i], b[0], points[1, 0]), (b[0, i], a[0], points[0, 0])):
            far = [j for j in np.flatnonzero(valid[0]) if float((places[j] - places[i]).norm()) > 8]
            nearest = min(float(((query - others[j]) ** 2).sum()) for j in far)
            terms.append(max(0.0, float(((query - others[i]) ** 2).sum()) - nearest + 0.5))
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-4)


def test_equal_descriptors_lose_less_than_shuffled_ones():
    a = unit_rows(np.random.default_rng(1), 1, 40, 16)
    points = torch.arange(40.0)[None, :, None] * torch.tensor([20.0, 0.0])
    valid = torch.ones(1, 40, dtype=torch.bool)
    blocked = losses.blocked_pairs(points, valid)
    same, _ = losses.dual_softmax(a, a, torch.tensor(20.0), blocked, blocked, valid)
    shuffled, _ = losses.dual_softmax(a, a.roll(1, dims=1), torch.tensor(20.0), blocked, blocked, valid)
    assert float(same) < 0.5 < float(shuffled)


def test_sampled_map_obeys_the_half_pixel_rule():
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    centres = torch.tensor([[[8 * 2 + 3.5, 8 * 1 + 3.5], [8 * 1 + 7.5, 8 * 0 + 3.5]]])
    assert losses.sample_map(maps, centres)[0, :, 0].tolist() == pytest.approx([6.0, 1.5])


def test_cell_loss_is_least_at_its_target():
    target = torch.from_numpy(cell_targets(np.array([[10.0, 12.0], [40.3, 20.8]]), (64, 48)))[None].float()
    mask = torch.ones(1, 6, 8, dtype=torch.bool)
    exact = losses.cell_cross_entropy(target.clamp(min=1e-9).log(), target, mask)
    entropy = -(target * target.clamp(min=1e-9).log()).sum(dim=1).mean()
    assert float(exact) == pytest.approx(float(entropy), abs=1e-4)
    assert float(losses.cell_cross_entropy(torch.zeros_like(target), target, mask)) > float(exact)


def test_masked_cells_do_not_count():
    semi = torch.randn(1, 65, 2, 2)
    target = torch.zeros(1, 65, 2, 2)
    target[:, 64] = 1
    mask = torch.tensor([[[True, False], [False, False]]])
    loss = losses.cell_cross_entropy(semi, target, mask)
    assert float(loss) == pytest.approx(float(-semi.log_softmax(dim=1)[0, 64, 0, 0]), rel=1e-5)


def test_sign_passes_gradients_only_inside_one():
    values = torch.tensor([-2.0, -0.5, 0.5, 2.0], requires_grad=True)
    signs = losses.straight_through_sign(values)
    signs.sum().backward()
    assert signs.tolist() == [-1, -1, 1, 1]
    assert values.grad.tolist() == [0, 1, 1, 0]


def test_balanced_bits_cost_nothing():
    values = torch.tensor([[[3.0, 3.0], [-3.0, 3.0]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert float(losses.bit_balance(values, valid)) == pytest.approx(float(torch.tensor(3.0).tanh() ** 2), rel=1e-5)


def test_reliability_is_one_for_right_mutual_matches():
    logits = torch.tensor([[[5.0, 0, 0], [0, 0, 4.0], [0, 3.0, 0]]])
    apart = torch.tensor([[[0.0, 0], [50, 0], [100, 0]]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    assert losses.reliability_targets(logits, apart, apart, valid).tolist() == [[1, 0, 0]]
    near = torch.tensor([[[0.0, 0], [50, 0], [52, 0]]])
    assert losses.reliability_targets(logits, near, near, valid).tolist() == [[1, 1, 1]]


def test_places_are_found_below_a_pixel():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    logits = -((x - 12.3) ** 2 + (y - 20.6) ** 2) / (2 * 0.6**2)
    refined, spread = losses.patch_offsets(logits[None], torch.tensor([[[12.0, 21.0]]]))
    assert refined[0, 0].tolist() == pytest.approx([12.3, 20.6], abs=0.02)
    assert float(spread) == pytest.approx(2 * 0.36, abs=0.05)


def test_pixel_probabilities_and_none_sum_to_one():
    semi = torch.randn(2, 65, 3, 4)
    pixels = losses.pixel_log_probability(semi).exp()
    cells = pixels.view(2, 3, 8, 4, 8).sum(dim=(2, 4)) + semi.softmax(dim=1)[:, 64]
    assert torch.allclose(cells, torch.ones_like(cells), atol=1e-5)


def naive_dense_hinge(a, b, there, masks, positive=250.0) -> tuple[float, float]:
    """One pair of maps (D, h, w); plain loops over pairs of cells."""
    _, rows, columns = a.shape
    cells = [(y, x) for y in range(rows) for x in range(columns)]
    pulled, pushed, count = 0.0, 0.0, 0
    for i, (y, x) in enumerate(cells):
        for v, u in cells:
            if not masks[0][y, x] or not masks[1][v, u] or np.isnan(there[i]).any():
                continue
            count += 1
            cosine = float(a[:, y, x] @ b[:, v, u])
            if np.hypot(there[i][0] - (8 * u + 3.5), there[i][1] - (8 * v + 3.5)) <= 8:
                pulled += positive * max(0.0, 1.0 - cosine)
            else:
                pushed += max(0.0, cosine - 0.2)
    return pulled / count, pushed / count


def test_dense_hinge_equals_naive():
    rng = np.random.default_rng(5)
    a, b = (unit_rows(rng, 1, 4, 5, 6).permute(0, 3, 1, 2).contiguous() for _ in range(2))
    masks = torch.from_numpy(rng.random((2, 1, 4, 5)) < 0.8)
    there = losses.cell_centres(4, 5)[None] + torch.from_numpy(rng.uniform(-9, 9, (1, 20, 2)).astype(np.float32))
    there[0, ::7] = torch.nan
    found = losses.dense_hinge(a, b, there, masks)
    expected = naive_dense_hinge(a[0], b[0], there[0].numpy(), masks[:, 0].numpy())
    assert [float(v) for v in found] == pytest.approx(expected, rel=1e-4)


def test_dense_hinge_tells_right_pairs_from_wrong_ones():
    """Twelve cells with descriptors at right angles to each other, the same in both views."""
    maps = torch.eye(12).view(1, 12, 3, 4)
    centres, masks = losses.cell_centres(3, 4)[None], torch.ones(2, 1, 3, 4, dtype=torch.bool)
    right, wrong = losses.dense_hinge(maps, maps, centres, masks, positive=1.0)
    neighbours = 2 * (3 * 3 + 2 * 4)  # cells side by side are 8 px apart: right, too, and not alike
    assert (float(right), float(wrong)) == pytest.approx((neighbours / 144, 0.0), rel=1e-5)
    right, wrong = losses.dense_hinge(maps, maps, centres + 1000.0, masks)  # all has left: nothing is right
    assert (float(right), float(wrong)) == pytest.approx((0.0, 12 * (1 - 0.2) / 144), rel=1e-5)


def test_cell_centres_lie_in_the_middle_of_their_pixels():
    centres = losses.cell_centres(2, 3)
    assert centres.tolist() == [[3.5, 3.5], [11.5, 3.5], [19.5, 3.5], [3.5, 11.5], [11.5, 11.5], [19.5, 11.5]]


def naive_sparse_hinge(cosines, blocked, valid, column) -> tuple[float, float]:
    """One pair; `column` (P, others) the drawn columns."""
    pulled = [max(0.0, 1.0 - cosines[i, i]) for i in np.flatnonzero(valid)]
    pushed = []
    for i in np.flatnonzero(valid):
        for j in column[i]:
            if j != i and not blocked[i, j]:
                pushed.append(max(0.0, cosines[i, j] - 0.2))
    hard = sum(value > 0 for value in pushed)
    return float(np.mean(pulled)), sum(pushed) / (hard + 1)


def test_sparse_hinge_equals_naive():
    rng = np.random.default_rng(6)
    a, b = unit_rows(rng, 1, 30, 4), unit_rows(rng, 1, 30, 4)
    points = torch.from_numpy(rng.uniform(0, 60, (1, 30, 2)).astype(np.float32))
    valid = torch.from_numpy(rng.random((1, 30)) < 0.8)
    blocked = losses.blocked_pairs(points, valid)
    cosines = a @ b.transpose(1, 2)
    found = losses.sparse_hinge(cosines, blocked, valid, seed=11, others=9)
    column = torch.randint(30, (1, 30, 9), generator=torch.Generator().manual_seed(11))
    expected = naive_sparse_hinge(cosines[0].numpy(), blocked[0].numpy(), valid[0].numpy(), column[0].numpy())
    assert [float(v) for v in found] == pytest.approx(expected, rel=1e-4)
    again = losses.sparse_hinge(cosines, blocked, valid, seed=11, others=9)
    assert [float(v) for v in found] == [float(v) for v in again]
