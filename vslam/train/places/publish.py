"""For maintainers: puts a trained place network into `weights/`, with checksums, measured figures and a model card.

    python -m vslam.train.places.publish gem --checkpoint runs/train-gem --packs place-packs --validation held-out \\
        --weights weights --facts facts.json --frame frame.jpg

`facts.json` holds what no program can know: `data`, `command`, `hours`, `machine`, `notes`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from vslam.features.learned import as_input
from vslam.inference.session import Session, open_session
from vslam.places.descriptor import fit
from vslam.train.export import fold_norms, store_half
from vslam.train.places.build import read_grey
from vslam.train.places.evaluate import Recognition, by_session, score_packs
from vslam.train.places.networks import NETWORKS
from vslam.train.places.packs import PlacePack, open_place_packs
from vslam.train.places.release import export_exact, export_place, load_place_network
from vslam.train.publish import rounded
from vslam.train.quantize import quantize
from vslam.train.release import enter_manifest

DESCRIPTIONS = {
    "gem": "384 float32 values for a whole image: generalised mean and peaks of features, whitened, and its layout",
    "cosplace": "256 float32 values for a whole image, by generalised mean; learned as classes of places (CosFace)",
    "netvlad": "256 float32 values for a whole image, by soft-assigned clusters and PCA whitening; hard triplets",
}

CALIBRATION_IMAGES = 100

INT8_LOSS = 0.01
"""Share of all queries that int8 may lose and still be what `precision: auto` takes."""

LARGE = 100_000
"""Numbers from which a tensor that int8 leaves alone is stored in half precision."""

TIMED = 40


def publish(
    name: str, checkpoint: Path, packs: Path, validation: Path, weights: Path, facts: dict, box: tuple[int, int],
    frame: np.ndarray,
) -> str:  # fmt: skip
    """Write both precisions, the manifest entry and the card of a network, its cost on a grey frame (480, 640) among
    them; returns the card."""
    network, step = load_place_network(checkpoint, name)
    half, int8 = weights / f"{name}.onnx", weights / f"{name}-int8.onnx"
    export_place(network, half)
    exact = weights / f"{name}.float.onnx"
    export_exact(fold_norms(network), exact)
    quantize(exact, int8, calibration_images(open_place_packs(packs), box))
    exact.unlink()
    store_half(int8, int8, LARGE)
    held_out = open_place_packs(validation)
    files = {"fp32": half, "int8": int8}
    scores = {key: score_packs(by_session(open_session(file)), held_out, box) for key, file in files.items()}
    costs = {key: cost(open_session(file), frame, box) for key, file in files.items()}
    card = write_card(name, step, facts, scores, costs, files, box)
    (weights / f"{name}.md").write_text(card)
    keeps = pooled_recall(scores["int8"]) >= pooled_recall(scores["fp32"]) - INT8_LOSS
    faster = costs["int8"][0] < costs["fp32"][0]
    about = {
        "licence": "Apache-2.0",
        "description": DESCRIPTIONS[name],
        "auto_precision": "int8" if keeps and faster else "fp32",
        "sigma": 0.0,
        "metrics": {"image_size": list(box), "width": network.width}
        | {key: rounded(vars(value["mean"])) for key, value in scores.items()},
        "card": f"{name}.md",
    }
    enter_manifest(weights / "manifest.json", name, files, about)
    return card


def pooled_recall(scores: dict[str, Recognition]) -> float:
    """Recall@1 over the queries of all sets, each query counting the same."""
    sets = [value for key, value in scores.items() if key != "mean" and value.queries]
    return sum(s.queries * s.recall for s in sets) / max(sum(s.queries for s in sets), 1)


def calibration_images(packs: list[PlacePack], box: tuple[int, int]) -> list[np.ndarray]:
    """Images of the network's size, as many from each pack."""
    each = max(1, CALIBRATION_IMAGES // len(packs))
    chosen = [pack.images[int(k)] for pack in packs for k in np.linspace(0, len(pack.images) - 1, each)]
    return [fit(image, box) for image in chosen]


def cost(session: Session, frame: np.ndarray, box: tuple[int, int]) -> tuple[float, float]:
    """CPU milliseconds of describing a uint8 frame (H, W), shrinking included, and of ORB with 1000 features on it:
    the least of 40 turns, taken in turn."""
    orb = cv2.ORB_create(1000)

    def timed(work) -> float:
        began = time.process_time()
        work()
        return 1e3 * (time.process_time() - began)

    def describe() -> None:
        session.run(as_input(fit(frame, box)))

    turns = [(timed(describe), timed(lambda: orb.detectAndCompute(frame, None))) for _ in range(TIMED)]
    return tuple(np.min(turns, axis=0).tolist())


def write_card(
    name: str, step: int, facts: dict, scores: dict[str, dict[str, Recognition]],
    costs: dict[str, tuple[float, float]], files: dict[str, Path], box: tuple[int, int],
) -> str:  # fmt: skip
    """The model card in Markdown."""
    coarse = scores["int8"]
    rows = "\n".join(
        f"| {key} | {s.queries} | {s.recall:.3f} | {s.auc:.3f} | {s.recall_sure:.3f} | {coarse[key].recall:.3f} |"
        for key, s in scores["fp32"].items()
    )
    sizes = "\n".join(
        f"| {key} | {file.stat().st_size / 1e6:.2f} MB | {costs[key][0]:.1f} ms | {costs[key][1]:.1f} ms |"
        for key, file in files.items()
    )
    return f"""# {name}

{DESCRIPTIONS[name].capitalize()}. Licence Apache-2.0. Images are shrunk to {box[0]}x{box[1]}.

- Data: {facts["data"]}
- Command: `{facts["command"]}`, {step} steps
- Time: {facts["hours"]}; machine: {facts["machine"]}
- Not trained on: any real RGB-D sequence, Nordland, Gardens Point, Essex, SPED; renders of seeds 1 to 9.

| weights | size | describing a 640x480 frame (of `vslam run sample`) | ORB, 1000 features, same frame |
|---|---|---|---|
{sizes}

Times are CPU time on one core, the least of {TIMED} turns. The scores below are on walks and floors that training never
saw, and by which it was watched. A query is right when its most alike view shows the same place: each view sees at
least 30 % of the other, at most 45 degrees between them. Of a walk, only views more than ten seconds before the query
(under another light: before or after) are asked for. `light a in b`: the queries of one light looked up in another.
`relit`: each frame under drawn light among all frames of the floors, itself left out. AUC is that of precision over
recall with all queries, those of new places too; the last but one column is the recall before the first wrong match.

| set | queries | Recall@1 | AUC | recall at 100 % precision | Recall@1, int8 |
|---|---|---|---|---|---|
{rows}

{facts.get("notes", "")}
"""


def main() -> None:
    """Parse, publish, print the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(NETWORKS))
    for option in ("--checkpoint", "--packs", "--validation", "--weights", "--facts"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--box", type=int, nargs=2, default=(320, 240), help="size images are shrunk to (%(default)s)")
    parser.add_argument("--frame", type=Path, required=True, help="a 640x480 picture to measure the cost on")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    facts = json.loads(options.facts.read_text())[options.name]
    files = (options.checkpoint, options.packs, options.validation, options.weights)
    print(publish(options.name, *files, facts, tuple(options.box), read_grey(options.frame)))


if __name__ == "__main__":
    main()
