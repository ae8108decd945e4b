"""`vslam run` as a user calls it: exit codes, files, figures, bad input, Ctrl-C."""

import csv
import json
import os
import re
import shutil
import signal
import threading

import cv2
import numpy as np
import pytest
import yaml

import vslam.warmup
from vslam.cli.main import main
from vslam.datasets.rgbd import RgbdSequence
from vslam.datasets.sample import make_sample
from vslam.datasets.trajectory import read_trajectory
from vslam.mapping.local_mapper import LocalMapper

FRAMES, WIDTH, HEIGHT = 10, 320, 240
FILES = {
    "trajectory.txt", "trajectory_live.txt", "keyframes.txt", "map.ply", "metrics.json", "config.yaml", "frames.csv",
    "loops.csv", "report.html",
}  # fmt: skip
KEYS = {
    "frames", "tracked", "lost", "dropped", "coverage", "ate_rmse_m", "ate_live_rmse_m", "ate_alignment",
    "rpe_trans_m_per_s", "rpe_rot_deg_per_s", "scale_error", "tracking_ms_median", "tracking_ms_p95",
    "tracking_cpu_ms_median", "fps", "wall_s", "cpu_s", "peak_rss_mb", "loops", "relocalisations", "loop_cpu_s",
    "keyframes", "map_points", "extractor", "dataset", "versions",
}  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("sample") / "room", FRAMES, WIDTH, HEIGHT, workers=1, quiet=True)


