"""`vslam place`: which image shows the same place? Index a folder, ask it, score a network."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vslam.registry import BACKENDS, PRECISIONS, names

IMAGES = """IMAGES is a folder (all images below it, or those of its rgb.txt), FILE.npz:KEY with an array
(N, H, W) uint8, or one image."""
EVAL_EPILOG = f"""{IMAGES}
TRUTH is one of
  frames                  image i shows place i in both sets (Nordland, Gardens Point)
  poses                   positions.csv, groundtruth.txt or poses.txt in or beside each folder
  PAIRS.csv               columns query,database: names or indices of images of one place
  DATABASE QUERY          two files of positions: CSV with the columns x,y[,z][,heading][,image] in metres and
                          degrees, or a trajectory (TUM, KITTI, EuRoC)
A query is right when the found image is within --tolerance of the truth and, where it is known which way images look,
within --max-turn. Recall@N: share of the queries with a match that find one among the N most similar. AUC: area under
precision over recall as the threshold on the similarity falls; accepting a query without a match is a mistake."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-commands index, query and eval."""
    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    index = commands.add_parser("index", help="describe images and write an index", epilog=IMAGES)
    index.add_argument("images", metavar="IMAGES")
    index.add_argument("-o", "--out", type=Path, required=True, metavar="INDEX", help="the file to write")
    index.add_argument(
        "--kind", choices=("auto", "exact", "codes", "hnsw"), default="auto", help="how to compare (auto)"
    )
    query = commands.add_parser("query", help="ask an index which of its images are most similar", epilog=IMAGES)
    query.add_argument("index", type=Path, metavar="INDEX")
    query.add_argument("images", metavar="IMAGES")
    query.add_argument("-k", type=int, default=5, help="answers for each image (%(default)s)")
    score = commands.add_parser(
        "eval",
        help="score place recognition: Recall@N, precision over recall",
        epilog=EVAL_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument("--database", required=True, metavar="IMAGES", help="the places, in the order of the visit")
    score.add_argument(
        "--query", required=True, metavar="IMAGES", help="another visit; may be the same images, see --gap"
    )
    score.add_argument("--truth", required=True, nargs="+", metavar="TRUTH", help="see below")
    score.add_argument("--tolerance", required=True, metavar="N|Xm", help="2 or 10frames, or 25m")
    score.add_argument("--max-turn", type=float, default=30.0, metavar="DEG", help="between two views (%(default)g)")
    score.add_argument("--gap", metavar="N|Xs", help="compare only with images so long before the query: 100 or 10s")
    score.add_argument("--sequence", type=int, default=0, metavar="N", help="also score sequences of N images")
    score.add_argument("--json", action="store_true", help="print JSON instead of a table")
    for command in (query, score):
        command.add_argument("--plot", type=Path, metavar="FILE.html", help="a page with pictures")
    for command in (index, query, score):
        _add_network(command, "as the index says" if command is query else "gem")


def run(options: argparse.Namespace) -> int:
    """Do what the sub-command says; returns the exit code."""
    from vslam.errors import VslamError
    from vslam.system import cap_threads

    cap_threads()
    page = getattr(options, "plot", None)
    if page is not None and page.suffix.lower() not in (".html", ".htm"):
        raise VslamError(f"--plot {page}: expected a name that ends in .html")
    return {"index": _index, "query": _query, "eval": _eval}[options.what](options)


def _add_network(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--place", choices=names("places"), help=f"the network (default: {default})")
    parser.add_argument("--backend", choices=BACKENDS, default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the shipped network (auto)")
    parser.add_argument("--weights", metavar="FILE", help="an ONNX file of your own instead of the shipped network")
    parser.add_argument("--scales", type=float, nargs="+", help="sizes at which images are described (1.0)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _index(options: argparse.Namespace) -> int:
    from vslam.evaluation import places_index
    from vslam.evaluation.places_images import open_images

    images = open_images(options.images)
    name, settings = options.place or "gem", _settings(options)
    index = places_index.build(images, name, settings, options.backend, options.kind, options.out, _progress(options))
    index.save(options.out)
    print(f"{options.out}: {len(index)} images by {index.model}, {index.nbytes / 1e6:.2f} MB in memory")
    return 0


def _query(options: argparse.Namespace) -> int:
    from vslam.datasets.trajectory import write_atomically
    from vslam.evaluation import places_index
    from vslam.evaluation.places_images import open_images
    from vslam.evaluation.places_report import answers_html

    opened = places_index.open_index(options.index, options.place, _settings(options), options.backend, options.k)
    images = open_images(options.images)
    found, scores = opened.ask(images, options.k, _progress(options))
    width = max(map(len, images.names))
    for row, answers in enumerate(found):
        words = [f"{name} {score:.3f}" for name, score in zip(answers, scores[row], strict=True)]
        print(f"{images.names[row]:{width}}  " + "  ".join(words))
    if options.plot:
        write_atomically(options.plot, answers_html(images, opened.images(), found, scores, opened.index.model))
    return 0


def _eval(options: argparse.Namespace) -> int:
    from vslam.datasets.trajectory import write_atomically
    from vslam.evaluation import places, places_index
    from vslam.evaluation.files import json_text
    from vslam.evaluation.places_images import open_images
    from vslam.evaluation.places_report import comparison_html
    from vslam.evaluation.places_truth import Tolerance, open_truth

    tolerance = Tolerance.parse(options.tolerance)
    gap = places.Gap.parse(options.gap) if options.gap else None
    database, queries = open_images(options.database), open_images(options.query)
    places.check_sets(database, queries, gap)
    truth = open_truth(options.truth, database, queries, tolerance, options.max_turn)
    place = places_index.make_network(options.place or "gem", _settings(options), options.backend)
    similarity = places_index.similarities(place, database, queries, _progress(options))
    found = places.compare(database, queries, truth, place.model, similarity, gap, options.sequence)
    print(json_text(found.figures()) if options.json else table(found), end="")
    if options.plot:
        write_atomically(options.plot, comparison_html(found))
    return 0


def table(found: Any) -> str:
    """A comparison for people: what was compared, and a row for each way."""
    from vslam.evaluation.places_report import COLUMNS

    figures = found.figures()
    rows = [["", *(title for _, title, _, _ in COLUMNS)]]
    for name, scores in figures["scores"].items():
        rows.append([name, *(form.format(factor * scores[key]) for key, _, factor, form in COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    judged = figures["scores"]["image"]
    head = [
        f"database {figures['database']}: {figures['judged_database']} images; model {figures['model']}",
        f"query {figures['query']}: {figures['judged_query']} images, {judged['queries_with_match']} with a match",
        f"right: {figures['rule']}",
        "",
    ]
    return "\n".join(head + lines) + "\n"


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The network's settings that were given, without the back end, which does not change the vectors."""
    given = {key: getattr(options, key) for key in ("precision", "weights", "scales")}
    return {key: value for key, value in given.items() if value is not None}


def _progress(options: argparse.Namespace) -> Any:
    from tqdm import tqdm

    def show(rows: Iterable[int], what: str) -> Iterable[int]:
        return tqdm(rows, desc=what, unit="image", leave=False, disable=options.quiet or None)

    return show
