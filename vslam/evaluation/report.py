"""A run as one self-contained HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vslam.evaluation.results import RunRecord


def report_html(record: RunRecord, figures: dict[str, Any]) -> str:
    """The page; `figures` is what `compute_metrics` returned."""
    return f"<!doctype html><title>{record.sequence}</title><pre>{figures}</pre>"