@pytest.fixture(autouse=True)
def _compiled_already(monkeypatch, tmp_path):
    """Kernels are compiled by the run itself, in whatever folder the test stands."""
    monkeypatch.setattr(vslam.warmup, "warm_up", lambda *_: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sequence(recorded, tmp_path):
    """A copy of the recording, to be damaged."""
    return shutil.copytree(recorded, tmp_path / "sequence")


def run(folder, *words, path="--path", dataset="tum"):
    return main(["run", "--dataset", dataset, path, str(folder), "--quiet", *map(str, words)])


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def refused(capsys, *words):
    """The one line that says what is wrong."""
    try:
        code = main(["run", *map(str, words)])
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err
    return captured.err


# -- the contract -----------------------------------------------------------------------------------------------


def test_run_writes_its_files_and_says_where(recorded, tmp_path, capsys):
    assert run(recorded) == 0
    captured = capsys.readouterr()
    folder = tmp_path / captured.out.splitlines()[-1]
    assert re.fullmatch(r"room-orb-\d{8}-\d{6}", folder.name) and folder.parent == tmp_path / "runs"
    assert (tmp_path / "runs" / "latest").resolve() == folder.resolve()
    assert {file.name for file in folder.iterdir()} == FILES
    assert captured.err == ""
    found = metrics(folder)
    assert set(found) >= KEYS
    assert (found["frames"], found["tracked"], found["lost"], found["dropped"]) == (FRAMES, FRAMES, 0, 0)
    assert (found["coverage"], found["ate_alignment"]) == (1.0, "se3")
    assert (found["extractor"], found["dataset"]) == ("orb", "tum")
    assert found["ate_rmse_m"] < 0.02
    assert len(read_trajectory(folder / "trajectory.txt")) == len(read_trajectory(folder / "trajectory_live.txt")) == 10
    with (folder / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == FRAMES and {row["state"] for row in rows} == {"ok"}


def test_two_runs_in_a_second_have_two_folders(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "20200101-000000")
    assert run(recorded, "--max-frames", 2) == run(recorded, "--max-frames", 2) == 0
    assert {folder.name for folder in (tmp_path / "runs").iterdir() if not folder.is_symlink()} == {
        "room-orb-20200101-000000", "room-orb-20200101-000000-2",
    }  # fmt: skip


def test_result_is_replaced_only_when_told(recorded, tmp_path, capsys):
    assert run(recorded, "--output", "out", "--max-frames", 3) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "out"
    said = refused(capsys, "--dataset", "tum", "--path", recorded, "--output", "out")
    assert "holds a result already" in said and "--overwrite" in said
    assert metrics(tmp_path / "out")["frames"] == 3
    assert run(recorded, "--output", "out", "--overwrite", "--max-frames", 4) == 0
    assert metrics(tmp_path / "out")["frames"] == 4
    assert not (tmp_path / "runs").exists()


def test_deterministic_run_gives_the_same_bytes_again(recorded, tmp_path):
    for name in ("a", "b"):
        assert run(recorded, "--deterministic", "--output", name) == 0
    for file in ("trajectory.txt", "trajectory_live.txt", "keyframes.txt", "map.ply"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_realtime_run_accounts_for_every_frame(recorded, tmp_path):
    assert run(recorded, "--realtime", "--output", "out") == 0
    found = metrics(tmp_path / "out")
    assert found["frames"] == FRAMES == found["tracked"] + found["lost"] + found["dropped"]


def test_map_is_kept_gone_on_in_and_tracked_in(recorded, tmp_path, capsys):
    assert run(recorded, "--max-frames", 6, "--save-map", "kept/room.vslam", "--output", "a") == 2  # no such folder
    assert "kept" in capsys.readouterr().err
    assert run(recorded, "--max-frames", 6, "--save-map", "room.vslam", "--output", "a") == 0
    before = (tmp_path / "room.vslam").read_bytes()
    assert run(recorded, "--start", 6, "--load-map", "room.vslam", "--localize", "--output", "b") == 0
    found = metrics(tmp_path / "b")
    assert (found["tracked"], found["keyframes"]) == (FRAMES - 6, 0)
    assert (tmp_path / "room.vslam").read_bytes() == before
    assert run(recorded, "--start", 6, "--load-map", "room.vslam", "--save-map", "more.vslam", "--output", "c") == 0
    assert metrics(tmp_path / "c")["tracked"] == FRAMES - 6
    capsys.readouterr()
    assert main(["map", "show", "more.vslam"]) == 0
    assert "places" in capsys.readouterr().out


def test_loops_can_be_left_open_and_places_unknown(recorded, tmp_path):
    assert run(recorded, "--no-loop", "--output", "a", "--max-frames", 3) == 0
    assert "close: false" in (tmp_path / "a" / "config.yaml").read_text()
    assert run(recorded, "--place", "none", "--output", "b", "--max-frames", 3) == 0
    assert metrics(tmp_path / "b")["loop_cpu_s"] == 0
    for name in ("a", "b"):
        text = (tmp_path / name / "loops.csv").read_text()
        assert text == "t_query,t_match,kf_query,kf_match,score,n_matches,n_inliers,accepted,reason\n"


def test_a_networks_back_end_and_precision_are_options(recorded, tmp_path):
    words = ["--extractor", "gcnv2-tiny", "--backend", "onnx", "--precision", "fp32", "--max-frames", 3]
    assert run(recorded, *words, "--output", "out") == 0
    used = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["extractor"]
    assert used["name"] == "gcnv2-tiny" and used["options"] == {"backend": "onnx", "precision": "fp32"}


def test_part_of_a_sequence_and_its_settings(recorded, tmp_path):
    assert run(recorded, "--start", 3, "--max-frames", 4, "--extractor", "sift", "--set", "mapping.window=4",
               "--output", "out") == 0  # fmt: skip
    found = metrics(tmp_path / "out")
    assert (found["frames"], found["extractor"]) == (4, "sift")
    assert "window: 4" in (tmp_path / "out" / "config.yaml").read_text()
    times = [line.split()[0] for line in (recorded / "rgb.txt").read_text().splitlines()[1:]]
    assert read_trajectory(tmp_path / "out" / "trajectory.txt").timestamps[0] == float(times[3])


def test_without_a_path_the_sample_is_run_and_the_first_line_says_so(recorded, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vslam.datasets.sample.ensure_sample", lambda path=None, quiet=False: recorded)
    assert main(["run", "--dataset", "tum", "--quiet", "--max-frames", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "embedded sample" in lines[0] and lines[-1].startswith("runs/sample-orb-")
    assert main(["run", "--dataset", "sample", "--quiet", "--max-frames", "2", "--output", "out"]) == 0
    assert metrics(tmp_path / "out")["dataset"] == "sample"


def test_without_truth_its_figures_are_null(sequence, tmp_path):
    (sequence / "groundtruth.txt").unlink()
    assert run(sequence, "--output", "out", "--max-frames", 3) == 0
    found = metrics(tmp_path / "out")
    assert set(found) >= KEYS
    assert {found[key] for key in ("ate_rmse_m", "ate_live_rmse_m", "rpe_trans_m_per_s", "scale_error")} == {None}


# -- bad input --------------------------------------------------------------------------------------------------


def replace_line(file, number, text):
    lines = file.read_text().splitlines()
    lines[number] = text
    file.write_text("\n".join(lines) + "\n")


def spoil_images(folder, kind, change):
    for file in (folder / kind).iterdir():
        cv2.imwrite(str(file), change(cv2.imread(str(file), cv2.IMREAD_UNCHANGED)))


def scale_depth(folder, factor):
    text = (folder / "camera.yaml").read_text()
    (folder / "camera.yaml").write_text(re.sub("depth_scale: .*", f"depth_scale: {5000 * factor}", text))


def first_image(folder):
    return sorted((folder / "rgb").iterdir())[0]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda s: shutil.rmtree(s), "no such folder"),
        (lambda s: (s / "rgb.txt").unlink(), "rgb.txt: no such file"),
        (lambda s: (s / "depth.txt").unlink(), "depth.txt: no such file"),
        (lambda s: (s / "rgb.txt").write_text("# nothing\n"), "rgb.txt: empty list"),
        (lambda s: first_image(s).write_bytes(b"no image"), "does not decode"),
        (lambda s: first_image(s).unlink(), "cannot be read"),
        (lambda s: spoil_images(s, "depth", lambda d: d[::2, ::2]), "image is 160x120, the camera 320x240"),
        (lambda s: spoil_images(s, "depth", lambda d: (d >> 8).astype(np.uint8)), "depth is 8-bit"),
        (lambda s: scale_depth(s, 100), "median depth is 0.0"),
        (lambda s: scale_depth(s, 0.01), "not between 0.1 and 50 m"),
        (lambda s: replace_line(s / "rgb.txt", 3, (s / "rgb.txt").read_text().splitlines()[2]), "the same as"),
        (lambda s: replace_line(s / "rgb.txt", 3, "-1.0 rgb/x.jpg"), "earlier than"),
        (lambda s: replace_line(s / "groundtruth.txt", 3, "0.066 nan 0 0 0 0 0 1"), "groundtruth.txt"),
        (lambda s: (s / "camera.yaml").unlink(), "which camera?"),
        (lambda s: (s / "camera.yaml").write_text(re.sub("cx: .*", "cx: 999.0", (s / "camera.yaml").read_text())),
         "cx is 999.0, outside the image"),
    ],
)  # fmt: skip
def test_bad_sequence_is_refused_in_one_line(sequence, tmp_path, capsys, damage, said):
    damage(sequence)
    message = refused(capsys, "--dataset", "tum", "--path", sequence)
    assert message.startswith("vslam: error: ") and said in message
    assert str(sequence) in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--extractor", "surf"], "surf"),
        (["--set", "extractor.name=surf"], "unknown extractor 'surf'; known: orb, sift"),
        (["--set", "extractor.nam=orb"], "unknown key 'extractor.nam'"),
        (["--backend", "onnx"], "extractor orb: unknown key 'backend'"),
        (["--extractor", "gcnv2", "--backend", "tensorrt"], "--backend: invalid choice: 'tensorrt'"),
        (["--set", "extractor.name=["], "--set extractor.name=["),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such configuration file"),
        (["--config", "wrong.yaml"], "wrong.yaml: unknown key 'tracking.serch_px'"),
        (["--camera", "nowhere.yaml"], "nowhere.yaml"),
        (["--output", "wrong.yaml"], "wrong.yaml: is a file"),
        (["--output", "wrong.yaml/out"], "wrong.yaml/out: cannot be written"),
        (["--output", "/proc/nothing"], "/proc/nothing: cannot be written"),
        (["--start", FRAMES], f"--start {FRAMES} is beyond the {FRAMES} frames"),
        (["--start", "-1"], "'-1' is not a number of frames"),
        (["--max-frames", "0"], "--max-frames 0"),
        (["--max-frames", "many"], "'many' is not a number of frames"),
        (["--deterministic", "--realtime"], "not allowed with"),
        (["--place", "mine"], "mine"),
        (["--localize"], "add --load-map FILE"),
        (["--load-map", "wrong.yaml"], "wrong.yaml"),
        (["--load-map", "nowhere.vslam"], "nowhere.vslam"),
        (["--load-map", "x.vslam", "--localize", "--save-map", "y.vslam"], "leave out --save-map"),
        (["--save-map", "nowhere/x.vslam"], "nowhere"),
        (["--dataset", "kodak"], "kodak"),
        (["--frames", "3"], "--frames"),
    ],
)
def test_bad_option_is_refused_in_one_line(recorded, tmp_path, capsys, words, said):
    (tmp_path / "wrong.yaml").write_text("tracking: {serch_px: 3}\n")
    assert said in refused(capsys, "--dataset", "tum", "--path", recorded, *words)
    assert {file.name for file in tmp_path.iterdir()} == {"wrong.yaml"}


def test_dataset_must_be_named(capsys):
    assert "--dataset" in refused(capsys)


# -- bad frames -------------------------------------------------------------------------------------------------


def test_frame_that_does_not_decode_is_skipped_warned_of_and_counted(sequence, tmp_path, capsys, caplog):
    sorted((sequence / "rgb").iterdir())[5].write_bytes(b"no image")
    assert run(sequence, "--output", "out") == 0
    found = metrics(tmp_path / "out")
    assert (found["frames"], found["tracked"], found["states"]["unreadable"]) == (FRAMES, FRAMES - 1, 1)
    assert len([r for r in caplog.records if "does not decode" in r.message and "frame skipped" in r.message]) == 1
    assert "1 unreadable" in capsys.readouterr().out


def freeze(sequence):
    first, *others = sorted((sequence / "rgb").iterdir())
    for other in others:
        shutil.copy(first, other)


def blacken(sequence):
    for file in sorted((sequence / "rgb").iterdir())[4:6]:
        cv2.imwrite(str(file), np.zeros((HEIGHT, WIDTH, 3), np.uint8))


def without_depth(sequence):
    for file in sorted((sequence / "depth").iterdir())[4:6]:
        cv2.imwrite(str(file), np.zeros((HEIGHT, WIDTH), np.uint16))


def two_of_three_missing(sequence):
    lines = (sequence / "rgb.txt").read_text().splitlines()
    (sequence / "rgb.txt").write_text("\n".join(lines[:1] + lines[1::3]) + "\n")


@pytest.mark.parametrize(
    ("damage", "frames", "tracked"),
    [
        (freeze, FRAMES, FRAMES),
        (blacken, FRAMES, FRAMES - 2),
        (without_depth, FRAMES, FRAMES),
        (two_of_three_missing, 4, 4),
    ],
)
def test_run_goes_on_over_bad_frames(sequence, tmp_path, damage, frames, tracked):
    damage(sequence)
    assert run(sequence, "--output", "out") == 0
    found = metrics(tmp_path / "out")
    assert found["frames"] == frames and found["tracked"] >= tracked
    assert found["tracked"] + found["lost"] == frames


# -- ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [[], ["--deterministic"], ["--realtime"]])
def test_ctrl_c_ends_the_run_with_results_written(recorded, tmp_path, monkeypatch, capsys, mode):
    load = RgbdSequence.load

    def load_then_interrupt(self, index):
        if index == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return load(self, index)

    monkeypatch.setattr(RgbdSequence, "check", lambda self: self)
    monkeypatch.setattr(RgbdSequence, "load", load_then_interrupt)
    before = signal.getsignal(signal.SIGINT)
    assert run(recorded, "--output", "out", *mode) == 130
    assert signal.getsignal(signal.SIGINT) is before
    found = metrics(tmp_path / "out")
    assert 0 < found["frames"] < FRAMES and found["tracked"] > 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == FILES
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "out" and captured.err == ""
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vslam")]


def test_ctrl_c_before_the_first_frame_leaves_nothing(recorded, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(vslam.warmup, "warm_up", interrupted)
    assert run(recorded, "--output", "out") == 130
    assert not (tmp_path / "out").exists() and capsys.readouterr().err == ""
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vslam")]


@pytest.mark.parametrize("mode", [[], ["--deterministic"]])
def test_after_a_fault_of_mapping_results_are_written_and_the_fault_is_raised(recorded, tmp_path, monkeypatch, mode):
    process = LocalMapper.process

    def fail(self, request, when_new):
        if len(self.map) == 2:
            raise ArithmeticError("in mapping")
        return process(self, request, when_new)

    monkeypatch.setattr(LocalMapper, "process", fail)
    with pytest.raises(ArithmeticError, match="in mapping"):
        run(recorded, "--output", "out", "--set", "tracking.keyframe_max_gap=2", *mode)
    assert metrics(tmp_path / "out")["tracked"] > 0
    assert len(read_trajectory(tmp_path / "out" / "trajectory.txt")) > 0
