"""`vslam map`: what a saved map holds, and its export for other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vslam.mapping.archive import StoredMap


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-commands show and export."""
    from vslam.registry import names

    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    show = commands.add_parser("show", help="print what a map holds")
    show.add_argument("file", type=Path, metavar="FILE", help="made by 'vslam run --save-map'")
    show.add_argument("--json", action="store_true", help="for programs; keys as in docs/maps.md")
    export = commands.add_parser("export", help="write a map as COLMAP text or as PLY")
    export.add_argument("file", type=Path, metavar="FILE", help="made by 'vslam run --save-map'")
    export.add_argument("--colmap", type=Path, metavar="DIR", help="cameras.txt, images.txt and points3D.txt")
    export.add_argument("--ply", type=Path, metavar="FILE", help="the points with their colours")
    export.add_argument(
        "--images", type=Path, metavar="DIR", help="with --colmap: the keyframes' images without distortion, and a "
        "pinhole camera to match; needs --dataset and --path",
    )  # fmt: skip
    export.add_argument("--dataset", choices=names("datasets"), help="layout of the recording the map was made from")
    export.add_argument("--path", type=Path, metavar="DIR", help="its folder")


def run(options: argparse.Namespace) -> int:
    """Do what the sub-command says; returns the exit code."""
    return {"show": _show, "export": _export}[options.what](options)


def _show(options: argparse.Namespace) -> int:
    from vslam.evaluation.files import json_text
    from vslam.evaluation.map_facts import map_facts
    from vslam.mapping.archive import load_map

    facts = map_facts(load_map(options.file), options.file.stat().st_size)
    print(json_text(facts) if options.json else _text(facts), end="")
    return 0


def _text(facts: dict[str, Any]) -> str:
    camera, places = facts["camera"], facts["places"]
    lens = f", distortion {camera['distortion']}" if any(camera["distortion"]) else ""
    rows = {
        "saved": f"{facts['saved']} by vslam {facts['vslam']}",
        "sequence": facts["sequence"] or "not known",
        "keyframes": f"{facts['keyframes']}, {facts['retired']} more were removed",
        "points": f"{facts['points']}, each seen {facts['observations_per_point']:.1f} times",
        "extent": " x ".join(f"{side:.1f}" for side in facts["extent_m"]) + " m",
        "camera": f"{camera['width']}x{camera['height']}, fx {camera['fx']:g} fy {camera['fy']:g} "
        f"cx {camera['cx']:g} cy {camera['cy']:g}{lens}",
        "features": facts["features"],
        "places": f"{places['vectors']} vectors of {places['model']}" if places["vectors"] else "none",
        "size": f"{facts['bytes'] / 1e6:.1f} MB, {facts['bytes'] / 1e3 / facts['keyframes']:.0f} kB a keyframe",
    }
    return "".join(f"{name:10} {text}\n" for name, text in rows.items())


def _export(options: argparse.Namespace) -> int:
    from vslam.errors import VslamError
    from vslam.mapping.archive import load_map

    if not options.colmap and not options.ply:
        raise VslamError("vslam map export: nothing to write; give --colmap DIR, --ply FILE, or both")
    if options.images and not (options.colmap and options.dataset):
        raise VslamError(
            f"--images {options.images}: needs the recording and the text that goes with the images; "
            "give --colmap DIR, --dataset LAYOUT and --path DIR too"
        )
    stored = load_map(options.file)
    if options.colmap:
        _export_colmap(stored, options)
    if options.ply:
        _export_ply(stored, options.ply)
    return 0


def _export_colmap(stored: StoredMap, options: argparse.Namespace) -> None:
    from dataclasses import replace

    from vslam.evaluation.colmap import is_distorted, keyframe_images, write_colmap, write_images

    if options.dataset:
        from vslam.datasets import open_dataset

        dataset = open_dataset(options.dataset, options.path)
        stored = replace(stored, images=stored.images | keyframe_images(stored.map, dataset))
    if options.images:
        count = write_images(options.images, stored, dataset)
        print(f"{options.images}: {count} images without distortion")
    write_colmap(options.colmap, stored, undistorted=bool(options.images))
    print(f"{options.colmap}: cameras.txt, images.txt ({len(stored.map)}), points3D.txt ({stored.map.point_count})")
    if is_distorted(stored.camera) and not options.images:
        print(
            "vslam: the camera has distortion; for tools that read only pinholes add --images DIR, or run "
            "'colmap image_undistorter'", file=sys.stderr,
        )  # fmt: skip


def _export_ply(stored: StoredMap, file: Path) -> None:
    import numpy as np

    from vslam.datasets.trajectory import write_atomically
    from vslam.evaluation.files import ply_bytes

    points = stored.map.points
    rows = np.flatnonzero(points.alive)
    write_atomically(file, ply_bytes(points.xyz[rows], points.rgb[rows]))
    print(f"{file}: {len(rows)} points")
