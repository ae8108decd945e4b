"""Which loss makes the better descriptor: `python -m benchmarks.ablation --packs DIR --test DIR [--out DIR]`.

Every arm trains the trunk and one descriptor head from nothing, on the same pairs, steps and seed; nothing else of the
network. Scored on pairs from other packs: known points in both views, each point's nearest neighbour among those of
the other view is right within 4 px. Bits are taken after bilinear sampling of the values (as the extractor does), and
before it (the signs of the map are sampled). An arm that is done is read from its file, one that was interrupted goes
on. One core.

| arm | head | loss |
|---|---|---|
| hinge dense | float, 64 | SuperPoint's, over all pairs of cells |
| hinge sparse | float, 64 | the same margins over known points |
| dual softmax | float, 64 | dual softmax, learned scale |
| A | bits, 256 | triplet on unit floats, margin 1, signs at the end |
| C | bits, 256 | triplet on straight-through signs / 16, margin 1 |
| D | bits, 256 | dual softmax on unit floats, signs at the end |
| E | bits, 256 | dual softmax on straight-through signs / 16 |
| F | bits, 256 | D + 0.5 E |
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from vslam.train import losses
from vslam.train.data.pack import open_packs
from vslam.train.data.pairs import PairConfig, PairSampler
from vslam.train.evaluate import mutual_nearest
from vslam.train.loop import Trainer
from vslam.train.networks.light import LightNet, normalise
from vslam.train.run import make_sampler
from vslam.train.settings import LossWeights, TrainConfig

NONE = LossWeights(**dict.fromkeys(vars(LossWeights()), 0.0))
ARMS = {
    "hinge dense": replace(NONE, hinge_dense=1.0),
    "hinge sparse": replace(NONE, hinge_sparse=1.0),
    "dual softmax": replace(NONE, descriptor=1.0),
    "A": replace(NONE, triplet=1.0),
    "C": replace(NONE, triplet_bits=1.0),
    "D": replace(NONE, bits_float=1.0),
    "E": replace(NONE, bits=1.0),
    "F": replace(NONE, bits_float=1.0, bits=0.5),
}
FLOAT_ARMS = ("hinge dense", "hinge sparse", "dual softmax")
RIGHT_PX = 4.0
COLUMNS = ("float_nn", "bits_nn", "before_nn", "float_precision", "bits_precision", "before_precision", "auc", "bias")


def run_arm(name: str, seed: int, options: argparse.Namespace) -> dict:
    """Train one arm, or go on with it, and score it; the result is kept in its folder."""
    folder = options.out / f"{name.replace(' ', '-')}-{seed}"
    done = folder / "scores.json"
    if done.is_file():
        return json.loads(done.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    pairs = PairConfig(max_gap=40)
    rule = {"steps": options.steps, "batch": options.batch, "rate": options.rate, "seed": seed}
    config = TrainConfig(losses=ARMS[name], pairs=pairs, **rule)
    trainer = Trainer(config, make_sampler(open_packs(options.packs), config), folder)
    trainer.resume()
    began, from_step = time.process_time(), trainer.step
    trainer.run(lambda p: p.step % 50 or print(f"{name} {seed}: step {p.step}, {p.parts['loss']:.3f}", flush=True))
    seconds = (time.process_time() - began) * options.steps / max(options.steps - from_step, 1)
    scores = score(trainer.averaged.network.eval(), name in FLOAT_ARMS, options)
    scores |= {"arm": name, "seed": seed, "steps": options.steps, "batch": options.batch, "cpu_s": seconds}
    done.write_text(json.dumps(scores, indent=1) + "\n")
    return scores


def score(network: LightNet, is_float: bool, options: argparse.Namespace) -> dict[str, float | None]:
    """Means over the test pairs; figures of bits are None for a float head."""
    sampler = PairSampler(open_packs(options.test), PairConfig(max_gap=20))
    rows = []
    for k in range(options.pairs):
        pair = sampler.pair(options.test_seed, k)
        if pair.valid.sum() >= 50:
            rows.append(score_pair(network, pair, is_float))
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return dict.fromkeys(COLUMNS) | means | {"pairs": len(rows)}


def score_pair(network: LightNet, pair, is_float: bool) -> dict[str, float]:
    """One pair: nearest neighbours that are right, precision of mutual ones, and what the bits are like."""
    points = torch.from_numpy(pair.points[:, pair.valid])
    with torch.no_grad():
        image = torch.from_numpy(pair.images)[:, None].float() / 255
        shared = network.share(network.trunk(normalise(image))[1])
        maps = (network.descriptor if is_float else network.bits)(shared)
        sampled = losses.sample_map(maps, points)
        before = losses.sample_map(torch.where(maps > 0, 1.0, -1.0), points)
    unit = F.normalize(sampled, dim=2).numpy()
    found = nearest_scores("float", unit[0], unit[1], points.numpy())
    if not is_float:
        after = np.packbits(sampled.numpy() > 0, axis=2)
        found |= nearest_scores("bits", after[0], after[1], points.numpy())
        early = np.packbits(before.numpy() > 0, axis=2)
        found |= nearest_scores("before", early[0], early[1], points.numpy())
        found["auc"] = separation(sampled.numpy() > 0, points.numpy())
        found["bias"] = float(np.abs((sampled.numpy() > 0).mean(axis=(0, 1)) - 0.5).mean())
    return found


def nearest_scores(name: str, a: np.ndarray, b: np.ndarray, points: np.ndarray) -> dict[str, float]:
    """Share of points whose nearest neighbour is right, and of mutual neighbours that are."""
    x, y = (np.unpackbits(d, axis=1).astype(np.float32) - 0.5 if d.dtype == np.uint8 else d for d in (a, b))
    nearest = (x @ y.T).argmax(axis=1)
    right = np.linalg.norm(points[1][nearest] - points[1], axis=1) <= RIGHT_PX
    i, j = mutual_nearest(a, b)
    mutual = np.linalg.norm(points[1][i] - points[1][j], axis=1) <= RIGHT_PX
    return {f"{name}_nn": float(right.mean()), f"{name}_precision": float(mutual.mean()) if len(mutual) else 0.0}


def separation(bits: np.ndarray, points: np.ndarray) -> float:
    """Area under the curve: the chance that a right pair has the smaller Hamming distance than a wrong one."""
    signs = bits.astype(np.float32) - 0.5
    distance = bits.shape[2] / 2 - 2 * signs[0] @ signs[1].T
    apart = np.linalg.norm(points[1][:, None] - points[1][None], axis=2) > 8
    right, wrong = np.diagonal(distance), np.sort(distance[apart])
    below, upto = (np.searchsorted(wrong, right, side) for side in ("left", "right"))
    return float(1 - ((below + upto) / 2 / max(len(wrong), 1)).mean())


def table(results: list[dict]) -> str:
    """A row an arm: means over its seeds, with half the range where there are several."""
    lines = [f"{'arm':14}{'seeds':>6}" + "".join(f"{name:>18}" for name in COLUMNS) + f"{'cpu_s':>8}"]
    for arm in ARMS:
        rows = [row for row in results if row["arm"] == arm]
        if rows:
            cells = "".join(f"{_cell([row[name] for row in rows]):>18}" for name in COLUMNS)
            lines.append(f"{arm:14}{len(rows):6}{cells}{np.mean([row['cpu_s'] for row in rows]):8.0f}")
    return "\n".join(lines)


def _cell(values: list[float | None]) -> str:
    if values[0] is None:
        return "-"
    spread = f" +-{(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def main() -> None:
    """Run what is missing, seed after seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packs", type=Path, required=True, help="training packs")
    parser.add_argument("--test", type=Path, required=True, help="packs of other scenes")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=TrainConfig.rate, help="of learning, at most (%(default)s)")
    parser.add_argument("--pairs", type=int, default=80, help="test pairs (%(default)s)")
    parser.add_argument("--test-seed", type=int, default=5, help="that they are drawn by (%(default)s)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    results = [run_arm(arm, seed, options) for seed in options.seeds for arm in options.arms]
    print(table(results))


if __name__ == "__main__":
    main()
