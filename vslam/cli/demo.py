"""`vslam demo`: see what a part of the library does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command: `match`."""
    from vslam.registry import names

    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    match = commands.add_parser("match", help="keypoints and matches of two images, or of a folder or video as a clip")
    match.add_argument("source", type=Path, nargs="+", metavar="IMAGE", help="two images, or one folder or video")
    match.add_argument("--extractor", default="orb", metavar="NAME", help=f"{', '.join(names('extractors'))} (orb)")
    match.add_argument("--matcher", default="mutual", metavar="NAME", help=f"{', '.join(names('matchers'))} (mutual)")
    match.add_argument("--keypoints", type=int, default=500, metavar="N", help="wanted a picture (%(default)s)")
    match.add_argument("--step", type=int, default=1, metavar="N", help="of a folder: every n-th picture")
    match.add_argument("--max-frames", type=int, default=300, metavar="N", help="of a folder: at most (%(default)s)")
    match.add_argument("-o", "--output", type=Path, help="the picture or video to write (matches.png, matches.mp4)")


def run(options: argparse.Namespace) -> int:
    """Match, draw, print how many fit."""
    from vslam.errors import VslamError
    from vslam.frontend import Frontend

    if options.keypoints < 1 or options.step < 1:
        raise VslamError("--keypoints and --step: expected numbers of at least 1")
    if len(options.source) > 2:
        raise VslamError(
            f"{len(options.source)} files given; 'vslam demo match' takes two images, or a folder or video"
        )
    frontend = Frontend(options.extractor, options.matcher, options.keypoints)
    return _pair(options, frontend) if len(options.source) == 2 else _clip(options, frontend)


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
    from vslam.errors import VslamError
    from vslam.evaluation import match_view
    from vslam.evaluation.pictures import open_pictures

    if options.source[0].is_file() and _is_image(options.source[0]):
        raise VslamError(f"{options.source[0]}: one image; 'vslam demo match' needs a second one to match it with")
    out = options.output or Path("matches.mp4")
    pictures = open_pictures(options.source[0], step=options.step, most=options.max_frames)
    fitted = []

    def frames():
        images = (picture.image for picture in pictures)
        for a, b, pairs, good in match_view.matched_frames(images, frontend.extract, frontend.match):
            fitted.append(int(good.sum()))
            yield match_view.draw_matches(a, b, pairs, good, _words(options, a, b, good))

    count = match_view.write_video(out, frames())
    print(
        f"{out}: {count} pairs of pictures, {options.extractor}: {sum(fitted) / count:.0f} matches that fit in the mean"
    )
    return 0


def _is_image(file: Path) -> bool:
    from vslam.evaluation.pictures import IMAGES

    return file.suffix.lower() in IMAGES


def _words(options: argparse.Namespace, a: Any, b: Any, good: Any) -> str:
    count = f"{len(a.features)} and {len(b.features)} keypoints"
    return f"{options.extractor}: {count}, {len(good)} matches, {int(good.sum())} of them fit"
