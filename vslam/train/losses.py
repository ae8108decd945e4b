"""Losses on pairs of views. Points are pixels (x, y); maps are at 1/8 with cell centres at `8 i + 3.5`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CELL = 8
FAR = -1e4
"""A logit that counts as minus infinity and stays finite in half precision."""


def sample_map(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values (N, P, C) of maps (N, C, h, w) at 1/8 resolution at pixels (N, P, 2)."""
    size = torch.tensor([maps.shape[3], maps.shape[2]], dtype=points.dtype, device=points.device) * CELL
    grid = (points + 0.5) / size * 2 - 1  # the half-pixel rule, as align_corners=False counts
    sampled = F.grid_sample(maps, grid[:, None], mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[:, :, 0].transpose(1, 2)


def cell_cross_entropy(semi: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of logits (N, 65, h, w) and target distributions, averaged over valid cells (N, h, w)."""
    loss = -(targets * semi.log_softmax(dim=1)).sum(dim=1)
    return (loss * masks).sum() / masks.sum().clamp(min=1)


def blocked_pairs(points: Tensor, valid: Tensor, radius: float = 8.0) -> Tensor:
    """Which columns j (N, P, P) must not serve row i as negatives: invalid ones, and others nearer than `radius`."""
    near = torch.cdist(points, points) <= radius
    near = near & ~torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
    return near | ~valid[:, None, :]


def dual_softmax(
    a: Tensor, b: Tensor, scale: Tensor, blocked_a: Tensor, blocked_b: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Mutual cross-entropy of descriptors (N, P, D) whose row i of `a` belongs to row i of `b`.

    Returns the loss and the logits (N, P, P). Rows and columns are softmaxed apart (as in XFeat and DeDoDe).
    """
    logits = scale * a @ b.transpose(1, 2)
    forth = logits.masked_fill(blocked_b, FAR).log_softmax(dim=2).diagonal(dim1=1, dim2=2)
    back = logits.transpose(1, 2).masked_fill(blocked_a, FAR).log_softmax(dim=2).diagonal(dim1=1, dim2=2)
    return -((forth + back) * valid).sum() / (2 * valid.sum().clamp(min=1)), logits


def hardest_triplet(
    cosines: Tensor, blocked_a: Tensor, blocked_b: Tensor, valid: Tensor, margin: float = 1.0
) -> Tensor:
    """GCNv2's loss: a point's mate nearer, by `margin`, than the nearest of all points more than 8 px from the mate.

    `cosines` (N, P, P) of unit descriptors, row i's mate is column i; distances are squared, 2 - 2 cos; both ways.
    """
    distance = 2 - 2 * cosines
    right = distance.diagonal(dim1=1, dim2=2)
    itself = torch.eye(cosines.shape[1], dtype=torch.bool, device=cosines.device)
    nearest_b = distance.masked_fill(blocked_b | itself, -FAR).amin(dim=2)
    nearest_a = distance.transpose(1, 2).masked_fill(blocked_a | itself, -FAR).amin(dim=2)
    each = F.relu(right - nearest_b + margin) + F.relu(right - nearest_a + margin)
    return (each * valid).sum() / (2 * valid.sum().clamp(min=1))


def dense_hinge(
    a: Tensor,
    b: Tensor,
    there: Tensor,
    masks: Tensor,
    margins: tuple[float, float] = (1.0, 0.2),
    positive: float = 250.0,
) -> tuple[Tensor, Tensor]:
    """SuperPoint's descriptor loss over all pairs of cells: its part of right pairs, and of wrong ones.

    Unit maps `a`, `b` (N, D, h, w); `there` (N, h * w, 2) pixels of the second view in which the centre of each cell of
    the first lies, NaN where nobody knows; `masks` (2, N, h, w) cells that show something. A pair of cells is right
    when `there` is within 8 px of the other's centre. Pairs with a masked or unknown cell do not count. Right pairs
    are weighted by `positive`: there are few of them (DeTone et al. 2018, equations 4 to 6).
    """
    known = masks[0].flatten(1) & there.isfinite().all(dim=2)
    centres = cell_centres(*a.shape[2:], device=a.device)
    apart = torch.cdist(torch.nan_to_num(there, nan=FAR), centres.expand(len(a), -1, -1))
    cosines = a.flatten(2).transpose(1, 2) @ b.flatten(2)
    right = apart <= CELL
    counts = (known[:, :, None] & masks[1].flatten(1)[:, None, :]).to(cosines.dtype)
    total = counts.sum().clamp(min=1)
    pulled = positive * F.relu(margins[0] - cosines) * right * counts
    pushed = F.relu(cosines - margins[1]) * ~right * counts
    return pulled.sum() / total, pushed.sum() / total


def cell_centres(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """Pixels (rows * columns, 2) of the centres of cells, row after row."""
    y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1) * float(CELL) + (CELL - 1) / 2


def sparse_hinge(
    cosines: Tensor,
    blocked: Tensor,
    valid: Tensor,
    seed: int,
    others: int = 100,
    margins: tuple[float, float] = (1.0, 0.2),
) -> tuple[Tensor, Tensor]:
    """The hinge loss of known points only: its part of right pairs, and of wrong ones.

    `cosines` (N, P, P) of unit descriptors, row i's mate is column i. Each point is held against `others` columns drawn
    from `seed`, less those `blocked`; the wrong ones are averaged over those inside the margin (and 1), as in the
    sparse loss of the PyTorch re-implementation by Jau et al. (2020).
    """
    count = cosines.shape[1]
    draw = torch.Generator().manual_seed(seed)
    column = torch.randint(count, (*cosines.shape[:2], others), generator=draw).to(cosines.device)
    itself = column == torch.arange(count, device=cosines.device)[:, None]
    counts = ~(blocked.gather(2, column) | itself) & valid[..., None]
    pushed = F.relu(cosines.gather(2, column) - margins[1]) * counts
    pulled = F.relu(margins[0] - cosines.diagonal(dim1=1, dim2=2)) * valid
    return pulled.sum() / valid.sum().clamp(min=1), pushed.sum() / ((pushed > 0).sum() + 1)


def straight_through_sign(values: Tensor) -> Tensor:
    """Sign (+-1) whose gradient is passed where |value| <= 1 (Courbariaux et al. 2016)."""
    clipped = values.clamp(-1, 1)
    return clipped + (torch.where(values > 0, 1.0, -1.0) - clipped).detach()


def bit_balance(values: Tensor, valid: Tensor) -> Tensor:
    """Sum over bits of the squared mean of tanh (0 when every bit is one half of the time); values (N, P, D)."""
    weights = valid[..., None].to(values.dtype)
    mean = (values.tanh() * weights).sum(dim=(0, 1)) / weights.sum().clamp(min=1)
    return mean.square().sum()


def reliability_targets(
    logits: Tensor, points_a: Tensor, points_b: Tensor, valid: Tensor, within: float = 4.0
) -> Tensor:
    """1 where a point's best match in both directions lies within `within` px of the truth, else 0; (N, P)."""
    with torch.no_grad():
        hidden = logits.masked_fill(~valid[:, None, :], FAR).masked_fill(~valid[:, :, None], FAR)
        best_b, best_a = hidden.argmax(dim=2), hidden.argmax(dim=1)
        right_b = (_take(points_b, best_b) - points_b).norm(dim=2) <= within
        right_a = (_take(points_a, best_a) - points_a).norm(dim=2) <= within
        return (right_a & right_b).to(logits.dtype)


def _take(points: Tensor, index: Tensor) -> Tensor:
    return points.gather(1, index[..., None].expand(-1, -1, 2))


def patch_offsets(logits: Tensor, points: Tensor, radius: int = 2) -> tuple[Tensor, Tensor]:
    """Soft-argmax in the patch about each pixel: expected place (N, P, 2) in pixels, and its spread in px^2 (N, P).

    `logits` (N, H, W) are logarithms of the keypoint probability (see `pixel_log_probability`).
    """
    height, width = logits.shape[1:]
    steps = torch.arange(-radius, radius + 1, device=points.device)
    dy, dx = (step.flatten() for step in torch.meshgrid(steps, steps, indexing="ij"))
    whole = points.round().long()
    x = (whole[..., :1] + dx).clamp(0, width - 1)
    y = (whole[..., 1:] + dy).clamp(0, height - 1)
    values = logits.flatten(1).gather(1, (y * width + x).flatten(1)).view(*x.shape)
    weights = values.softmax(dim=2)
    mean_x, mean_y = (weights * x).sum(dim=2), (weights * y).sum(dim=2)
    spread = (weights * ((x - mean_x[..., None]) ** 2 + (y - mean_y[..., None]) ** 2)).sum(dim=2)
    return torch.stack([mean_x, mean_y], dim=2), spread


def pixel_log_probability(semi: Tensor) -> Tensor:
    """Log of the keypoint probability of each pixel (N, H, W) from logits (N, 65, h, w)."""
    return F.pixel_shuffle(semi.log_softmax(dim=1)[:, :-1], CELL).squeeze(1)


def place_loss(log_probability: Tensor, points: Tensor, chosen: Tensor, within: float = 3.0) -> Tensor:
    """Mean L1 distance in px of refined keypoints from their true places (N, P, 2), plus half their spread.

    The spread keeps the peaks narrow (the 'peaky' loss of ALIKE, Zhao et al. 2022, with the truth as its centre).
    """
    refined, spread = patch_offsets(log_probability, points)
    distance = (refined - points).abs().sum(dim=2).clamp(max=within)
    return ((distance + 0.5 * spread) * chosen).sum() / chosen.sum().clamp(min=1)
