"""`vslam run`: SLAM on a recorded sequence."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vslam.evaluation.runner import OnFrame, SequenceRun
    from vslam.system import Mode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from vslam.registry import BACKENDS, PRECISIONS, names

    parser.add_argument("--dataset", choices=names("datasets"), required=True, help="layout of the recording")
    parser.add_argument("--path", type=Path, metavar="DIR", help="its folder (default: the embedded sample)")
    parser.add_argument("--extractor", choices=names("extractors"), help="features (default: orb)")
    parser.add_argument("--backend", choices=BACKENDS, help="what runs a learned extractor (default: auto)")
    parser.add_argument("--precision", choices=PRECISIONS, help="of a shipped network's weights (default: auto)")
    parser.add_argument(
        "--place", choices=["none", *names("places")], help="network that knows places again (default: gem); none: no "
        "loops, no relocalisation",
    )  # fmt: skip
    parser.add_argument("--no-loop", action="store_true", help="do not close loops")
    parser.add_argument("--config", metavar="FILE", help="settings: a YAML file, or the name of a shipped one")
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="change one setting, for example "
        "extractor.max_keypoints=500; may be repeated",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: runs/<sequence>-<extractor>-<time>")
    parser.add_argument("--overwrite", action="store_true", help="replace a result in the output folder")
    parser.add_argument("--camera", type=Path, metavar="FILE", help="YAML with the intrinsics")
    parser.add_argument("--max-frames", type=_count, metavar="N", help="stop after N frames")
    parser.add_argument("--start", type=_count, default=0, metavar="N", help="leave out the first N frames")
    parser.add_argument("--save-map", type=Path, metavar="FILE", help="keep the map in a file at the end")
    parser.add_argument("--load-map", type=Path, metavar="FILE", help="go on in a saved map")
    parser.add_argument("--localize", action="store_true", help="track in the loaded map, add nothing to it")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--deterministic", action="store_true", help="the same result to the last bit, loops included")
    how.add_argument("--realtime", action="store_true", help="frames come at their recorded rate, late ones dropped")
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("--quiet", action="store_true", help="no progress bar, warnings only")
    loud.add_argument("--verbose", action="store_true", help="say more")


def run(options: argparse.Namespace) -> int:
    """Run, write the results, print where they are."""
    from vslam.config import load_config
    from vslam.datasets import open_dataset
    from vslam.evaluation.runner import SequenceRun
    from vslam.frontend import make_extractor
    from vslam.mapping.archive import load_map
    from vslam.warmup import warm_up

    level = logging.DEBUG if options.verbose else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="vslam: %(levelname)s: %(message)s")
    logging.getLogger("vslam").setLevel(level)
    config = load_config(options.config, [*_as_settings(options), *options.set])
    make_extractor(config.extractor)  # its mistakes are the cheapest to find
    _refuse_result(options)
    _announce_sample(options)
    _check_map_options(options)
    dataset = open_dataset(options.dataset, options.path, options.camera)
    stored = load_map(options.load_map, config.extractor.max_keypoints) if options.load_map else None
    with (
        SequenceRun(
            dataset,
            config,
            _mode(options),
            options.start,
            options.max_frames,
            options.dataset,
            stored,
            options.localize,
        ) as sequence_run,
        _output_folder(options.output, f"{dataset.name}-{config.extractor.name}") as folder,
    ):
        warm_up(config, options.quiet)
        return _run_and_write(sequence_run, folder, options)


def _as_settings(options: argparse.Namespace) -> list[str]:
    """The options that are settings under a shorter name."""
    given = {
        "extractor.name": options.extractor,
        "extractor.options.backend": options.backend,
        "extractor.options.precision": options.precision,
        "place.name": options.place,
    }
    return [
        *(f"{key}={value}" for key, value in given.items() if value),
        *(["loop.close=false"] if options.no_loop else []),
    ]


def _check_map_options(options: argparse.Namespace) -> None:
    """Find out before the run what would lose its result at the end."""
    from vslam.errors import VslamError
    from vslam.mapping.archive import check_writable

    if options.localize and not options.load_map:
        raise VslamError("--localize tracks in a map: add --load-map FILE")
    if options.localize and options.save_map:
        raise VslamError("--localize leaves the map as it is: leave out --save-map, or --localize to add to the map")
    if options.save_map:
        check_writable(options.save_map)


def _announce_sample(options: argparse.Namespace) -> None:
    """Say that the sample is run, and make it if need be."""
    if options.path is not None or options.dataset not in ("tum", "sample"):
        return
    from vslam.datasets.sample import ensure_sample

    if options.dataset == "tum":
        print("No --path given: running the embedded sample, a rendered room in TUM layout.", flush=True)
    ensure_sample(quiet=options.quiet)


def _run_and_write(sequence_run: SequenceRun, folder: Path, options: argparse.Namespace) -> int:
    with _Interrupts() as interrupts:
        try:
            with _progress(len(sequence_run), options.quiet, interrupts) as on_frame:
                sequence_run.run(on_frame)
        except KeyboardInterrupt:
            interrupts.pressed = True
        finally:  # whatever ended the run, what was computed is kept
            interrupts.wait = True
            _write(sequence_run, folder)
            if options.save_map:
                sequence_run.save_map(options.save_map)
            if options.output is None:
                _link_latest(folder)
            print(folder, flush=True)
        return 130 if interrupts.pressed else 0


def _write(sequence_run: SequenceRun, folder: Path) -> None:
    from vslam.errors import VslamError
    from vslam.evaluation.results import write_results

    try:
        figures = write_results(sequence_run.record(), folder)
    except OSError as error:
        raise VslamError(f"{folder}: results cannot be written: {error.strerror}; give another --output") from None
    print(summary(figures))


def summary(figures: dict) -> str:
    """The headline of a run in one line."""
    ate = figures["ate_rmse_m"]
    parts = [
        f"{figures['tracked']} of {figures['frames']} frames tracked",
        f"ATE {100 * ate:.2f} cm" if ate is not None else "no ground truth",
        f"{figures['tracking_ms_median']:.1f} ms a frame" if figures["tracking_ms_median"] is not None else "",
        f"{figures['keyframes']} keyframes, {figures['map_points']} points",
    ]
    states = figures["states"]
    closed, found = figures["loops"], figures["relocalisations"]
    parts[2:2] = [f"{closed} loop{'s' * (closed != 1)}"] * bool(closed) + [f"{found} relocalised"] * bool(found)
    parts[1:1] = [f"{states[state]} {state}" for state in ("weak", "lost", "dropped", "unreadable") if states[state]]
    return ", ".join(part for part in parts if part)


def _mode(options: argparse.Namespace) -> Mode:
    return "deterministic" if options.deterministic else "realtime" if options.realtime else "threaded"


def _refuse_result(options: argparse.Namespace) -> None:
    from vslam.errors import VslamError
    from vslam.evaluation.results import METRICS

    folder = options.output
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise VslamError(f"{folder}: is a file; --output needs a folder")
    if (folder / METRICS).exists() and not options.overwrite:
        raise VslamError(f"{folder}: holds a result already; choose another --output, or add --overwrite")


@contextlib.contextmanager
def _output_folder(chosen: Path | None, name: str) -> Iterator[Path]:
    """The folder to write to; made before the run, to know that it can be written, and removed if it stays empty."""
    from vslam.errors import VslamError

    folder = chosen or _new_folder(f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise VslamError(f"{folder}: cannot be written: {error.strerror}; give another --output") from None
    try:
        yield folder
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _new_folder(name: str) -> Path:
    """`runs/<name>`, with a number where another run of this second has it."""
    folder, count = Path("runs") / name, 1
    while folder.exists():
        count += 1
        folder = Path("runs") / f"{name}-{count}"
    return folder


def _link_latest(folder: Path) -> None:
    link = folder.parent / "latest"
    fresh = folder.parent / f".latest-{folder.name}"
    with contextlib.suppress(OSError):  # a file system without links is no reason to fail
        fresh.symlink_to(folder.name)
        fresh.replace(link)


@contextlib.contextmanager
def _progress(total: int, quiet: bool, interrupts: _Interrupts) -> Iterator[OnFrame]:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    bar = tqdm(total=total, unit="frame", disable=quiet or None, file=sys.stderr, leave=False)
    with bar, logging_redirect_tqdm() if not bar.disable else contextlib.nullcontext():

        def on_frame(answer, size) -> None:
            bar.set_postfix_str(f"{answer.state}, {size[0]} keyframes, {size[1]} points", refresh=False)
            bar.update()
            interrupts.check()

        yield on_frame


class _Interrupts:
    """Ctrl-C ends the run between two frames; pressed again, at once. While results are written it waits."""

    def __init__(self) -> None:
        self.pressed = False
        self.wait = False

    def __enter__(self) -> _Interrupts:
        self._before = None
        with contextlib.suppress(ValueError):  # not in the main thread, which alone is interrupted
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Between two frames."""
        if self.pressed:
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        if self.pressed and not self.wait:
            raise KeyboardInterrupt
        self.pressed = True


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of frames")
    return value
