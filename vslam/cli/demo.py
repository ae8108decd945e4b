"""`vslam demo`: see what a part of the library does."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vslam.evaluation.pictures import Picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command: `match`."""
    from vslam.registry import names

    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    match = commands.add_parser(
        "match", help="keypoints and matches of two images, or as a clip of a folder, video, recording or camera"
    )
    match.add_argument("source", type=Path, nargs="*", metavar="IMAGE", help="two images, or one folder or video")
    match.add_argument("--dataset", choices=names("datasets"), help="read the folder as this layout")
    match.add_argument("--camera", type=int, metavar="N", help="film with this camera, 0 is the first; Ctrl-C ends it")
    match.add_argument("--extractor", default="orb", metavar="NAME", help=f"{', '.join(names('extractors'))} (orb)")
    match.add_argument("--matcher", default="mutual", metavar="NAME", help=f"{', '.join(names('matchers'))} (mutual)")
    match.add_argument("--keypoints", type=int, default=500, metavar="N", help="wanted a picture (%(default)s)")
    match.add_argument("--step", type=int, default=1, metavar="N", help="of a clip: every n-th picture")
    match.add_argument("--max-frames", type=int, default=300, metavar="N", help="of a clip: at most (%(default)s)")
    match.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the picture or video to write (matches.png, matches.mp4)"
    )


def run(options: argparse.Namespace) -> int:
    """Match, draw, print how many fit."""
    from vslam.errors import VslamError
    from vslam.frontend import Frontend

    if options.keypoints < 1 or options.step < 1:
        raise VslamError("--keypoints and --step: expected numbers of at least 1")
    _check_source(options)
    frontend = Frontend(options.extractor, options.matcher, options.keypoints)
    return _pair(options, frontend) if len(options.source) == 2 else _clip(options, frontend)


def _check_source(options: argparse.Namespace) -> None:
    from vslam.errors import VslamError

    given, is_filmed = len(options.source), options.camera is not None
    if is_filmed and (given or options.dataset):
        raise VslamError("--camera films by itself: leave out images, folders and --dataset")
    if options.dataset and given > 1:
        raise VslamError(f"--dataset {options.dataset}: give one folder, not {given}")
    if given > 2 or (not given and not is_filmed and options.dataset != "sample"):
        raise VslamError(
            f"{given} files given; 'vslam demo match' takes two images, a folder or a video, or --camera N"
        )


def _pair(options: argparse.Namespace, frontend: Any) -> int:
    from vslam.evaluation import match_view
    from vslam.evaluation.pictures import read_picture

    out = options.output or Path("matches.png")
    images = [read_picture(file) for file in options.source]
    a, b, pairs, good = next(match_view.matched_frames(images, frontend.extract, frontend.match))
    match_view.write_image(out, match_view.draw_matches(a, b, pairs, good, _words(options, a, b, good)))
    print(f"{out}: {_words(options, a, b, good)}")
    return 0


def _clip(options: argparse.Namespace, frontend: Any) -> int:
    from vslam.evaluation import match_view

    out = options.output or Path("matches.mp4")
    fitted = []

    def frames():
        images = (picture.image for picture in _until_interrupt(_pictures(options)))
        for a, b, pairs, good in match_view.matched_frames(images, frontend.extract, frontend.match):
            fitted.append(int(good.sum()))
            yield match_view.draw_matches(a, b, pairs, good, _words(options, a, b, good))

    count = match_view.write_video(out, frames())
    print(
        f"{out}: {count} pairs of pictures, {options.extractor}: {sum(fitted) / count:.0f} matches that fit in the mean"
    )
    return 0


def _pictures(options: argparse.Namespace) -> Iterable[Picture]:
    from vslam.datasets import open_dataset
    from vslam.errors import VslamError
    from vslam.evaluation.pictures import DatasetPictures, film, open_pictures

    if options.camera is not None:
        return film(options.camera, options.step, options.max_frames)
    source = options.source[0] if options.source else None
    if options.dataset:
        return DatasetPictures(open_dataset(options.dataset, source), options.step, options.max_frames)
    if source.is_file() and _is_image(source):
        raise VslamError(f"{source}: one image; 'vslam demo match' needs a second one to match it with")
    return open_pictures(source, step=options.step, most=options.max_frames)


def _until_interrupt(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """Ctrl-C ends the clip; what has been filmed is kept."""
    with contextlib.suppress(KeyboardInterrupt):
        yield from pictures


def _is_image(file: Path) -> bool:
    from vslam.evaluation.pictures import IMAGES

    return file.suffix.lower() in IMAGES


def _words(options: argparse.Namespace, a: Any, b: Any, good: Any) -> str:
    count = f"{len(a.features)} and {len(b.features)} keypoints"
    return f"{options.extractor}: {count}, {len(good)} matches, {int(good.sum())} of them fit"
