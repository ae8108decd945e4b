"""`vslam download`: fetch a public sequence."""

from __future__ import annotations

import argparse
import logging


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("dataset", choices=("tum",), help="which collection")
    parser.add_argument("sequence", nargs="?", metavar="SEQUENCE", help="for example freiburg1_xyz or fr1/xyz")
    parser.add_argument("--output", default="data", metavar="DIR", help="folder to put it in (default: data)")
    parser.add_argument("--list", action="store_true", help="print the known sequences and stop")
    parser.add_argument("--base-url", metavar="URL", help="a mirror (default: where TUM publishes them)")
    parser.add_argument("--sha256", metavar="HEX", help="checksum of the archive, if you know it")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Fetch, or list."""
    from vslam.datasets.download import TUM_URL, Fetcher, download_sequence, tum_names, tum_url
    from vslam.errors import VslamError

    if options.list:
        print("\n".join(tum_names()))
        return 0
    if not options.sequence:
        raise VslamError("which sequence? For example: vslam download tum freiburg1_xyz; --list prints all")
    url = tum_url(options.sequence, options.base_url or TUM_URL)
    logging.basicConfig(format="%(message)s", level=logging.WARNING if options.quiet else logging.INFO)
    with _bar(url, options.quiet) as bar:
        folder = download_sequence(url, options.output, options.sha256, Fetcher(progress=_mover(bar)))
    print(f"{folder}  (run it: vslam run --dataset tum --path {folder})")
    return 0


def _bar(url: str, quiet: bool):
    from tqdm import tqdm

    return tqdm(desc=url.rsplit("/", 1)[-1], unit="B", unit_scale=True, unit_divisor=1024, disable=quiet or None)


def _mover(bar):
    def move(there: int, total: int | None) -> None:
        bar.total = total
        bar.update(there - bar.n)

    return move
