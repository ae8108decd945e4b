"""Tiny sequences, and the real ones where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.sequences import DATA, make_tum


@pytest.fixture
def tum(tmp_path: Path) -> Path:
    return make_tum(tmp_path / "desk")


@pytest.fixture
def real():
    """The folder of a real sequence by its name; skips where it is not."""

    def folder(name: str) -> Path:
        if not (DATA / name).is_dir():
            pytest.skip(f"no {name} beside this checkout")
        return DATA / name

    return folder
