"""Arrays in one file that is either whole or refused: a head, a JSON header, the arrays, a checksum over all of it.

    8 bytes     MAGIC
    uint32      format
    uint64      length of the whole file, bytes
    uint64      length of the header, bytes
    ...         header: JSON, UTF-8; its key `arrays` says where each array lies behind it
    ...         arrays
    32 bytes    SHA-256 of everything before

Numbers are little-endian. The head and the checksum stay as they are in all later formats, so that an older program
can tell a newer file from a damaged one.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import struct
import time
import uuid
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vslam.errors import VslamError

MAGIC = b"\x89vslam\r\n"  # as PNG's: a transfer that takes it for text breaks it
FORMAT = 1
HEAD = struct.Struct("<8sIQQ")
CHECKSUM_BYTES = 32
LEVEL = 1  # of zlib; level 6 takes twice the time for 2 % less
UNFINISHED = ".unfinished"
STALE_S = 3600.0  # an unfinished file that is an hour old was given up

Arrays = dict[str, np.ndarray]


def write_container(file: Path, kind: str, header: dict[str, Any], arrays: Arrays) -> int:
    """Write `file` so that, whatever happens, it holds either what it held before or all of this; returns its bytes.

    `kind` is the word for what it holds, `header` goes to JSON. Byte-identical arrays are kept once.

    Raises:
        VslamError: it cannot be written there.
    """
    entries, blocks = _packed(arrays)
    text = json.dumps({"kind": kind, **header, "arrays": entries}, allow_nan=False, default=_number).encode()
    length = HEAD.size + len(text) + sum(map(len, blocks)) + CHECKSUM_BYTES
    pieces = [HEAD.pack(MAGIC, FORMAT, length, len(text)), text, *blocks]
    checksum = hashlib.sha256()
    for piece in pieces:
        checksum.update(piece)
    write_durably(file, [*pieces, checksum.digest()])
    return length


def read_container(file: Path, kind: str) -> tuple[dict[str, Any], Arrays]:
    """Header and arrays of a file; the arrays are the caller's own.

    Raises:
        VslamError: not readable, not such a file, cut short, damaged, of a newer format, or of another kind.
    """
    data = _checked_bytes(file, kind)
    _, version, _, header_bytes = HEAD.unpack_from(data)
    if version != FORMAT:
        raise VslamError(f"{file}: has format {version}, this vslam reads {FORMAT}; {_cure_of_format(version)}")
    try:
        header = json.loads(bytes(data[HEAD.size : HEAD.size + header_bytes]))
        found = header["kind"]
        arrays = _unpacked(header.pop("arrays"), data[HEAD.size + header_bytes : -CHECKSUM_BYTES])
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise VslamError(f"{file}: not as vslam writes it ({error}); save the {kind} again") from None
    if found != kind:
        raise VslamError(f"{file}: holds a {found}, not a {kind}; give another file")
    return header, arrays


def write_durably(file: Path, pieces: list[bytes]) -> None:
    """Write a file that survives a crash at any moment: under a temporary name, synced, renamed, the folder synced.

    Raises:
        VslamError: it cannot be written there.
    """
    check_writable(file)
    target = Path(os.path.realpath(file))  # a link stays a link
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}{UNFINISHED}")
    try:
        _remove_stale(target)
        with open(unfinished, "wb") as out:
            for piece in pieces:
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        os.replace(unfinished, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise VslamError(f"{file}: cannot be written: {error.strerror}; give another place, or make room") from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def check_writable(file: Path) -> None:
    """Find out early what would make a save fail late.

    Raises:
        VslamError: a folder or a device is in the place of the file, or its folder is missing or not writable.
    """
    folder = Path(os.path.realpath(file)).parent
    if os.path.isdir(file):
        raise VslamError(f"{file}: is a folder; give the name of a file in it")
    if os.path.exists(file) and not os.path.isfile(file):  # /dev/null would be replaced
        raise VslamError(f"{file}: is no plain file; give another name")
    if not os.path.isdir(folder):
        raise VslamError(f"{file}: cannot be written: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise VslamError(f"{file}: cannot be written: folder {folder} is not writable; give another place")


def _remove_stale(file: Path) -> None:
    """What a killed save of this file left behind."""
    for left in file.parent.glob(f".{glob.escape(file.name)}.*{UNFINISHED}"):
        with suppress(OSError):  # another process may have removed it
            if time.time() - left.stat().st_mtime > STALE_S:
                left.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checked_bytes(file: Path, kind: str) -> memoryview:
    """The bytes of a file whose checksum is right."""
    try:
        data = memoryview(file.read_bytes())
    except OSError as error:
        raise VslamError(f"{file}: cannot be read: {error.strerror}; give the file of a saved {kind}") from None
    if bytes(data[: len(MAGIC)]) != MAGIC:
        what = "is empty" if not len(data) else f"is no {kind} of vslam"
        raise VslamError(f"{file}: {what}; give the file of a saved {kind}")
    length = HEAD.unpack_from(data)[2] if len(data) >= HEAD.size else HEAD.size + CHECKSUM_BYTES
    if len(data) < length:
        raise VslamError(f"{file}: cut short, {len(data)} of {length} bytes are there; copy or save the {kind} again")
    body = data[:-CHECKSUM_BYTES]
    if len(data) > length or hashlib.sha256(body).digest() != bytes(data[-CHECKSUM_BYTES:]):
        raise VslamError(f"{file}: damaged, its checksum is wrong; copy or save the {kind} again")
    return data


def _cure_of_format(version: int) -> str:
    return "update vslam" if version > FORMAT else "save it again with this version"


def _number(value: np.generic) -> float:
    """A NumPy number as JSON's."""
    return value.item()


def _packed(arrays: Arrays) -> tuple[list[dict[str, Any]], list[bytes]]:
    """What the header says of the arrays, and their bytes."""
    entries: list[dict[str, Any]] = []
    blocks: list[bytes] = []
    known: dict[tuple[str, tuple[int, ...], bytes], dict[str, Any]] = {}
    place = 0
    for name, array in arrays.items():
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        key = (array.dtype.str, array.shape, hashlib.sha256(array.data).digest() if array.size else b"")
        if key not in known:
            plain = array.tobytes()
            packed = zlib.compress(_by_byte(plain, array.itemsize), LEVEL)
            block, is_packed = (packed, True) if len(packed) < len(plain) else (plain, False)
            known[key] = {
                "dtype": array.dtype.str, "shape": list(array.shape), "at": place, "bytes": len(block),
                "packed": is_packed,
            }  # fmt: skip
            blocks.append(block)
            place += len(block)
        entries.append({"name": name, **known[key]})
    return entries, blocks


def _unpacked(entries: list[dict[str, Any]], payload: memoryview) -> Arrays:
    arrays = {}
    for entry in entries:
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        if dtype.kind not in "biuf":
            raise ValueError(f"array of {dtype}")
        block = bytes(payload[entry["at"] : entry["at"] + entry["bytes"]])
        if entry["packed"]:
            block = np.frombuffer(zlib.decompress(block), np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
        arrays[entry["name"]] = np.frombuffer(block, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=True)
    return arrays


def _by_byte(data: bytes, itemsize: int) -> bytes:
    """First bytes of all numbers, then second ones and so on: signs and exponents are alike, and pack well."""
    return np.frombuffer(data, np.uint8).reshape(-1, itemsize).T.tobytes()
