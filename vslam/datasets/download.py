"""Fetching public sequences: resumed where a connection broke, unpacked with care, in place all at once."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import logging
import shutil
import ssl
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vslam.errors import VslamError

log = logging.getLogger(__name__)

TUM_URL = "https://cvg.cit.tum.de/rgbd/dataset"
TUM_SEQUENCES = {
    1: "xyz rpy 360 floor desk desk2 room plant teddy",
    2: "xyz rpy 360_hemisphere 360_kidnap desk large_no_loop large_with_loop pioneer_360 pioneer_slam pioneer_slam2 "
    "pioneer_slam3 coke dishes flowerbouquet flowerbouquet_brownbackground metallic_sphere metallic_sphere2 "
    "desk_with_person",
    3: "long_office_household nostructure_notexture_far nostructure_notexture_near_withloop nostructure_texture_far "
    "nostructure_texture_near_withloop structure_notexture_far structure_notexture_near structure_texture_far "
    "structure_texture_near cabinet large_cabinet teddy sitting_static sitting_xyz sitting_halfsphere sitting_rpy "
    "walking_static walking_xyz walking_halfsphere walking_rpy",
}
ATTEMPTS = 5  # in a row without a byte
TIMEOUT_S = 30.0
CHUNK = 1 << 18
Progress = Callable[[int, int | None], None]  # bytes there, bytes in all if known


class _CannotResume(Exception):
    """The server's file is no longer the one whose beginning is here."""


@dataclass(frozen=True)
class Fetcher:
    """How to fetch: a function that is told the progress, and how long to wait before the n-th attempt, in seconds."""

    progress: Progress = lambda there, total: None
    wait: Callable[[int], float] = lambda attempt: min(2.0**attempt, 30.0)


def tum_names() -> list[str]:
    """All known sequences, such as `freiburg1_xyz`."""
    return [f"freiburg{k}_{name}" for k, names in TUM_SEQUENCES.items() for name in names.split()]


def tum_url(sequence: str, base_url: str = TUM_URL) -> str:
    """Where TUM publishes a sequence; takes `freiburg1_xyz`, `fr1_xyz`, `fr1/xyz` or the archive's own name.

    Raises:
        VslamError: unknown; the message lists the known ones.
    """
    name = sequence.removeprefix("rgbd_dataset_").replace("/", "_").removesuffix(".tgz")
    if name.startswith("fr") and not name.startswith("freiburg"):
        name = f"freiburg{name[2:]}"
    if name not in tum_names():
        raise VslamError(f"unknown TUM sequence '{sequence}'; known: {', '.join(tum_names())}")
    return f"{base_url.rstrip('/')}/{name.partition('_')[0]}/rgbd_dataset_{name}.tgz"


def download_sequence(url: str, output: str | Path, sha256: str | None = None, fetcher: Fetcher | None = None) -> Path:
    """Fetch a `.tgz` that holds one folder, and unpack it; returns the folder `output/<name of the archive>`.

    A broken download is kept as `<name>.tgz.part` and resumed by the next call. TUM publishes no checksums: the size
    that the server states and gzip's own checksum are checked, and `sha256` where the caller knows it.

    Raises:
        VslamError: not found, no connection, disk full, wrong checksum, an archive that is broken or unsafe.
    """
    output = Path(output)
    archive = output / url.rsplit("/", 1)[-1]
    folder = output / archive.name.removesuffix(".tgz")
    if folder.exists():
        log.info("%s is there already", folder)
        return folder
    try:
        output.mkdir(parents=True, exist_ok=True)
        fetch(url, archive, sha256, fetcher)
        unpack(archive, folder)
        archive.unlink()
    except OSError as error:
        raise VslamError(_disk_trouble(output, error)) from None
    return folder


