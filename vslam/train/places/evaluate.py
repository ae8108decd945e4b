"""Place recognition on packs that training never saw: is the most alike earlier view one of the same place?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vslam.features.learned import as_input
from vslam.inference.session import Session
from vslam.places.descriptor import fit
from vslam.train.data.light import relight
from vslam.train.places.packs import PlacePack

AWAY_SECONDS = 10.0
"""Views of a walk nearer in time than this are not asked for: they look alike in any case."""

SAME_PERCENT, APART_PERCENT, TURN_DEG = 30, 5, 45.0
"""What counts as the same place and as another one, as in training."""

CHUNK = 32


@dataclass(frozen=True)
class Recognition:
    """`recall`: share of queries that have an answer and whose best match is right (Recall@1). `auc`: area under
    precision and recall over all queries, those without an answer too. `recall_sure`: share of the answers found
    before the first wrong one when matches are taken by likeness (recall at 100 % precision)."""

    queries: int
    recall: float
    auc: float
    recall_sure: float


Describe = Callable[[list[np.ndarray]], np.ndarray]
"""Descriptors (N, D) float32 of uint8 images (H, W) of one size."""


def describe_images(network: nn.Module, images: list[np.ndarray], device: torch.device) -> np.ndarray:
    """Descriptors of images by a network in PyTorch, which is left in evaluation mode."""
    network.eval()
    found = []
    with torch.no_grad():
        for k in range(0, len(images), CHUNK):
            batch = torch.from_numpy(np.stack(images[k : k + CHUNK]))[:, None].float() / 255
            found.append(network(batch.to(device).contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    return np.concatenate(found)


def by_network(network: nn.Module, device: torch.device) -> Describe:
    """A function that describes images by a network."""
    return lambda images: describe_images(network, images, device)


def by_session(session: Session) -> Describe:
    """A function that describes images by an exported network, one by one."""
    return lambda images: np.concatenate([session.run(as_input(image))["place"].copy() for image in images])


def score_packs(describe: Describe, packs: list[PlacePack], box: tuple[int, int]) -> dict[str, Recognition]:
    """Scores of each pack in each way, and their `mean`."""
    found = {}
    for pack in packs:
        found |= {f"{pack.name} {kind}": s for kind, s in score_pack(describe, pack, box).items()}
    found["mean"] = mean_scores(list(found.values()))
    return found


def mean_scores(scores: list[Recognition]) -> Recognition:
    """Plain means over sets, however large; those without an answer to any query are left out."""
    asked = [s for s in scores if s.queries]
    if not asked:
        return Recognition(0, *[float("nan")] * 3)
    means = [float(np.mean([getattr(s, key) for s in asked])) for key in ("recall", "auc", "recall_sure")]
    return Recognition(sum(s.queries for s in scores), *means)


def score_pack(describe: Describe, pack: PlacePack, box: tuple[int, int]) -> dict[str, Recognition]:
    """Scores under the same light and, where a pack has several, under another one.

    Of a walk: views at least ten seconds apart. Of videos and photos: `relit`, each image once more under drawn light.
    """
    fitted = [fit(image, box) for image in pack.images]
    places = describe(fitted)
    relation = pack.relation(SAME_PERCENT, APART_PERCENT, TURN_DEG)
    views = len(relation)
    if pack.time is None:
        rng = np.random.default_rng(11)
        again = describe([relight(image, rng) for image in fitted])
        answers = relation.copy()
        np.fill_diagonal(answers, -1)
        return {"relit": recognition(again @ places.T, answers)}
    lights = places.reshape(-1, views, places.shape[1])  # a pack holds the walk once for each light
    return score_lights([[a @ b.T for b in lights] for a in lights], pack.time, relation)


def score_lights(likeness: list[list[np.ndarray]], time: np.ndarray, relation: np.ndarray) -> dict[str, Recognition]:
    """Scores of a walk from the likeness (V, V) of views under light a (queries) and light b, `likeness[a][b]`."""
    gap = time[:, None] - time[None]
    found = {}
    for a, row in enumerate(likeness):
        for b, values in enumerate(row):
            if a == b:
                found[f"light {a}"] = recognition(values, np.where(gap > AWAY_SECONDS, relation, -1))
            else:
                found[f"light {a} in {b}"] = recognition(values, np.where(np.abs(gap) > AWAY_SECONDS, relation, -1))
    return found


def recognition(likeness: np.ndarray, relation: np.ndarray) -> Recognition:
    """Scores of queries (rows) against views (columns): relation 1 right, 0 wrong, -1 not to be looked at."""
    usable = (relation >= 0).any(axis=1)
    likeness = np.where(relation >= 0, likeness, -2.0)[usable]
    relation = relation[usable]
    best = likeness.argmax(axis=1)
    right = relation[np.arange(len(best)), best] == 1
    answerable = (relation == 1).any(axis=1)
    recall = float(right[answerable].mean()) if answerable.any() else float("nan")
    auc, sure = precision_recall(likeness.max(axis=1), right, int(answerable.sum()))
    return Recognition(int(answerable.sum()), recall, auc, sure)


def precision_recall(score: np.ndarray, right: np.ndarray, answers: int) -> tuple[float, float]:
    """Area under precision over recall (trapezium, from recall 0 with the first precision), and the largest recall
    without a wrong match, when matches are accepted by falling score. Recall counts against `answers`."""
    if not answers:
        return float("nan"), float("nan")
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(right[order])
    precision, recall = hits / np.arange(1, len(order) + 1), hits / answers
    auc = np.trapezoid(np.append(precision[:1], precision), np.append(0.0, recall))
    wrong = np.flatnonzero(~right[order])
    sure = recall[wrong[0] - 1] if len(wrong) and wrong[0] else (0.0 if len(wrong) else recall[-1])
    return float(auc), float(sure)
