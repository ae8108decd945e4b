"""What the report draws beyond plain tracking: loops, and reasons in the colours of the states they led to."""

import dataclasses

import numpy as np

from tests.evaluation.synthetic import smooth_trajectory, tracked_frames
from tests.evaluation.test_results import run_record
from vslam.evaluation import report, views
from vslam.evaluation.results import compute_metrics
from vslam.types import Reason, State


def test_loop_links_join_the_places_of_both_frames():
    path = smooth_trajectory(50)
    stamps, places = path.timestamps, path.poses[:, :3, 3]
    axes = np.eye(3)[:2]
    loops = [(stamps[40], stamps[3], True), (stamps[45], stamps[20], False), (stamps[45], -7.0, True)]
    rejected, accepted = views.loop_links(path, axes, loops)
    assert rejected.dashed and not accepted.dashed
    np.testing.assert_allclose(np.stack([accepted.x, accepted.y], 1), places[[40, 3], :2])
    np.testing.assert_allclose(np.stack([rejected.x, rejected.y], 1), places[[45, 20], :2])


def test_report_names_loops_only_where_there_are_some():
    path = smooth_trajectory(50)
    record = run_record(tracked_frames(path), path, path)
    figures = compute_metrics(record)
    loop = (path.timestamps[40], path.timestamps[3], True)
    page = report.report_html(record, figures, [loop])
    assert "closed loops" in page and "loops rejected" not in page
    assert "closed loops" not in report.report_html(record, figures)


def test_the_first_frame_is_no_reason_for_concern():
    path = smooth_trajectory(50)
    frames = list(tracked_frames(path))
    frames[0] = dataclasses.replace(frames[0], reason=Reason.FIRST_FRAME)
    frames[7] = dataclasses.replace(frames[7], state=State.WEAK, reason=Reason.FROM_DEPTH)
    record = run_record(frames, path, path)
    section = report.state_section(report.tell(record), compute_metrics(record))
    assert "first frame" not in section and "from depth alone: 1 frame" in section
    assert section.count("var(--weak)") > section.count('class="block" style="color:var(--weak)"') > 0
