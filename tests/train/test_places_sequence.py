"""The sequence model: motion inside windows, what the sampler hides, resumed runs, look-alikes told apart, export."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.test_export import parse
from vslam.cli import train as cli_train
from vslam.errors import VslamError
from vslam.inference.models import manifest
from vslam.inference.session import open_session
from vslam.train.data.pack import write_pack
from vslam.train.exporting import export
from vslam.train.loop import CHECKPOINT
from vslam.train.places import sequence
from vslam.train.places.packs import PlacePack
from vslam.train.places.sequence import SequenceNet, SequenceTrainer, score_walks, train_sequence
from vslam.train.places.settings import SequenceTrainConfig
from vslam.train.places.windows import METRES, Walk, WindowSampler, disturbed, increments, positions, window_rows

QUIET = {"descriptor_noise": 0.0, "step_noise": 0.0, "yaw_noise_deg": 0.0, "scale_drift": 0.0}


def planar_pose(x: float, z: float, yaw: float) -> np.ndarray:
    """A camera at (x, 0, z) turned by `yaw` about its y axis, from forward (z) to the right (x)."""
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    pose[:3, 3] = x, 0, z
    return pose


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-2, 2)] * 3), min_size=2, max_size=9))
def test_summed_increments_are_the_motion_since_the_first_frame(steps):
    poses = np.stack([planar_pose(*step) for step in steps])
    found = positions(increments(poses))
    relative = np.linalg.inv(poses[0]) @ poses
    np.testing.assert_allclose(found[:, 0] * METRES, relative[:, 0, 3], atol=1e-4)
    np.testing.assert_allclose(found[:, 1] * METRES, relative[:, 2, 3], atol=1e-4)
    turn = np.arctan2(relative[:, 0, 2], relative[:, 2, 2])
    np.testing.assert_allclose(np.exp(1j * found[:, 2]), np.exp(1j * turn), atol=1e-4)


def test_positions_do_not_tell_where_in_the_world_a_window_is():
    poses = np.stack([planar_pose(0.1 * k, 0.3 * k, 0.05 * k) for k in range(6)])
    elsewhere = planar_pose(70.0, -30.0, 2.0) @ poses
    np.testing.assert_allclose(positions(increments(poses)), positions(increments(elsewhere)), atol=1e-6)


def test_odometry_without_noise_is_the_truth_and_with_scale_drift_of_one_scale():
    motion = increments(np.stack([planar_pose(0.1 * k, 0.3 * k, 0.05 * k) for k in range(6)]))
    rng = np.random.default_rng(0)
    assert np.array_equal(disturbed(motion, rng, SequenceTrainConfig(**QUIET)), motion)
    drifted = disturbed(motion, rng, SequenceTrainConfig(**(QUIET | {"scale_drift": 0.3})))
    ratio = drifted[:, :2] / motion[:, :2]
    assert np.ptp(ratio) < 1e-9 and abs(ratio[0, 0] - 1) > 1e-3
    assert np.array_equal(drifted[:, 2], motion[:, 2])


def ring_walk(name: str = "ring", seed: int = 0, places: int = 30, width: int = 24) -> Walk:
    """Two laps of a ring. Every third place looks just like the one opposite; all differ a little by lap."""
    rng = np.random.default_rng(seed)
    unlike = rng.normal(size=(places, width))
    for k in range(0, places // 2, 3):
        unlike[k + places // 2] = unlike[k]
    lap = np.arange(2 * places) % places
    seen = unlike[lap][None] + 0.15 * rng.normal(size=(2, 2 * places, width))
    seen /= np.linalg.norm(seen, axis=2, keepdims=True)
    angle = 2 * np.pi * np.arange(2 * places) / places
    poses = np.stack([planar_pose(3 * np.sin(a), 3 * np.cos(a), a + np.pi / 2) for a in angle])
    gap = np.abs(lap[:, None] - lap)
    gap = np.minimum(gap, places - gap)
    overlap = np.where(gap == 0, 100, np.where(gap == 1, 20, 0)).astype(np.uint8)
    images = np.zeros((4 * places, 48, 64), np.uint8)
    view = np.tile(np.arange(2 * places), 2)
    pack = PlacePack(name, name, images, view, overlap, np.arange(2.0 * places), poses, 2.0)
    return Walk(pack, seen.astype(np.float32), pack.relation(30, 5, 45.0))


CONFIG = SequenceTrainConfig(
    window=4, max_stride=1, hidden=48, descriptor=32, steps=150, batch=12, worlds=2, rate=5e-3, vision_only=0.5
)


def test_windows_end_at_their_view_and_repeat():
    assert window_rows(10, 4, 2).tolist() == [4, 6, 8, 10]
    walk = ring_walk()
    sampler = WindowSampler([walk], CONFIG)
    first, again, other = (sampler.batch(1, step, 6) for step in (3, 3, 4))
    assert np.array_equal(first["windows"], again["windows"])
    assert not np.array_equal(first["windows"], other["windows"])
    assert first["windows"].shape == (12, 4, 24 + 3)
    assert (first["relation"][np.arange(0, 12, 2), np.arange(1, 12, 2)] == 1).all()


def test_what_is_hidden_is_zero_and_tests_see_other_lights():
    walk = ring_walk()
    blind = WindowSampler([walk], SequenceTrainConfig(window=4, max_stride=1, vision_only=0.0, position_only=1.0))
    assert not blind.window((0, 20), np.random.default_rng(0))[:, :24].any()
    dead = WindowSampler([walk], SequenceTrainConfig(window=4, max_stride=1, vision_only=1.0, **QUIET))
    window = dead.window((0, 20), np.random.default_rng(0))
    assert not window[:, 24:].any()
    np.testing.assert_allclose(window[:, :24], walk.scaled[0, 17:21], rtol=1e-5)  # the first light only


def test_sequence_tells_places_apart_that_look_alike(tmp_path):
    walks = [ring_walk("a", 0), ring_walk("b", 1)]
    trainer = SequenceTrainer(CONFIG, WindowSampler(walks, CONFIG), tmp_path)
    trainer.run()
    found = score_walks(trainer.averaged.network, walks, CONFIG)
    assert found["frame"].recall < 0.95  # one half of the look-alikes, a third of all places, by chance
    assert found["vision"].recall > found["frame"].recall
    assert found["both"].recall > 0.95
    assert found["position"].recall < 0.5  # on a ring all motion is the same


def test_interrupted_run_ends_with_the_same_weights(tmp_path):
    config = SequenceTrainConfig(window=4, max_stride=1, hidden=16, descriptor=8, steps=6, batch=4, worlds=1)
    sampler = WindowSampler([ring_walk()], config)
    whole = SequenceTrainer(config, sampler, tmp_path / "whole")
    whole.run()

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.step == 3:
            raise Stop

    cut = SequenceTrainer(config, sampler, tmp_path / "cut")
    with pytest.raises(Stop):
        cut.run(stop)
    resumed = SequenceTrainer(config, sampler, tmp_path / "cut")
    assert resumed.resume() and resumed.step == 3
    resumed.run()
    for key, value in whole.averaged.state_dict().items():
        assert torch.equal(resumed.averaged.state_dict()[key], value)


def test_exported_model_takes_windows_of_any_length(tmp_path):
    config = SequenceTrainConfig(window=4, max_stride=1, hidden=16, descriptor=8, steps=1, batch=4, worlds=1)
    trainer = SequenceTrainer(config, WindowSampler([ring_walk()], config), tmp_path / "run")
    trainer.run()
    assert "s.onnx" in next(export("sequence", tmp_path / "run", tmp_path / "s.onnx", "onnx", "fp16", None))
    windows = torch.randn(3, 7, 27)
    with torch.no_grad():
        expected = trainer.averaged.network.eval()(windows).numpy()
    for backend in ("onnx", "openvino"):
        pytest.importorskip("openvino" if backend == "openvino" else "onnxruntime")
        found = open_session(tmp_path / "s.onnx", backend).run(windows.numpy())["place"]
        np.testing.assert_allclose(found, expected, atol=1e-2)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-4)
    with pytest.raises(VslamError, match="from a --checkpoint"):
        list(export("sequence", None, tmp_path / "s.onnx", "onnx", "fp16", None))


def test_checkpoint_of_another_network_is_refused(tmp_path):
    torch.save({"network": "gem", "model": {}, "averaged": {}, "step": 1}, tmp_path / "c.pt")
    with pytest.raises(VslamError, match="holds network 'gem', not 'sequence'"):
        sequence.export_sequence(tmp_path / "c.pt", tmp_path / "s.onnx")


@pytest.mark.skipif("gem" not in manifest(), reason="no weights of gem")
def test_command_trains_on_walks_and_writes_scores(tmp_path, capsys):
    walk = ring_walk(places=12).pack
    arrays = {key: getattr(walk, key) for key in ("images", "view", "overlap", "time", "poses")}
    write_pack(tmp_path / "packs/walk.npz", arrays | {"world": np.array("w"), "reach": np.float64(2.0)}, "drawn")
    settings = tmp_path / "s.yaml"
    settings.write_text(f"network: sequence\nwindow: 3\nbatch: 3\nworlds: 1\nvalidation: {tmp_path / 'packs'}\n")
    words = ["sequence", "--config", str(settings), "--packs", str(tmp_path / "packs"), "--steps", "2", "--quiet"]
    assert cli_train.run(parse(cli_train, *words, "--out", str(tmp_path / "run"))) == 0
    assert "vslam export sequence" in capsys.readouterr().out
    assert (tmp_path / "run" / CHECKPOINT).is_file()
    again = [*words[:-2], "0", "--quiet", "--init", str(tmp_path / "run"), "--out", str(tmp_path / "again")]
    assert cli_train.run(parse(cli_train, *again)) == 0
    first, second = (torch.load(tmp_path / run / CHECKPOINT, weights_only=True) for run in ("run", "again"))
    assert all(torch.equal(value, second["averaged"][key]) for key, value in first["averaged"].items())
    assert '"position"' in (tmp_path / "run/sequence.json").read_text()


def test_packs_without_walks_are_refused(tmp_path):
    still = PlacePack("p", "p", np.zeros((3, 48, 64), np.uint8), np.arange(3), 100 * np.eye(3, dtype=np.uint8))
    with pytest.raises(VslamError, match="no walks with poses"):
        sequence.describe_walks([still], SequenceTrainConfig())


def test_network_gives_unit_vectors():
    found = SequenceNet(10, 16, 8)(torch.randn(4, 5, 13))
    assert torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-5)


def test_shipped_settings_train_the_sequence(tmp_path):
    from vslam.train.places.settings import load_sequence_config

    assert load_sequence_config("train-sequence").network == "sequence"
    with pytest.raises(VslamError):
        train_sequence(load_sequence_config("train-sequence"), tmp_path)  # no packs here
