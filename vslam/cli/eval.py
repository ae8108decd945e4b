"""`vslam eval`: score trajectories against the truth."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """ESTIMATE may be a run's output folder, TRUTH a sequence's folder with groundtruth.txt.
ATE is the distance between estimated and true positions after --align. RPE is the error of the motion between two
poses --delta apart: every pair for seconds, consecutive pairs for frames (f) and metres of path (m).
matched: poses of the estimate that have a true one within --max-gap. time covered: share of the truth's time span
without gaps in the matched poses. scale error: s - 1 of a Sim3 fit."""
COLUMNS = (
    ("ate_rmse_m", "ATE rmse, m", "{:.4f}"),
    ("ate_median_m", "median, m", "{:.4f}"),
    ("ate_max_m", "max, m", "{:.4f}"),
    ("rpe_trans_rmse_m", "RPE, m", "{:.4f}"),
    ("rpe_rot_rmse_deg", "RPE, deg", "{:.3f}"),
    ("scale_error", "scale error", "{:+.2%}"),
    ("coverage", "matched", "{:.1%}"),
    ("time_coverage", "time covered", "{:.1%}"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        "estimates", nargs="+", metavar="ESTIMATE", help="trajectory file or run folder; several may be given"
    )
    parser.add_argument("truth", metavar="TRUTH", help="the true trajectory")
    parser.add_argument(
        "--format",
        choices=("auto", "tum", "kitti", "euroc"),
        default="auto",
        help="of all files (default: by their content)",
    )
    parser.add_argument(
        "--align", choices=("none", "se3", "sim3"), default="se3", help="of the estimate to the truth (default: se3)"
    )
    parser.add_argument(
        "--max-gap",
        type=float,
        default=0.02,
        metavar="S",
        help="largest time between a pose and its truth (default: 0.02 s)",
    )
    parser.add_argument(
        "--delta",
        default=None,
        metavar="D",
        help="distance of the RPE: 1s, 10f or 0.5m (default: 1s; 1f for KITTI files)",
    )
    parser.add_argument("--plot", metavar="FILE", help="draw paths and error to an .svg, .html or .png file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Read, score, print."""
    from vslam.errors import VslamError
    from vslam.evaluation import comparison, metrics, plot
    from vslam.evaluation.files import json_text

    if not options.max_gap >= 0:
        raise VslamError(f"--max-gap {options.max_gap}: expected seconds, at least 0")
    if options.plot:
        plot.check_suffix(options.plot)
    delta = metrics.Delta.parse(options.delta) if options.delta is not None else None
    rules = comparison.Rules(options.align, options.max_gap, delta)
    truth = comparison.open_truth(options.truth, options.format)
    estimates = [comparison.open_estimate(path, options.format) for path in options.estimates]
    scores = comparison.compare(estimates, truth, rules)
    if options.plot:
        plot.write_plot(options.plot, estimates, truth, rules)
    print(json_text(scores) if options.json else table(scores), end="")
    return 0


def table(scores: dict[str, Any]) -> str:
    """The scores for people: how they were made, a row per estimate, and the spread of several."""
    rows = [["estimate", *(title for _, title, _ in COLUMNS)]]
    rows += [[row["file"], *_cells(row)] for row in scores["estimates"]]
    if len(scores["estimates"]) > 1:
        for name in ("median", "min", "max"):
            values = {key: spread and spread[name] for key, spread in scores["spread"].items()}
            rows.append([name, *_cells(values)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    rules = f"alignment {scores['alignment']}, matches within {scores['max_gap_s']:g} s, RPE over {scores['delta']}"
    head = [f"truth {scores['truth']}: {scores['truth_poses']} poses; {rules}", ""]
    return "\n".join(head + lines) + "\n"


def _cells(values: dict[str, Any]) -> list[str]:
    return [form.format(values[key]) if values[key] is not None else "-" for key, _, form in COLUMNS]
