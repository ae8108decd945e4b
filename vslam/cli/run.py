"""`vslam run`: SLAM on a recorded sequence."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vslam.datasets import Dataset
    from vslam.evaluation.runner import Mode, OnFrame, SequenceRun

RESULT = "metrics.json"  # written last: a folder that has it holds a complete result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from vslam.registry import names

    parser.add_argument("--dataset", choices=names("datasets"), required=True, help="layout of the recording")
    parser.add_argument("--path", type=Path, metavar="DIR", help="its folder (default: the embedded sample)")
    parser.add_argument("--extractor", choices=names("extractors"), help="features (default: orb)")
    parser.add_argument("--config", metavar="FILE", help="settings: a YAML file, or the name of a shipped one")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting, for example "
        "extractor.max_keypoints=500; may be repeated",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: runs/<sequence>-<extractor>-<time>")
    parser.add_argument("--overwrite", action="store_true", help="replace a result in the output folder")
    parser.add_argument("--camera", type=Path, metavar="FILE", help="YAML with the intrinsics")
    parser.add_argument("--max-frames", type=_count, metavar="N", help="stop after N frames")
    parser.add_argument("--start", type=_count, default=0, metavar="N", help="leave out the first N frames")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--deterministic", action="store_true", help="the same result to the last bit, run after run")
    how.add_argument("--realtime", action="store_true", help="frames come at their recorded rate; late ones are dropped")
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("--quiet", action="store_true", help="no progress bar, warnings only")
    loud.add_argument("--verbose", action="store_true", help="say more")


def run(options: argparse.Namespace) -> int:
    """Run, write the results, print where they are."""
    from vslam.config import load_config
    from vslam.datasets import open_dataset
    from vslam.evaluation.runner import SequenceRun
    from vslam.warmup import warm_up

    level = logging.DEBUG if options.verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="vslam: %(levelname)s: %(message)s")
    logging.getLogger("vslam").setLevel(level)
    overrides = [*([f"extractor.name={options.extractor}"] if options.extractor else []), *options.set]
    config = load_config(options.config, overrides)
    _refuse_result(options)
    if options.path is None and options.dataset == "tum":
        print("No --path given: running the embedded sample, a rendered room in TUM layout.", flush=True)
    dataset = open_dataset(options.dataset, options.path, options.camera)
    warm_up(config, options.quiet)
    sequence_run = SequenceRun(
        dataset, config, _mode(options), options.start, options.max_frames, layout=options.dataset
    )
    return _run_and_write(sequence_run, dataset, config.extractor.name, options)


def _run_and_write(sequence_run: SequenceRun, dataset: Dataset, extractor: str, options: argparse.Namespace) -> int:
    from vslam.evaluation.results import write_results

    folder = options.output or Path("runs") / f"{dataset.name}-{extractor}-{time.strftime('%Y%m%d-%H%M%S')}"
    code = 0
    try:
        with _progress(len(sequence_run), options.quiet) as on_frame:
            sequence_run.run(on_frame)
    except KeyboardInterrupt:
        code = 130
    finally:  # whatever ended the run, what was computed is kept
        figures = write_results(sequence_run.record(), folder)
    if options.output is None:
        _link_latest(folder)
    print(summary(figures))
    print(folder)
    return code


def summary(figures: dict) -> str:
    """The headline of a run in one line."""
    ate = figures["ate_rmse_m"]
    parts = [
        f"{figures['tracked']} of {figures['frames']} frames tracked",
        f"ATE {100 * ate:.2f} cm" if ate is not None else "no ground truth",
        f"{figures['tracking_ms_median']:.1f} ms a frame" if figures["tracking_ms_median"] is not None else "",
        f"{figures['keyframes']} keyframes, {figures['map_points']} points",
    ]
    if figures["dropped"]:
        parts.insert(1, f"{figures['dropped']} dropped")
    return ", ".join(part for part in parts if part)


def _mode(options: argparse.Namespace) -> Mode:
    return "deterministic" if options.deterministic else "realtime" if options.realtime else "threaded"


def _refuse_result(options: argparse.Namespace) -> None:
    from vslam.errors import VslamError

    folder = options.output
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise VslamError(f"{folder}: is a file; --output needs a folder")
    if (folder / RESULT).exists() and not options.overwrite:
        raise VslamError(f"{folder}: holds a result already; choose another --output, or add --overwrite")


def _link_latest(folder: Path) -> None:
    link = folder.parent / "latest"
    fresh = folder.parent / f".latest-{folder.name}"
    with contextlib.suppress(OSError):  # a file system without links is no reason to fail
        fresh.symlink_to(folder.name)
        fresh.replace(link)


@contextlib.contextmanager
def _progress(total: int, quiet: bool) -> Iterator[OnFrame]:
    from tqdm import tqdm

    with tqdm(total=total, unit="frame", disable=quiet or None, file=sys.stderr, leave=False) as bar:

        def on_frame(answer, size) -> None:
            bar.set_postfix_str(f"{answer.state}, {size[0]} keyframes, {size[1]} points", refresh=False)
            bar.update()

        yield on_frame


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of frames")
    return value
