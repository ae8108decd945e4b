"""The command line: finds the command, hands over, and says a user's mistake in one line."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import NoReturn

COMMANDS = {
    "run": "run SLAM on a recorded sequence and score it",
    "eval": "score trajectories against ground truth (ATE, RPE)",
    "download": "fetch a public sequence",
    "bench": "measure front ends on your own pictures",
    "demo": "see keypoints and matches",
    "models": "list, check and convert networks",
    "train": "train the networks (extra: vslam[train])",
    "export": "write a network as ONNX or OpenVINO, with its parity checked",
    "map": "look into a saved map, export it to COLMAP or PLY",
    "place": "index images by place, ask which are alike, score place recognition",
}


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line, like every other mistake of the user."""

    def error(self, message: str) -> NoReturn:
        """Print and exit with code 2."""
        self.exit(2, f"vslam: error: {message}; see '{self.prog} --help'\n")


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; only `command`'s module is imported, so that `vslam --help` stays instant."""
    from vslam import __version__

    parser = Parser(prog="vslam", description="Real-time visual SLAM in Python.")
    parser.add_argument("--version", action="version", version=f"vslam {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == command:
            import_module(f"vslam.cli.{name}").add_arguments(sub)
    return parser


def cap_library_threads() -> None:
    """Threads come from the stages; set before numpy is imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 the user's mistake, 130 Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    command = next((word for word in argv if word in COMMANDS), None)
    options = build_parser(command).parse_args(argv)
    cap_library_threads()
    from vslam.errors import VslamError

    try:
        return import_module(f"vslam.cli.{options.command}").run(options)
    except VslamError as error:
        print(f"vslam: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
