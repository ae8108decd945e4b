"""`vslam bench`: what a part of the library does on your own data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

COLUMNS = (
    ("match_prec", "match_prec", "{:.3f}"),
    ("outlier_prec", "outlier_prec", "{:.3f}"),
    ("num_kp", "keypoints", "{:.0f}"),
    ("matches", "matches", "{:.0f}"),
    ("inliers", "that fit", "{:.0f}"),
    ("coverage", "coverage", "{:.3f}"),
    ("total_ms", "total ms", "{:.1f}"),
    ("extract_cpu_ms", "CPU ms", "{:.2f}"),
)
EPILOG = """Means over all pictures but the first, each matched with the one before it (times: medians).
match_prec: matches under the ratio test / keypoints; outlier_prec: matches that a RANSAC fundamental matrix rejects /
matches; coverage: share of the cells of 16x16 pixels with a keypoint; total: read, resized, extracted; CPU: extraction,
all threads; ratio: its median to cv2.ORB_create(1000) at 640x480 on the same pictures in the same run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command: `frontend`."""
    from vslam.registry import names

    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    frontend = commands.add_parser(
        "frontend", help="keypoints and matches of extractors", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    frontend.add_argument(
        "--path", type=Path, required=True, help="a folder of images, a sequence's folder, or a video"
    )
    known = ", ".join(names("extractors"))
    frontend.add_argument(
        "--extractor", "--extractors", nargs="+", default=["orb"], metavar="NAME", help=f"one or more of {known} (orb)"
    )
    frontend.add_argument(
        "--backend", "--backends", nargs="+", default=["auto"], metavar="NAME",
        help="of learned extractors: auto, onnx, openvino, torch; several are compared",
    )  # fmt: skip
    frontend.add_argument(
        "--precision", nargs="+", default=["auto"], metavar="NAME", help="of learned extractors: auto, fp32, int8"
    )
    frontend.add_argument(
        "--image-size", default="320x240", metavar="WxH", help="resized to; 0x0: as it is (%(default)s)"
    )
    frontend.add_argument("--keypoints", type=int, default=500, metavar="N", help="wanted a picture (%(default)s)")
    frontend.add_argument("--ratio", type=float, default=0.7, help="of the ratio test (%(default)s)")
    frontend.add_argument(
        "--f-rej-th", type=float, default=5.0, metavar="PX", help="from the epipolar line, at most (%(default)s)"
    )
    frontend.add_argument("--step", type=int, default=1, metavar="N", help="take every n-th picture (%(default)s)")
    frontend.add_argument("--max-frames", type=int, metavar="N", help="at most so many pictures")
    frontend.add_argument("--json", type=Path, metavar="FILE", help="write all figures, with their curves")
    frontend.add_argument("--plot", type=Path, metavar="FILE", help="draw curves to an .html, .svg or .png file")
    frontend.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Score, print, write."""
    import cv2

    from vslam.datasets.trajectory import write_atomically
    from vslam.evaluation import frontend, plot
    from vslam.evaluation.files import json_text
    from vslam.evaluation.pictures import open_pictures

    rules = read_rules(options)
    if options.plot:
        plot.check_suffix(options.plot)
    names = [name for word in options.extractor for name in word.split(",")]
    backends = [name for word in options.backend for name in word.split(",")]
    pictures = open_pictures(options.path, step=options.step, most=options.max_frames)
    cv2.setNumThreads(1)
    with _progress(pictures, options.quiet) as on_picture:
        chosen = frontend.contenders(names, backends, options.precision)
        found = frontend.score_frontends(pictures, chosen, rules, on_picture)
    table = rows(found)
    print(header(found, options.path))
    print(text_table(table))
    if options.json:
        write_atomically(options.json, json_text({"source": options.path.name} | found))
    if options.plot:
        from vslam.evaluation.frontend_page import write_page

        write_page(options.plot, found, f"Front ends on {options.path.name}", table)
    return 0


def read_rules(options: argparse.Namespace) -> Any:
    """The rules that the options ask for.

    Raises:
        VslamError: a value that cannot be.
    """
    from vslam.errors import VslamError
    from vslam.evaluation.frontend import Rules

    for name in ("keypoints", "step"):
        if getattr(options, name) < 1:
            raise VslamError(f"--{name} {getattr(options, name)}: expected a number of at least 1")
    if options.max_frames is not None and options.max_frames < 2:
        raise VslamError(
            f"--max-frames {options.max_frames}: at least two pictures are needed to match one with the next"
        )
    if not 0 < options.ratio <= 1:
        raise VslamError(f"--ratio {options.ratio}: expected a number above 0 and up to 1")
    if not options.f_rej_th > 0:
        raise VslamError(f"--f-rej-th {options.f_rej_th}: expected pixels above 0")
    return Rules(read_size(options.image_size), options.keypoints, options.ratio, options.f_rej_th)


def read_size(text: str) -> tuple[int, int]:
    """`320x240` as (320, 240).

    Raises:
        VslamError: anything else.
    """
    from vslam.errors import VslamError

    width, _, height = text.lower().partition("x")
    if width.isdigit() and height.isdigit() and (int(width) > 0) == (int(height) > 0):
        return int(width), int(height)
    raise VslamError(f"--image-size {text}: expected WIDTHxHEIGHT in pixels, for example 320x240, or 0x0")


def header(found: dict[str, Any], path: Path) -> str:
    """What was measured, in one line."""
    width, height = found["image_size"]
    rules = found["rules"]
    return (
        f"{path.name}: {found['pictures']} pictures at {width}x{height}, {rules['keypoints']} keypoints wanted, "
        f"ratio test {rules['ratio']:g}, epipolar distance {rules['reject_px']:g} px; "
        f"OpenCV's ORB at 640x480: {found['peer_cpu_ms']:.2f} ms CPU"
    )


def rows(found: dict[str, Any]) -> list[list[str]]:
    """The table: a head, and a row a front end."""
    table = [["extractor", *(title for _, title, _ in COLUMNS), "ratio"]]
    for label, scores in found["frontends"].items():
        cells = [form.format(scores[key]["median" if "ms" in key else "mean"]) for key, _, form in COLUMNS]
        table.append([label, *cells, f"{scores['ratio']:.2f}"])
    return table


def text_table(table: list[list[str]]) -> str:
    """Columns in line: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table)


def _progress(pictures: Any, quiet: bool) -> Any:
    """A bar, as a context that gives a function to call for each picture."""
    from contextlib import contextmanager

    from tqdm import tqdm

    @contextmanager
    def bar():
        left = len(pictures.files[pictures.start :: pictures.step]) or None
        total = min(left, pictures.most) if left and pictures.most else left or pictures.most
        with tqdm(total=total, unit="picture", disable=quiet or None, leave=False) as shown:
            yield lambda: shown.update()

    return bar()
