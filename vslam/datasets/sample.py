"""The embedded sample: a textured room seen by a hand-held RGB-D camera, made once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vslam.cache import cache_folder
from vslam.datasets.camera import find_camera, write_camera
from vslam.datasets.lists import pair_lists
from vslam.datasets.rgbd import RgbdSequence
from vslam.datasets.tum import read_truth
from vslam.errors import VslamError
from vslam.types import Camera, Trajectory

log = logging.getLogger(__name__)

FRAMES, WIDTH, HEIGHT, FPS, SEED = 300, 640, 480, 30.0, 7
VERSION = 1  # raise it when the pictures change: older samples are then left aside
MANIFEST = "manifest.json"
LISTS = ("rgb.txt", "depth.txt", "groundtruth.txt", "camera.yaml")
JPEG_QUALITY = 92  # with this the whole sample stays under 80 MB
_UNFINISHED = ".unfinished-"
_STALE_S = 3600.0  # a folder that was being made an hour ago was given up


def open_sample(
    path: str | Path | None = None, camera_file: str | Path | None = None, quiet: bool = False
) -> RgbdSequence:
    """The sample, made first if need be (`path` None: in the user's cache); its `name` is "sample".

    Raises:
        VslamError: `path` is a folder of something else, or cannot be written.
    """
    folder = ensure_sample(path, quiet)
    pairs = pair_lists(folder / "rgb.txt", folder / "depth.txt")
    camera = find_camera(folder, camera_file)
    return RgbdSequence("sample", camera, *pairs, truth=read_truth(folder / "groundtruth.txt")).check()


def ensure_sample(path: str | Path | None = None, quiet: bool = False) -> Path:
    """The folder of the complete sample; makes it when it is missing or broken.

    Raises:
        VslamError: `path` is a folder of something else, or cannot be written.
    """
    folder = Path(path) if path is not None else cache_folder("sample") / f"room-{VERSION}"
    if is_complete(folder):
        return folder
    if folder.exists() and not (folder / MANIFEST).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise VslamError(
            f"{folder}: is not the sample; give an empty or new folder, or '--dataset tum' to read this one"
        )
    if folder.exists():
        log.info("%s: the sample is incomplete or from another version and is made again", folder)
    make_apart(folder, quiet)
    return folder


def make_apart(folder: Path, quiet: bool) -> None:
    """`make_sample` in a process of its own: the 100 MB that rendering leaves in memory would stay for the run."""
    import numba

    import vslam.kernels  # noqa: F401  chooses the folder of compiled kernels

    call = f"from vslam.datasets.sample import _child; _child({str(folder)!r}, {quiet!r})"
    here = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "NUMBA_CACHE_DIR": numba.config.CACHE_DIR}
    child = subprocess.run([sys.executable, "-c", call], env=os.environ | here, stdout=subprocess.PIPE)
    if child.returncode == 130:
        raise KeyboardInterrupt
    if child.returncode == 2:
        raise VslamError(child.stdout.decode().strip())
    child.check_returncode()


def _child(folder: str, quiet: bool) -> None:
    try:
        make_sample(folder, quiet=quiet)
    except VslamError as error:
        print(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def is_complete(folder: Path) -> bool:
    """Whether every file of the sample has the size, and every list the checksum, that were noted when it was made."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return (
            manifest["version"] == VERSION
            and all(os.stat(folder / name).st_size == size for name, size in manifest["sizes"].items())
            and all(_sha256(folder / name) == digest for name, digest in manifest["sha256"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def make_sample(
    folder: str | Path,
    frames: int = FRAMES,
    width: int = WIDTH,
    height: int = HEIGHT,
    seed: int = SEED,
    workers: int = 2,
    quiet: bool = False,
) -> Path:
    """Render the sample in TUM layout into `folder`, which appears complete or not at all; returns it.

    The first `frames` at 30 Hz of a round of 300 frames; the same arguments give the same bytes.

    Raises:
        VslamError: the folder cannot be written, or the disk is full.
    """
    folder = Path(folder)
    focal = 525.0 * width / WIDTH
    camera = Camera(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height, FPS)
    try:
        with _appearing(folder) as unfinished:
            _render_all(unfinished, frames, camera, seed, workers, quiet)
            _write_manifest(unfinished)
    except OSError as error:
        raise VslamError(
            f"{folder}: the sample cannot be written: {error.strerror}; set VSLAM_CACHE to a folder with 100 MB free"
        ) from None
    return folder


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that takes its name at the end; what was there before is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder.parent)
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        _take_name(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _take_name(finished: Path, folder: Path) -> None:
    for _ in range(10):  # another process may put its own sample there in between
        if folder.exists():
            aside = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
            folder.rename(aside / "old")
            shutil.rmtree(aside, ignore_errors=True)
        try:
            finished.rename(folder)
            return
        except OSError:
            if is_complete(folder):
                return
    raise OSError(0, "its place keeps being taken by another process")


def _remove_stale(parent: Path) -> None:
    for left in parent.glob(f"{_UNFINISHED}*"):
        try:
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:  # its owner has just finished
            continue


def _render_all(folder: Path, frames: int, camera: Camera, seed: int, workers: int, quiet: bool) -> None:
    from tqdm import tqdm

    from vslam.datasets.synthetic.motion import carried_poses
    from vslam.datasets.synthetic.room import build_scene

    times = np.arange(frames) / FPS
    poses = carried_poses(times)
    _write_lists(folder, times, poses, camera)
    with tqdm(total=frames, desc="Making the sample (once)", unit="frame", leave=False, disable=quiet or None) as bar:
        scene = build_scene(seed, quality=camera.width / WIDTH, workers=workers)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="vslam-sample")
        try:
            jobs = [
                pool.submit(_write_frame, folder, scene, camera, times[k], poses[k], (seed, k)) for k in range(frames)
            ]
            for job in jobs:
                job.result()
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_frame(
    folder: Path, scene, camera: Camera, timestamp: float, pose: np.ndarray, seed: tuple[int, int]
) -> None:
    import cv2

    from vslam.datasets.synthetic.render import render
    from vslam.datasets.synthetic.sensor import sense_colour, sense_depth

    rng = np.random.default_rng((*seed, 1))
    image, depth, owner = render(scene, camera, pose)
    raw = sense_depth(scene, camera, pose, depth, owner, rng)
    png = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # depth in steps packs best as it is
        png += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, data = cv2.imencode(".jpg", sense_colour(image, rng), jpeg)
    (folder / "rgb" / f"{timestamp:.6f}.jpg").write_bytes(data.tobytes())
    _, data = cv2.imencode(".png", raw, png)
    (folder / "depth" / f"{timestamp:.6f}.png").write_bytes(data.tobytes())


def _write_lists(folder: Path, times: np.ndarray, poses: np.ndarray, camera: Camera) -> None:
    from vslam.datasets.trajectory import write_tum

    for name, kind in (("rgb", "jpg"), ("depth", "png")):
        (folder / name).mkdir()
        lines = "".join(f"{t:.6f} {name}/{t:.6f}.{kind}\n" for t in times)
        (folder / f"{name}.txt").write_text(f"# timestamp filename\n{lines}")
    write_tum(folder / "groundtruth.txt", Trajectory(np.round(times, 6), poses))
    write_camera(folder / "camera.yaml", camera)


def _write_manifest(folder: Path) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    manifest = {
        "version": VERSION,
        "sizes": {str(file.relative_to(folder)): file.stat().st_size for file in files},
        "sha256": {name: _sha256(folder / name) for name in LISTS},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