def _disk_trouble(folder: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{folder}: the disk is full; free some space and run the same command, it goes on where it stopped"
    return f"{folder}: cannot be written: {error.strerror or error}; choose another folder with --output"


def fetch(url: str, target: Path, sha256: str | None = None, fetcher: Fetcher | None = None) -> None:
    """Download a file to `target`, through `<target>.part`; goes on with one that is there.

    Raises:
        VslamError: the server refuses, the connection keeps breaking, or the checksum is wrong.
    """
    if target.exists():
        return
    if not url.startswith(("http://", "https://")):
        raise VslamError(f"{url}: not an http or https address; check --base-url")
    part = target.with_name(f"{target.name}.part")
    _fetch_part(url, part, fetcher or Fetcher())
    if sha256 and (found := _sha256(part)) != sha256.lower():
        part.unlink()
        raise VslamError(f"{url}: sha256 is {found}, expected {sha256}; the file was removed, try again")
    _tag_file(part).unlink(missing_ok=True)
    part.replace(target)


def _fetch_part(url: str, part: Path, fetcher: Fetcher) -> None:
    attempt = 0
    while True:
        before = _size(part)
        try:
            _fetch_rest(url, part, fetcher.progress)
            return
        except _CannotResume:
            part.unlink()
            fault = "the file changed while it was being fetched"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise VslamError(f"{url}: the server answers {error.code} {error.reason}; check --base-url") from None
            fault = f"the server answers {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
            fault = str(getattr(error, "reason", None) or error or type(error).__name__)
        attempt = 0 if _size(part) > before else attempt + 1
        if attempt >= ATTEMPTS:
            raise VslamError(f"{url}: no connection after {ATTEMPTS} attempts ({fault}); run it again to go on")
        log.info("%s: %s; trying again", url, fault)
        time.sleep(fetcher.wait(attempt))


def _fetch_rest(url: str, part: Path, progress: Progress) -> None:
    """One request for what is missing. `If-Range` makes the server send all of a file that has changed."""
    there = _size(part)
    headers = {"Accept-Encoding": "identity", "User-Agent": "vslam"}
    if there:
        headers["Range"] = f"bytes={there}-"
        if tag := _read_tag(part):
            headers["If-Range"] = tag
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and there:  # nothing is left to send, or less is there than we have
            if error.headers.get("Content-Range", "") == f"bytes */{there}":
                return
            raise _CannotResume from None
        raise
    with answer:
        _receive(answer, part, there, progress)


def _receive(answer, part: Path, there: int, progress: Progress) -> None:
    resumed = answer.status == 206
    if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {there}-"):
        raise _CannotResume
    there = there if resumed else 0
    _tag_file(part).write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
    length = answer.headers.get("Content-Length")
    total = there + int(length) if length and length.isdigit() else None
    with open(part, "ab" if resumed else "wb") as file:
        progress(there, total)
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            there += len(chunk)
            progress(there, total)
    if total is not None and there < total:
        raise ConnectionError(f"the connection broke after {there} of {total} bytes")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _read_tag(part: Path) -> str:
    """The server's version of the file, if it may be used in `If-Range` (weak tags may not, RFC 9110, 13.1.5)."""
    tag = _tag_file(part).read_text().strip() if _tag_file(part).exists() else ""
    return "" if tag.startswith("W/") else tag


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a `.tgz` that holds one folder to `folder`, which appears complete or not at all.

    Only plain files and folders that stay inside are let through: no links, devices, absolute paths or "..".

    Raises:
        VslamError: the archive is broken (it is removed, to be fetched again), unsafe, or holds something else.
    """
    unfinished = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))
    try:
        _extract(archive, unfinished)
        tops = list(unfinished.iterdir())
        if len(tops) != 1 or not tops[0].is_dir():
            raise VslamError(f"{archive}: holds {len(tops)} entries at its top, not one folder; not a TUM sequence")
        tops[0].rename(folder)
    except (tarfile.ReadError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        archive.unlink()
        raise VslamError(f"{archive}: broken archive ({error}); it was removed, run it again to fetch it") from None
    except VslamError:
        archive.unlink()
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 and later check again
    with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            if not (member.isfile() or member.isdir()):
                raise VslamError(f"{archive}: '{member.name}' is a link or a device; refused, the archive was removed")
            if member.name.startswith(("/", "\\")) or ".." in member.name.replace("\\", "/").split("/"):
                raise VslamError(
                    f"{archive}: '{member.name}' would be written outside; refused, the archive was removed"
                )
            try:
                tar.extract(member, folder, set_attrs=False, **options)
            except tarfile.ReadError:
                raise
            except tarfile.TarError as error:
                raise VslamError(f"{archive}: '{member.name}' refused ({error}); the archive was removed") from None
        while stream.read(CHUNK):  # to the end, where gzip's checksum is
            pass
