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


HOMOGRAPHIES = """Means over all pairs of pictures 1 and k. repeatability: keypoints with one of the other picture
within 3 px; localisation: their mean distance; 1, 3, 5 px: pairs whose corners end within these under the estimated
homography; matching score: right mutual matches over keypoints; precision: right among mutual matches."""
MOTION = """Share of pairs of frames, in %, whose motion PnP recovers within 5 degrees and 5 cm, by the frames between
them, and in brackets the mean overlap of the views."""
PLANE_COLUMNS = (
    ("repeatability", "repeatability", "{:.3f}"),
    ("localisation_px", "localisation px", "{:.2f}"),
    ("homography_1px", "1 px", "{:.3f}"),
    ("homography_3px", "3 px", "{:.3f}"),
    ("homography_5px", "5 px", "{:.3f}"),
    ("matching_score", "matching score", "{:.3f}"),
    ("precision", "precision", "{:.3f}"),
    ("keypoints", "keypoints", "{:.0f}"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-commands `frontend`, `homographies`, `motion`."""
    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    form = argparse.RawDescriptionHelpFormatter
    for what, words, epilog in (
        ("frontend", "keypoints and matches of extractors from picture to picture", EPILOG),
        ("homographies", "keypoints and matches on pictures of planes (HPatches layout)", HOMOGRAPHIES),
        ("motion", "how far apart frames may be for the motion to be recovered", MOTION),
    ):
        command = commands.add_parser(what, help=words, epilog=epilog, formatter_class=form)
        _add_common(command)
        {"frontend": _add_frontend, "homographies": _add_homographies, "motion": _add_motion}[what](command)


def _add_homographies(command: argparse.ArgumentParser) -> None:
    command.add_argument("--path", type=Path, required=True, help="a scene, or a folder of scenes")


def _add_motion(command: argparse.ArgumentParser) -> None:
    from vslam.registry import names

    command.add_argument("--dataset", choices=names("datasets"), default="tum", help="layout (%(default)s)")
    command.add_argument("--path", type=Path, help="its folder, with depth and true poses (default: the sample)")
    command.add_argument("--gaps", default="5,15,30,60,90", help="frames, with commas between (%(default)s)")
    command.add_argument("--stride", type=int, default=8, help="every so many frames begin a pair (%(default)s)")
    command.add_argument("--max-frames", type=int, metavar="N", help="at most so many frames")


def _add_frontend(frontend: argparse.ArgumentParser) -> None:
    from vslam.registry import names

    frontend.add_argument("--path", type=Path, help="a folder of images, a sequence's folder, or a video")
    frontend.add_argument("--dataset", choices=names("datasets"), help="read --path as this layout")
    frontend.add_argument("--ratio", type=float, default=0.7, help="of the ratio test (%(default)s)")
    frontend.add_argument(
        "--f-rej-th", type=float, default=5.0, metavar="PX", help="from the epipolar line, at most (%(default)s)"
    )
    frontend.add_argument("--step", type=int, default=1, metavar="N", help="take every n-th picture (%(default)s)")
    frontend.add_argument("--max-frames", type=int, metavar="N", help="at most so many pictures")
    frontend.add_argument("--plot", type=Path, metavar="FILE", help="draw curves to an .html, .svg or .png file")


def _add_common(command: argparse.ArgumentParser) -> None:
    from vslam.registry import names

    known = ", ".join(names("extractors"))
    command.add_argument(
        "--extractor", "--extractors", nargs="+", default=["orb"], metavar="NAME", help=f"one or more of {known} (orb)"
    )
    command.add_argument(
        "--backend", "--backends", nargs="+", default=["auto"], metavar="NAME",
        help="of learned extractors: auto, onnx, openvino, torch; several are compared",
    )  # fmt: skip
    command.add_argument(
        "--precision", nargs="+", default=["auto"], metavar="NAME", help="of learned extractors: auto, fp32, int8"
    )
    command.add_argument(
        "--image-size", default="320x240", metavar="WxH", help="resized to; 0x0: as it is (%(default)s)"
    )
    command.add_argument("--keypoints", type=int, default=500, metavar="N", help="wanted a picture (%(default)s)")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    command.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Score, print, write."""
    import cv2

    cv2.setNumThreads(1)
    return {"frontend": _frontend, "homographies": _homographies, "motion": _motion}[options.what](options)


def _chosen(options: argparse.Namespace) -> list[Any]:
    """The front ends that the options name."""
    from vslam.evaluation.frontend import contenders

    names = [name for word in options.extractor for name in word.split(",")]
    backends = [name for word in options.backend for name in word.split(",")]
    return contenders(names, backends, options.precision)


def _homographies(options: argparse.Namespace) -> int:
    from vslam.evaluation import homographies

    rules = read_rules(options)
    pairs = homographies.read_scenes(options.path, rules.image_size)
    found = homographies.score_planes(pairs, _chosen(options), rules)
    scenes = len({pair.scene for pair in pairs})
    size = "x".join(map(str, pairs[0].images[0].shape[::-1]))
    print(f"{options.path.name}: {len(pairs)} pairs of {scenes} scenes at {size}, {rules.keypoints} keypoints wanted")
    table = [["extractor", *(title for _, title, _ in PLANE_COLUMNS)]]
    for label, scores in found["frontends"].items():
        table.append([label, *(form.format(scores["mean"][key]) for key, _, form in PLANE_COLUMNS)])
    print(text_table(table))
    _write_json(options, found)
    return 0


def _motion(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vslam.datasets import open_dataset
    from vslam.evaluation import motion

    rules, tried = read_rules(options), read_motion_rules(options)
    chosen = _chosen(options)
    dataset = open_dataset(options.dataset, options.path)
    with tqdm(unit="frame", disable=options.quiet or None, leave=False) as bar:
        found = motion.score_motion(dataset, chosen, rules, tried, options.max_frames, bar.update)
    print(f"{dataset.name}: {found['frames']} frames, {rules.keypoints} keypoints wanted; recovered, % (overlap)")
    table = [["extractor", "keypoints", *(f"gap {gap}" for gap in tried.gaps), "mean"]]
    for label, scores in found["frontends"].items():
        cells = [_share(row) for row in scores["gaps"].values()]
        mean = "-" if scores["mean"] is None else f"{100 * scores['mean']:.1f}"
        table.append([label, f"{scores['keypoints']:.0f}", *cells, mean])
    print(text_table(table))
    _write_json(options, found)
    return 0


def _share(row: dict[str, Any]) -> str:
    return f"{100 * row['success']:.0f} ({100 * row['overlap']:.0f})" if row["pairs"] else "-"


def _write_json(options: argparse.Namespace, found: dict[str, Any]) -> None:
    from vslam.datasets.trajectory import write_atomically
    from vslam.evaluation.files import json_text

    if options.json:
        source = options.path.name if options.path else "sample"
        write_atomically(options.json, json_text({"source": source} | found))


def _frontend(options: argparse.Namespace) -> int:
    from vslam.evaluation import frontend, plot

    rules = read_rules(options)
    if options.plot:
        plot.check_suffix(options.plot)
    pictures, name = _pictures(options)
    chosen = _chosen(options)
    with _progress(pictures, options.quiet) as on_picture:
        found = frontend.score_frontends(pictures, chosen, rules, on_picture)
    table = rows(found)
    print(header(found, name))
    print(text_table(table))
    _write_json(options, found)
    if options.plot:
        from vslam.evaluation.frontend_page import write_page

        write_page(options.plot, found, f"Front ends on {name}", table)
    return 0


def _pictures(options: argparse.Namespace) -> tuple[Any, str]:
    """The pictures that the options name, and what to call them."""
    from vslam.datasets import open_dataset
    from vslam.errors import VslamError
    from vslam.evaluation.pictures import DatasetPictures, open_pictures

    if options.dataset:
        dataset = open_dataset(options.dataset, options.path)
        return DatasetPictures(dataset, options.step, options.max_frames), dataset.name
    if options.path is None:
        raise VslamError("which pictures? Give a folder of images or a video with --path, or --dataset sample")
    return open_pictures(options.path, step=options.step, most=options.max_frames), options.path.name


def read_rules(options: argparse.Namespace) -> Any:
    """The rules that the options ask for.

    Raises:
        VslamError: a value that cannot be.
    """
    from vslam.errors import VslamError
    from vslam.evaluation.frontend import Rules

    for name in ("keypoints", "step", "stride"):
        if getattr(options, name, 1) < 1:
            raise VslamError(f"--{name} {getattr(options, name)}: expected a number of at least 1")
    if getattr(options, "max_frames", None) is not None and options.max_frames < 2:
        raise VslamError(
            f"--max-frames {options.max_frames}: at least two pictures are needed to match one with the next"
        )
    rules = Rules(read_size(options.image_size), options.keypoints)
    if options.what != "frontend":
        return rules
    if not 0 < options.ratio <= 1:
        raise VslamError(f"--ratio {options.ratio}: expected a number above 0 and up to 1")
    if not options.f_rej_th > 0:
        raise VslamError(f"--f-rej-th {options.f_rej_th}: expected pixels above 0")
    return Rules(rules.image_size, options.keypoints, options.ratio, options.f_rej_th)


def read_motion_rules(options: argparse.Namespace) -> Any:
    """Gaps and stride that the options ask for.

    Raises:
        VslamError: a value that cannot be.
    """
    from vslam.errors import VslamError
    from vslam.evaluation.motion import MotionRules

    words = options.gaps.split(",")
    if not all(word.strip().isdigit() and int(word) > 0 for word in words):
        raise VslamError(f"--gaps {options.gaps}: expected numbers of frames with commas between, for example 5,15,30")
    return MotionRules(tuple(int(word) for word in words), options.stride)


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


def header(found: dict[str, Any], name: str) -> str:
    """What was measured, in one line."""
    width, height = found["image_size"]
    rules = found["rules"]
    return (
        f"{name}: {found['pictures']} pictures at {width}x{height}, {rules['keypoints']} keypoints wanted, "
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
        with tqdm(total=len(pictures) or None, unit="picture", disable=quiet or None, leave=False) as shown:
            yield lambda: shown.update()

    return bar()
