"""`vslam eval` as a user calls it."""

import json

import cv2
import numpy as np
import pytest

from tests.evaluation.synthetic import moved, noisy, random_pose, smooth_trajectory
from vslam.cli.main import main
from vslam.datasets.trajectory import write_euroc, write_kitti, write_tum
from vslam.types import Trajectory


@pytest.fixture
def files(tmp_path):
    """A truth at 100 Hz, two estimates at 25 Hz in another world, a run folder and a sequence folder."""
    truth = smooth_trajectory(800, rate=100.0)
    estimate = Trajectory(truth.timestamps[::4] + 0.002, truth.poses[::4])
    write_tum(tmp_path / "truth.txt", truth)
    write_euroc(tmp_path / "truth.csv", truth)
    for name, noise in (("a", 0.01), ("b", 0.03)):
        write_tum(tmp_path / f"{name}.txt", moved(noisy(estimate, noise), random_pose(2)))
    for folder, file in (("run", "trajectory.txt"), ("sequence", "groundtruth.txt")):
        (tmp_path / folder).mkdir()
        write_tum(tmp_path / folder / file, truth)
    write_kitti(tmp_path / "truth.kitti", truth)
    write_kitti(tmp_path / "whole.kitti", noisy(truth))
    write_kitti(tmp_path / "part.kitti", estimate)
    return tmp_path


def scores(capsys, *words):
    assert main(["eval", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error(capsys, *words):
    assert main(["eval", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_one_estimate_has_plausible_figures(files, capsys):
    found = scores(capsys, files / "a.txt", files / "truth.txt")
    assert 0.01 < found["ate_rmse_m"] < 0.03
    assert found["coverage"] == 1.0 and found["time_coverage"] == pytest.approx(1.0, abs=0.02)
    assert (found["alignment"], found["delta"], found["max_gap_s"]) == ("se3", "1s", 0.02)
    assert found["estimates"][0]["poses"] == found["estimates"][0]["matched"] == 200
    assert abs(found["scale_error"]) < 0.02


def test_several_estimates_have_rows_and_spread(files, capsys):
    names = [files / "a.txt", files / "b.txt", files / "run"]
    found = scores(capsys, *names, files / "truth.txt", "--align", "sim3", "--delta", "0.5m")
    errors = [row["ate_rmse_m"] for row in found["estimates"]]
    assert errors[2] < errors[0] < errors[1]
    assert found["spread"]["ate_rmse_m"] == {"median": errors[0], "min": errors[2], "max": errors[1]}
    assert main(["eval", *map(str, names), str(files / "truth.txt")]) == 0
    words = capsys.readouterr().out.split()
    assert {"median", "min", "max", "100.0%"} <= set(words)


def test_one_estimate_prints_no_spread(files, capsys):
    assert main(["eval", str(files / "a.txt"), str(files / "sequence")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[3].startswith(str(files / "a.txt"))


def test_formats_agree(files, capsys):
    tum = scores(capsys, files / "a.txt", files / "truth.txt")
    euroc = scores(capsys, files / "a.txt", files / "truth.csv")
    assert euroc["ate_rmse_m"] == pytest.approx(tum["ate_rmse_m"], abs=1e-8)
    kitti = scores(capsys, files / "whole.kitti", files / "truth.kitti", "--align", "none")
    assert kitti["delta"] == "1f" and kitti["estimates"][0]["rpe_pairs"] == 799


def test_part_of_the_time_is_told(files, capsys):
    lines = (files / "a.txt").read_text().splitlines()
    (files / "half.txt").write_text("\n".join(lines[:51] + lines[151:]))
    found = scores(capsys, files / "half.txt", files / "truth.txt")
    assert found["coverage"] == 1.0 and found["time_coverage"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("suffix", [".svg", ".html", ".png", ".PNG"])
def test_plot_is_written(files, capsys, suffix):
    plot = files / f"plot{suffix}"
    scores(capsys, files / "a.txt", files / "b.txt", files / "truth.txt", "--plot", plot)
    if suffix.lower() == ".png":
        image = cv2.imread(str(plot))
        assert image.shape[1] > 1000 and len(np.unique(image)) > 5
    else:
        text = plot.read_text()
        assert "b.txt" in text and "From above" in text and "https://" not in text


def test_plot_of_kitti_files_is_written(files, capsys):
    scores(capsys, files / "whole.kitti", files / "truth.kitti", "--plot", files / "plot.svg")
    assert "frame</text>" in (files / "plot.svg").read_text()


def test_seconds_and_nanoseconds_mixed_up_is_an_error(files, capsys):
    lines = [line.split(" ", 1) for line in (files / "a.txt").read_text().splitlines()[1:]]
    (files / "ns.txt").write_text("\n".join(f"{round(float(time) * 1e9)} {rest}" for time, rest in lines))
    text = error(capsys, files / "ns.txt", files / "truth.txt")
    assert "nanoseconds" in text and "seconds" in text and "1e9" in text
    assert scores(capsys, files / "ns.txt", files / "truth.csv")["coverage"] == 1.0  # both in nanoseconds


def test_mistakes_are_one_line(files, capsys):
    a, truth = files / "a.txt", files / "truth.txt"
    (files / "other.txt").write_text("\n".join(f"{k}.0 0 0 0 0 0 0 1" for k in range(9)))
    assert "only 0 poses have a true one within 0.02 s" in error(capsys, files / "other.txt", truth)
    assert "none.txt: cannot be read" in error(capsys, files / "none.txt", truth)
    assert "expected seconds, frames or metres" in error(capsys, a, truth, "--delta", "1x")
    assert "--max-gap -1.0" in error(capsys, a, truth, "--max-gap", "-1")
    assert "--max-gap nan" in error(capsys, a, truth, "--max-gap", "nan")
    assert ".svg, .html, .png" in error(capsys, a, truth, "--plot", files / "plot.gif")
    assert "cannot be written" in error(capsys, a, truth, "--plot", files / "none" / "plot.svg")
    assert "one line for every frame" in error(capsys, files / "part.kitti", files / "truth.kitti")
    assert "without time stamps (KITTI)" in error(capsys, a, files / "truth.kitti")
    assert "use frames or metres" in error(capsys, files / "whole.kitti", files / "truth.kitti", "--delta", "2s")
    assert "8 columns; kitti needs" in error(capsys, a, truth, "--format", "kitti")
