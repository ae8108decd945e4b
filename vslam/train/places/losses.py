"""Losses of place networks on a batch whose pairs are related: 1 = same place, 0 = another one, -1 = unknown."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FAR = -1e4


def multi_similarity(
    cosines: Tensor, relation: Tensor, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, slack: float = 0.1
) -> Tensor:
    """Multi-similarity loss (Wang et al. 2019) of cosines (B, B); `relation` (B, B), its diagonal is not looked at.

    Only pairs that violate the order by `slack` count: positives less alike than the most alike negative, and
    negatives more alike than the least alike positive. Rows without either are left out.
    """
    itself = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    positive, negative = (relation == 1) & ~itself, relation == 0
    hardest_negative = cosines.masked_fill(~negative, FAR).amax(dim=1, keepdim=True)
    hardest_positive = cosines.masked_fill(~positive, -FAR).amin(dim=1, keepdim=True)
    kept_positive = positive & (cosines - slack < hardest_negative)
    kept_negative = negative & (cosines + slack > hardest_positive)
    pull = _log_one_plus_sum(-alpha * (cosines - base), kept_positive) / alpha
    push = _log_one_plus_sum(beta * (cosines - base), kept_negative) / beta
    valid = kept_positive.any(dim=1) & kept_negative.any(dim=1)
    return ((pull + push) * valid).sum() / valid.sum().clamp(min=1)


def _log_one_plus_sum(exponents: Tensor, kept: Tensor) -> Tensor:
    """`log(1 + sum exp)` over the kept entries of each row."""
    rows = exponents.masked_fill(~kept, FAR)
    return torch.cat([torch.zeros_like(rows[:, :1]), rows], dim=1).logsumexp(dim=1)


def hard_triplets(cosines: Tensor, relation: Tensor, margin: float = 0.1, negatives: int = 5) -> Tensor:
    """Triplet loss on squared distances: the most alike positive against the `negatives` most alike other places.

    The mean is over triplets that violate the margin (Arandjelovic et al. 2016 sum them).
    """
    distance = 2 - 2 * cosines
    itself = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    positive, negative = (relation == 1) & ~itself, relation == 0
    best = distance.masked_fill(~positive, -FAR).amin(dim=1)
    count = min(negatives, len(cosines))
    worst = distance.masked_fill(~negative, -FAR).topk(count, dim=1, largest=False).values
    usable = (worst < -FAR) & positive.any(dim=1, keepdim=True)
    violation = F.relu(best[:, None] + margin - worst) * usable
    return violation.sum() / (violation > 0).sum().clamp(min=1)


class LargeMarginCosine(nn.Module):
    """Cross-entropy over classes on `scale * (cos - margin)` (CosFace, Wang et al. 2018), a classifier a group."""

    def __init__(self, classes: list[int], width: int, scale: float, margin: float):
        super().__init__()
        self.scale, self.margin = scale, margin
        self.classifiers = nn.ParameterList([nn.Parameter(0.1 * torch.randn(max(n, 1), width)) for n in classes])

    def forward(self, descriptors: Tensor, labels: Tensor, group: int) -> Tensor:
        """Loss of unit descriptors (B, D) with classes (B,) of one group."""
        cosines = descriptors @ F.normalize(self.classifiers[group], dim=1).T
        wanted = F.one_hot(labels, cosines.shape[1]).to(cosines.dtype)
        return F.cross_entropy(self.scale * (cosines - self.margin * wanted), labels)


def nearest_is_right(cosines: Tensor, relation: Tensor) -> Tensor:
    """Share of rows with a positive whose most alike other row, unknown pairs left out, is a positive."""
    with torch.no_grad():
        itself = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
        nearest = cosines.masked_fill(itself | (relation < 0), FAR).argmax(dim=1)
        asked = ((relation == 1) & ~itself).any(dim=1)
        right = relation.gather(1, nearest[:, None])[:, 0] == 1
        return (right & asked).sum() / asked.sum().clamp(min=1)
