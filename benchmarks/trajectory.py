"""Accuracy and speed of whole runs: `python -m benchmarks.trajectory FOLDER ... [--peer PEER.PY] [--json FILE]`.

Each FOLDER (with TUM's lists) is run several times by `python -m vslam run` in fresh processes; with `--peer` another
system is run in turn with ours by `PEER.PY FOLDER --out DIR`; it must write `DIR/metrics.json` with the keys named in
PEER.

The table: coverage; ATE after the run and as the poses came out, median and range; median CPU of tracking, and its
ratio to `cv2.ORB_create(1000)` on frames of the same folder, measured right before and after each run; CPU of all
threads a frame, less what decoding the images costs (measured beside; the peer leaves it out too); `/peer` is ours over
the peer's.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from vslam.datasets import open_dataset

COLUMNS = ("coverage", "ate_m", "ate_live_m", "tracking_cpu_ms", "orb_ratio", "process_cpu_ms")
PEER = {
    "coverage": "coverage", "ate_m": "ate_rmse_m", "ate_live_m": "ate_live_rmse_m",
    "tracking_cpu_ms": "tracking_cpu_ms_median", "orb_ratio": "tracking_cpu_per_opencv_orb",
    "process_cpu_ms": "process_cpu_ms_per_frame",
}  # fmt: skip
YARDSTICK_IMAGES = 20


def yardstick_ms(folder: Path) -> list[float]:
    """CPU of OpenCV's ORB on images of the folder, one thread, as grey 640x480; ms."""
    files = sorted((folder / "rgb").iterdir())
    orb, times = cv2.ORB_create(1000), []
    for i in np.linspace(0, len(files) - 1, YARDSTICK_IMAGES).astype(int):
        image = cv2.imread(str(files[i]), cv2.IMREAD_GRAYSCALE)
        if image is None:
            continue
        image = cv2.resize(image, (640, 480))
        began = time.thread_time()
        orb.detectAndCompute(image, None)
        times.append(1e3 * (time.thread_time() - began))
    return times


def decoding_ms(layout: str, folder: Path) -> float:
    """CPU of decoding a frame's images (and registering its depth, where need be), one thread; ms."""
    dataset, times = open_dataset(layout, folder), []
    for i in np.linspace(0, len(dataset) - 1, YARDSTICK_IMAGES).astype(int):
        began = time.thread_time()
        dataset.load(int(i))
        times.append(1e3 * (time.thread_time() - began))
    return float(np.median(times))


def run_ours(layout: str, folder: Path, output: Path, options: list[str]) -> dict[str, float | None]:
    """One run in a fresh process, with the yardstick around it."""
    before = yardstick_ms(folder)
    command = [sys.executable, "-m", "vslam", "run", "--dataset", layout, "--path", str(folder)]
    call([*command, "--output", str(output), "--quiet", *options])
    yardstick = float(np.median(before + yardstick_ms(folder)))
    figures = json.loads((output / "metrics.json").read_text())
    return {
        "coverage": figures["coverage"],
        "ate_m": figures["ate_rmse_m"],
        "ate_live_m": figures["ate_live_rmse_m"],
        "tracking_cpu_ms": figures["tracking_cpu_ms_median"],
        "orb_ratio": figures["tracking_cpu_ms_median"] / yardstick,
        "process_cpu_ms": 1e3 * figures["cpu_s"] / figures["frames"] - decoding_ms(layout, folder),
    }


def run_peer(peer: list[str], folder: Path, output: Path) -> dict[str, float | None]:
    """One run of the other system."""
    call([*peer, str(folder), "--out", str(output)])
    figures = json.loads((output / "metrics.json").read_text())
    return {column: figures.get(key) for column, key in PEER.items()}


def call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def summarise(runs: list[dict[str, float | None]]) -> dict[str, dict[str, float] | None]:
    """Median, lowest and highest of each column; None where no run has it."""
    summary = {}
    for column in COLUMNS:
        values = [run[column] for run in runs if run[column] is not None]
        summary[column] = (
            {"median": float(np.median(values)), "low": min(values), "high": max(values)} if values else None
        )
    return summary


def measure(layout: str, folder: Path, repeats: int, peer: list[str] | None, options: list[str]) -> dict:
    """All runs of one folder, ours and the peer's in turn."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="vslam-benchmark-") as scratch:
        for k in range(repeats):
            ours.append(run_ours(layout, folder, Path(scratch) / f"ours-{k}", options))
            if peer:
                theirs.append(run_peer(peer, folder, Path(scratch) / f"peer-{k}"))
    result = {"sequence": folder.resolve().name, "repeats": repeats, "runs": ours, "ours": summarise(ours)}
    if peer:
        result |= {"peer_runs": theirs, "peer": summarise(theirs)}
    return result


def print_table(results: list[dict]) -> None:
    print(f"{'':34}{'cover':>7}{'ATE cm':>22}{'live cm':>22}{'CPU ms':>8}{'x ORB':>7}{'all ms':>8}")
    for result in results:
        for who in ("ours", "peer"):
            if who in result:
                print_row(f"{result['sequence']} {who}", result[who])
        if "peer" in result:
            cells = {column: quotient(result, column) for column in COLUMNS}
            print(
                f"{'  /peer':34}{cells['coverage']:>7}{cells['ate_m']:>22}{cells['ate_live_m']:>22}"
                f"{cells['tracking_cpu_ms']:>8}{cells['orb_ratio']:>7}{cells['process_cpu_ms']:>8}"
            )


def print_row(name: str, summary: dict) -> None:
    def number(column: str, form: str, factor: float = 1.0) -> str:
        cell = summary[column]
        return "-" if cell is None else format(factor * cell["median"], form)

    def spread(column: str) -> str:
        cell = summary[column]
        if cell is None:
            return "-"
        return f"{100 * cell['median']:.2f} [{100 * cell['low']:.2f}, {100 * cell['high']:.2f}]"

    print(
        f"{name:34}{number('coverage', '.1f', 100):>7}{spread('ate_m'):>22}{spread('ate_live_m'):>22}"
        f"{number('tracking_cpu_ms', '.1f'):>8}{number('orb_ratio', '.2f'):>7}{number('process_cpu_ms', '.1f'):>8}"
    )


def quotient(result: dict, column: str) -> str:
    ours, theirs = result["ours"][column], result["peer"][column]
    return f"{ours['median'] / theirs['median']:.2f}" if ours and theirs and theirs["median"] else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="recordings with TUM's lists")
    parser.add_argument("--dataset", default="tum", help="layout that ours reads them as (the peer: tum)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--peer", metavar="PEER.PY", help="script (or command) that runs another system")
    parser.add_argument("--options", default="", help="further options of `vslam run`, in one word")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    peer = shlex.split(arguments.peer) if arguments.peer else None
    if peer and len(peer) == 1 and peer[0].endswith(".py"):
        peer = [sys.executable, *peer]
    for folder in arguments.folders:
        if not (folder / "rgb.txt").is_file():
            raise SystemExit(f"{folder}: no rgb.txt; a folder in TUM layout is needed")
    results = []
    for folder in arguments.folders:
        results.append(measure(arguments.dataset, folder, arguments.repeats, peer, shlex.split(arguments.options)))
        if arguments.json:  # after each sequence: a long benchmark may be stopped
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    print_table(results)


if __name__ == "__main__":
    main()
