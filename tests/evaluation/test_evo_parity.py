"""Our figures against those of the evo package, run as a command on the same files."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.synthetic import moved, noisy, random_pose, smooth_trajectory
from vslam.datasets.trajectory import read_trajectory, write_euroc, write_kitti, write_tum
from vslam.evaluation import metrics
from vslam.types import Trajectory

EQUAL = 1e-9
MAX_GAP = 0.02
EVO = {
    kind: shutil.which(f"evo_{kind}") or shutil.which(f"evo_{kind}", path=str(Path(sys.executable).parent))
    for kind in ("ape", "rpe")
}
pytestmark = pytest.mark.skipif(None in EVO.values(), reason="the evo command is not installed")
ALIGN = {"none": [], "se3": ["-a"], "sim3": ["-a", "-s"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home of its own, so that evo's settings neither matter nor change."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A truth at 100 Hz and an estimate at 25 Hz, off by noise, a scale and another world, in all formats."""
    folder = tmp_path_factory.mktemp("files")
    truth = smooth_trajectory(1000, rate=100.0)
    kept = np.flatnonzero(np.random.default_rng(5).random(250) > 0.1) * 4
    estimate = Trajectory(truth.timestamps[kept] + 0.003, truth.poses[kept])
    estimate = moved(noisy(estimate), random_pose(3), scale=1.07)
    write_tum(folder / "truth.tum", truth)
    write_tum(folder / "estimate.tum", estimate)
    write_euroc(folder / "truth.csv", truth)
    write_kitti(folder / "truth.kitti", Trajectory(truth.timestamps[kept], truth.poses[kept]))
    write_kitti(folder / "estimate.kitti", estimate)
    return {
        "tum": (folder / "truth.tum", folder / "estimate.tum"),
        "euroc": (folder / "truth.csv", folder / "estimate.tum"),
        "kitti": (folder / "truth.kitti", folder / "estimate.kitti"),
    }


def evo(kind, format, files, home, *flags):
    """The statistics evo saves."""
    result = home / "result.zip"
    gap = [] if format == "kitti" else ["--t_max_diff", str(MAX_GAP)]
    command = [EVO[kind], format, *map(str, files), *gap, *flags, "--save_results", str(result), "--no_warnings"]
    environment = {**os.environ, "HOME": str(home), "MPLBACKEND": "agg"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(result) as archive:
        return json.loads(archive.read("stats.json"))


def aligned(files, align):
    truth, estimate = map(read_trajectory, files)
    pairs = metrics.associate(estimate, truth, MAX_GAP)
    assert len(pairs) == len(estimate)
    return metrics.align(pairs, align)


def assert_equal(errors, stats):
    ours = {"rmse": metrics.rmse(errors), "mean": errors.mean(), "median": np.median(errors), "max": errors.max()}
    assert {name: abs(ours[name] - stats[name]) < EQUAL for name in ours} == dict.fromkeys(ours, True)


@pytest.mark.parametrize(
    ("format", "align"), [("tum", "none"), ("tum", "se3"), ("tum", "sim3"), ("kitti", "se3"), ("euroc", "sim3")]
)
def test_ate_equals_evo(files, home, format, align):
    errors = metrics.ate(aligned(files[format], align))
    assert_equal(errors, evo("ape", format, files[format], home, *ALIGN[align]))


@pytest.mark.parametrize(
    ("format", "align", "delta", "relation"),
    [
        ("tum", "none", "10f", "trans_part"),
        ("tum", "se3", "1f", "angle_deg"),
        ("tum", "none", "0.5m", "trans_part"),
        ("tum", "sim3", "0.5m", "angle_deg"),
        ("kitti", "none", "0.5m", "trans_part"),
        ("euroc", "sim3", "7f", "trans_part"),
    ],
)
def test_rpe_equals_evo(files, home, format, align, delta, relation):
    delta = metrics.Delta.parse(delta)
    drift = metrics.rpe(aligned(files[format], align), delta, MAX_GAP)
    errors = drift.trans_m if relation == "trans_part" else drift.rot_deg
    flags = ["--delta", f"{delta.value:g}", "--delta_unit", delta.unit, "--pose_relation", relation, *ALIGN[align]]
    assert_equal(errors, evo("rpe", format, files[format], home, *flags))
