"""Where the package may keep files of its own: compiled kernels, the sample sequence."""

from __future__ import annotations

import logging
import os
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)


@cache
def cache_folder(name: str) -> Path:
    """A writable folder `name` in the user's cache, or in the temporary folder where that cannot be written.

    The cache is `$VSLAM_CACHE`, else `$XDG_CACHE_HOME/vslam`, else `~/.cache/vslam`.
    """
    for root in _candidates():
        folder = root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            log.warning("%s cannot be written; trying another cache folder (set VSLAM_CACHE to choose one)", folder)
    return Path(tempfile.mkdtemp(prefix="vslam-"))


def _candidates() -> list[Path]:
    named = os.environ.get("VSLAM_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME")
    home = Path(shared) if shared else Path(os.path.expanduser("~")) / ".cache"
    return [*([Path(named)] if named else []), home / "vslam", Path(tempfile.gettempdir()) / f"vslam-{os.getuid()}"]
