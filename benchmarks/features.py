"""Extractors beside OpenCV's ORB: `python -m benchmarks.features [FOLDER] [--json FILE]`.

CPU milliseconds per image, medians over the images of a folder (default: the embedded sample), as grey 640x480. ORB
also by its stages: pyramid and smoothing, corners chosen (found, ranked, spread, refined), described; SIFT: found,
described by OpenCV, and our share; networks: shrunk and made float, run, keypoints, descriptors. `ratio` is to
`cv2.ORB_create(1000).detectAndCompute` on the same images, measured in turn with ours. `--backend`, `--precision` are
of the networks; their run-times may work in threads of their own, so all threads are counted.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

from vslam.datasets.sample import ensure_sample
from vslam.features import learned, maps, orb
from vslam.features.learned import Gcnv2, Gcnv2Tiny, Learned, SuperPoint
from vslam.features.orb import Orb
from vslam.features.sift import Sift

PICTURES = (".jpg", ".jpeg", ".png", ".pgm")


def load_images(folder: Path, most: int) -> list[np.ndarray]:
    """At most so many images of a folder, evenly taken, as grey 640x480."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICTURES and "depth" not in file.parts)
    if not files:
        raise SystemExit(f"{folder}: no images ({', '.join(PICTURES)})")
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, most).astype(int))]
    images = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in chosen]
    return [cv2.resize(image, (640, 480)) if image.shape != (480, 640) else image for image in images]


def cpu_ms(function: Callable[[np.ndarray], object], image: np.ndarray) -> float:
    """CPU time of all threads in one call, ms."""
    began = time.process_time()
    function(image)
    return 1e3 * (time.process_time() - began)


@contextmanager
def timed(owner: object, name: str, times: list[float]) -> Iterator[None]:
    """Note the CPU time of every call of `owner.name`, in ms."""
    original = getattr(owner, name)

    def call(*arguments, **options):
        began = time.process_time()
        result = original(*arguments, **options)
        times.append(1e3 * (time.process_time() - began))
        return result

    with mock.patch.object(owner, name, call):
        yield


def measure(images: list[np.ndarray], keypoints: int, options: learned.Config = learned.Config()) -> dict:
    """All medians, and the numbers of features; networks by the run-time and precision of `options`."""
    networks = {kind.network: kind(keypoints, options) for kind in (SuperPoint, Gcnv2, Gcnv2Tiny)}
    extractors = {"orb": Orb(keypoints), "sift": Sift(keypoints)} | networks
    peer = cv2.ORB_create(keypoints)
    for extractor in extractors.values():
        extractor.extract(images[0])  # compiles
    times: dict[str, list[float]] = {name: [] for name in ("cv2_orb", *extractors)}
    counts: dict[str, list[int]] = {name: [] for name in times}
    for image in images:  # in turn, so that all meet the same load
        times["cv2_orb"].append(cpu_ms(lambda picture: peer.detectAndCompute(picture, None), image))
        counts["cv2_orb"].append(len(peer.detect(image, None)))
        for name, extractor in extractors.items():
            times[name].append(cpu_ms(extractor.extract, image))
            counts[name].append(len(extractor.extract(image)))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {
        "images": len(images),
        "keypoints": keypoints,
        "ms": medians,
        "ms_p95": {name: float(np.percentile(values, 95)) for name, values in times.items()},
        "features": {name: float(np.median(values)) for name, values in counts.items()},
        "ratio": {name: medians[name] / medians["cv2_orb"] for name in extractors},
        "stages_ms": {"orb": orb_stages(images, keypoints), "sift": sift_stages(images, keypoints)}
        | {name: network_stages(images, extractor) for name, extractor in networks.items()},
    }


def orb_stages(images: list[np.ndarray], keypoints: int) -> dict[str, float]:
    """Medians of the parts of our ORB."""
    extractor, times = Orb(keypoints), {"pyramid": [], "choose": [], "describe": []}
    extractor.extract(images[0])
    with (
        timed(orb._Workspace, "fill", times["pyramid"]),
        timed(orb, "select", times["choose"]),
        timed(orb, "describe", times["describe"]),
    ):
        for image in images:
            extractor.extract(image)
    return {stage: float(np.median(values)) for stage, values in times.items()}


def network_stages(images: list[np.ndarray], extractor: Learned) -> dict[str, float]:
    """Medians of the parts of a learned extractor."""
    times = {"prepare": [], "network": [], "keypoints": [], "describe": []}
    shrinking, converting = [], []
    with (
        timed(learned, "shrink", shrinking),
        timed(learned, "as_input", converting),
        timed(extractor._session, "run", times["network"]),
        timed(extractor, "_keypoints", times["keypoints"]),
        timed(maps, "describe", times["describe"]),
    ):
        for image in images:
            extractor.extract(image)
    times["prepare"] = np.add(shrinking, converting)
    return {stage: float(np.median(values)) for stage, values in times.items()}


def sift_stages(images: list[np.ndarray], keypoints: int) -> dict[str, float]:
    """Medians of the parts of SIFT: OpenCV's two calls on the shrunk image, and the rest."""
    extractor = Sift(keypoints)
    detector = cv2.SIFT_create(2 * keypoints, contrastThreshold=0.01)
    whole, detect, describe = [], [], []
    for image in images:
        small = cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA)
        whole.append(cpu_ms(extractor.extract, image))
        detect.append(cpu_ms(lambda picture: detector.detect(picture, None), small))
        found = detector.detect(small, None)[:keypoints]
        describe.append(cpu_ms(lambda picture, found=found: detector.compute(picture, found), small))
    parts = {"detect": float(np.median(detect)), "describe": float(np.median(describe))}
    return parts | {"rest": max(0.0, float(np.median(whole)) - sum(parts.values()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="images (default: the embedded sample)")
    parser.add_argument("--images", type=int, default=60, help="at most so many of them")
    parser.add_argument("--keypoints", type=int, default=1000)
    parser.add_argument("--backend", default="auto", help="of the networks (%(default)s)")
    parser.add_argument("--precision", default="auto", help="of the networks (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    folder = arguments.folder or ensure_sample() / "rgb"
    options = learned.Config(arguments.backend, arguments.precision)
    result = measure(load_images(folder, arguments.images), arguments.keypoints, options)
    print(f"{result['images']} images 640x480, {result['keypoints']} keypoints wanted, CPU of all threads")
    print(f"{'':12}{'ms':>8}{'p95':>8}{'features':>10}{'ratio':>8}")
    for name, ms in result["ms"].items():
        ratio = result["ratio"].get(name, 1.0)
        print(f"{name:12}{ms:8.2f}{result['ms_p95'][name]:8.2f}{result['features'][name]:10.0f}{ratio:8.2f}")
    for name, stages in result["stages_ms"].items():
        print(f"{name} stages: " + ", ".join(f"{stage} {ms:.2f}" for stage, ms in stages.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
