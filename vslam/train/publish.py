"""For maintainers: puts a trained network into `weights/`, with checksums, measured figures and a model card.

    python -m vslam.train.publish superpoint --checkpoint runs/train-light --packs packs --validation held-out \\
        --weights weights --facts facts.json

`facts.json` holds what no program can know: `data`, `command`, `hours`, `machine`, `pnp` (rows of text).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from vslam.inference.session import open_session
from vslam.train.data.pack import Pack, open_packs
from vslam.train.data.pairs import PairConfig, PairSampler
from vslam.train.evaluate import Scores, fixed_pairs, score_network
from vslam.train.export import DenseMaps, export_onnx
from vslam.train.quantize import quantize
from vslam.train.release import BINARY, Matching, enter_manifest, export_half, load_network, matching

DESCRIPTIONS = {
    "superpoint": "keypoints and 64 float32 values, compared by their angle",
    "gcnv2": "keypoints and 256 bits, compared by Hamming distance; the trunk of superpoint",
    "gcnv2-tiny": "keypoints and 256 bits from a narrower trunk",
}

CALIBRATION_IMAGES, TEST_IMAGES, VALIDATION_PAIRS = 80, 40, 60

INT8_LOSS = 0.02
"""Share of right matches that int8 may lose and still be what `precision: auto` takes."""


def publish(name: str, checkpoint: Path, packs: Path, validation: Path, weights: Path, facts: dict) -> str:
    """Write both precisions, the manifest entry and the card of a network; returns the card."""
    network, step = load_network(checkpoint, name)
    half, int8 = weights / f"{name}.onnx", weights / f"{name}-int8.onnx"
    export_half(network, name, half)
    exact = weights / f"{name}.float.onnx"
    export_onnx(DenseMaps(network, BINARY[name]), exact)
    quantize(exact, int8, spread_images(open_packs(packs), CALIBRATION_IMAGES))
    exact.unlink()
    held_out = open_packs(validation)
    test = spread_images(held_out, TEST_IMAGES)
    matched = {key: matching(open_session(file), test, BINARY[name]) for key, file in (("fp32", half), ("int8", int8))}
    pairs = fixed_pairs(PairSampler(held_out, PairConfig()), VALIDATION_PAIRS)
    scores = score_network(network, pairs, BINARY[name])
    keeps = matched["int8"].right >= (1 - INT8_LOSS) * matched["fp32"].right
    card = write_card(name, step, facts, scores, matched, half, int8)
    (weights / f"{name}.md").write_text(card)
    about = {
        "licence": "Apache-2.0",
        "description": DESCRIPTIONS[name],
        "auto_precision": "int8" if keeps else "fp32",
        "sigma": round(scores.sigma_px, 2),
        "metrics": rounded(dataclasses.asdict(scores))
        | {k: rounded(dataclasses.asdict(m)) for k, m in matched.items()},
        "card": f"{name}.md",
    }
    enter_manifest(weights / "manifest.json", name, {"fp32": half, "int8": int8}, about)
    return card


def spread_images(packs: list[Pack], count: int) -> list[np.ndarray]:
    """About `count` images, as many from each pack."""
    each = max(1, count // len(packs))
    return [pack.image(int(i)) for pack in packs for i in np.linspace(0, len(pack) - 1, each)]


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Figures to four digits, as far as they are worth."""
    return {key: float(f"{value:.4g}") for key, value in values.items()}


def write_card(
    name: str, step: int, facts: dict, scores: Scores, matched: dict[str, Matching], half: Path, int8: Path
) -> str:
    """The model card in Markdown."""
    rows = "\n".join(
        f"| {key} | {file.stat().st_size / 1e6:.2f} MB | {m.keypoints:.0f} | {m.right:.1f} | {m.precision:.3f} |"
        for (key, m), file in zip(matched.items(), (half, int8), strict=True)
    )
    return f"""# {name}

{DESCRIPTIONS[name].capitalize()}. Trained from nothing by `vslam train`; licence Apache-2.0.

- Data: {facts["data"]}
- Command: `{facts["command"]}`, {step} steps
- Time: {facts["hours"]}; machine: {facts["machine"]}
- Not trained on: any real RGB-D sequence; the figures below are on scenes that training never saw.

On pairs of a view and a warped, relit view of held-out renders: repeatability {scores.repeatability:.3f} (3 px),
localisation error {scores.localisation_px:.2f} px, `sigma` of one coordinate {scores.sigma_px:.2f} px, right among
mutual nearest neighbours {scores.precision:.3f}.

Milder warps, both files (ONNX and int8), 300 keypoints asked:

| weights | size | keypoints | right matches | precision |
|---|---|---|---|---|
{rows}

{facts.get("pnp", "")}
"""


def main() -> None:
    """Parse, publish, print the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(DESCRIPTIONS))
    for option in ("--checkpoint", "--packs", "--validation", "--weights", "--facts"):
        parser.add_argument(option, type=Path, required=True)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    facts = json.loads(options.facts.read_text())[options.name]
    print(publish(options.name, options.checkpoint, options.packs, options.validation, options.weights, facts))


if __name__ == "__main__":
    main()
