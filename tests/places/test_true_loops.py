"""What the benchmark of loops takes for the same place: views that overlap by the truth."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.loops import OVERLAP, is_listed, overlap
from tests.world import CAMERA, render
from vslam.geometry import se3


def looking(shift=(0.0, 0.0, 0.0), turn_deg=0.0) -> np.ndarray:
    """`T_wc` (4, 4) of a camera in the painted room, turned about the vertical axis."""
    T = se3.exp(np.array([0.0, 0.0, 0.0, 0.0, np.radians(turn_deg), 0.0]))
    T[:3, 3] = shift
    return T


def share(T_a: np.ndarray, T_b: np.ndarray) -> float:
    return overlap(CAMERA, render(T_a)[1], T_a, render(T_b)[1], T_b)


def test_a_view_overlaps_itself():
    assert share(looking(), looking()) == 1.0


def test_the_wall_behind_is_another_place():
    assert share(looking(), looking(turn_deg=180)) == 0.0


def test_a_turn_leaves_the_share_that_is_still_in_view():
    """The picture's edge is at 31.2 degrees: after as much, what was right of the middle is out of view."""
    assert share(looking(), looking(turn_deg=31.2)) == pytest.approx(0.5, abs=0.1)
    assert share(looking(), looking(turn_deg=75)) == 0.0


def test_from_farther_behind_the_same_view_overlaps_both_ways():
    far, near = looking((0, 0, -1.8)), looking((0, 0, 0.8))
    assert share(near, far) > 0.95
    assert OVERLAP < share(far, near) < 0.5


def test_what_another_wall_hides_is_not_shared():
    """Depth decides: the same picture coordinates, but a wall in between."""
    depth = np.full((CAMERA.height, CAMERA.width), 4.0, np.float32)
    assert overlap(CAMERA, depth, np.eye(4), depth / 2, np.eye(4)) == 0.0


def test_listed_revisits_count_with_their_neighbours(tmp_path):
    (tmp_path / "info.json").write_text('{"revisits": [[3, 40], [5, 42]]}')
    times = np.arange(60) / 10.0

    def pair(match: int, query: int) -> SimpleNamespace:
        return SimpleNamespace(t_match=match / 10.0, t_query=query / 10.0)

    assert is_listed(pair(3, 40), times, tmp_path) and is_listed(pair(8, 45), times, tmp_path)
    assert not is_listed(pair(12, 41), times, tmp_path) and not is_listed(pair(3, 50), times, tmp_path)
    assert not is_listed(pair(3, 40), times, tmp_path / "elsewhere")
