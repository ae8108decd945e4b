"""The loop: what is interrupted goes on as if it had not been; a full disk costs nothing; processes agree."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.two_processes import run_two
from vslam.errors import VslamError
from vslam.train import losses
from vslam.train.data.pack import open_packs
from vslam.train.data.pairs import PairConfig, PairSampler
from vslam.train.evaluate import fixed_pairs, score_network
from vslam.train.loop import CHECKPOINT, Trainer, read_checkpoint, write_whole
from vslam.train.networks.light import TINY
from vslam.train.run import make_sampler, train
from vslam.train.settings import LossWeights, TrainConfig, load_train_config

PAIRS = PairConfig(width=128, height=96, points=60, max_gap=8)


@pytest.fixture
def config(packs) -> TrainConfig:
    torch.set_num_threads(1)
    return TrainConfig(network="tiny", packs=str(packs), steps=6, batch=1, pairs=PAIRS, validate_every=3)


def make_trainer(config: TrainConfig, folder: Path) -> Trainer:
    return Trainer(config, PairSampler(open_packs(Path(config.packs)), config.pairs), folder)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_resumed_run_equals_an_uninterrupted_one(config, tmp_path):
    whole = make_trainer(config, tmp_path / "whole")
    whole.run()
    first = make_trainer(config, tmp_path / "parts")
    for _ in range(3):
        first.one_step()
    first.save()
    second = make_trainer(config, tmp_path / "parts")
    assert second.resume()
    assert second.step == 3
    second.run()
    assert torch.equal(weights(whole), weights(second))


def test_interruption_saves_the_step_reached(config, tmp_path):
    trainer = make_trainer(config, tmp_path)

    def interrupt(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(interrupt)
    assert read_checkpoint(tmp_path / CHECKPOINT)["step"] == 2


def test_losses_fall(config, tmp_path):
    trainer = make_trainer(dataclasses.replace(config, steps=60, batch=2), tmp_path)
    totals = [trainer.one_step()["loss"] for _ in range(40)]
    assert np.mean(totals[-5:]) < 0.9 * np.mean(totals[:5])


def test_full_disk_keeps_the_last_checkpoint(tmp_path):
    file = tmp_path / "kept.pt"
    file.write_text("good")

    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(VslamError, match=r"cannot be written.*No space left"):
        write_whole(file, fail)
    assert file.read_text() == "good"
    assert list(tmp_path.iterdir()) == [file]


def test_checkpoint_of_another_network_is_refused(config, tmp_path):
    make_trainer(config, tmp_path).save()
    other = make_trainer(dataclasses.replace(config, network="light"), tmp_path)
    with pytest.raises(VslamError, match="holds network 'tiny', not 'light'"):
        other.resume()


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(VslamError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(VslamError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path / "text.pt")
    torch.save({"a": 1}, tmp_path / "other.pt")
    with pytest.raises(VslamError, match="not a checkpoint of 'vslam train'"):
        read_checkpoint(tmp_path / "other.pt")


def test_rate_rises_then_falls(config, tmp_path):
    trainer = make_trainer(dataclasses.replace(config, steps=100), tmp_path)
    rates = []
    for trainer.step in range(101):
        rates.append(trainer.rate())
    assert np.argmax(rates) == 5
    assert max(rates) == pytest.approx(config.rate)
    assert rates[-1] == pytest.approx(config.rate / 200)


def test_batch_statistics_freeze_at_the_end(config, tmp_path):
    trainer = make_trainer(dataclasses.replace(config, steps=10, freeze_norm=0.2), tmp_path)
    trainer.step = 8
    before = trainer.model.network.at2[0][1].running_mean.clone()
    trainer.one_step()
    assert torch.equal(before, trainer.model.network.at2[0][1].running_mean)


def test_run_logs_losses_and_validation(config, tmp_path, packs, monkeypatch):
    monkeypatch.setattr("vslam.train.run.VALIDATION_PAIRS", 3)
    train(dataclasses.replace(config, validation=str(packs)), tmp_path, quiet=True)
    text = (tmp_path / "log.jsonl").read_text()
    assert '"validation float"' in text
    assert '"repeatability"' in text
    assert (tmp_path / "config.json").is_file()


def test_unusable_device_is_one_line(config, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    with pytest.raises(VslamError, match="device: 'cuda' cannot be used"):
        train(dataclasses.replace(config, device="cuda"), tmp_path, quiet=True)


def test_settings_refuse_unknown_keys(tmp_path):
    (tmp_path / "bad.yaml").write_text("stepps: 3\n")
    with pytest.raises(VslamError, match="unknown key 'stepps'"):
        load_train_config(tmp_path / "bad.yaml")


@pytest.mark.parametrize("name", ["train-light", "train-tiny"])
def test_shipped_settings_load(name):
    assert load_train_config(name).steps > 1000


def test_untrained_network_scores_sanely(config, packs, tmp_path):
    pairs = fixed_pairs(PairSampler(open_packs(packs), config.pairs), 3)
    scores = score_network(make_trainer(config, tmp_path).model.network, pairs, binary=True)
    assert 0 <= scores.repeatability <= 1
    assert 0 <= scores.precision <= 1


WORKER = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from vslam.train.data.pairs import PairConfig
from vslam.train.run import make_sampler, train
from vslam.train.settings import LossWeights, TrainConfig
pairs = PairConfig(width=128, height=96, points=60, max_gap=8)
out = Path(sys.argv[2])
losses = LossWeights()
if sys.argv[3] == "detector":
    losses = LossWeights(descriptor=0, bits_float=0, bits=0, balance=0, reliability=0)
config = TrainConfig(network="tiny", packs=sys.argv[1], steps=3, batch=1, pairs=pairs, losses=losses)
t = train(config, out, quiet=True)
torch.save(torch.cat([p.detach().flatten() for p in t.model.parameters()]), out / f"weights{t.rank}.pt")
"""


@pytest.mark.parametrize("losses", ["all", "detector"])
def test_two_processes_end_with_the_same_weights(packs, tmp_path, losses):
    run_two(WORKER, packs, tmp_path, losses, timeout_s=200)
    assert torch.equal(torch.load(tmp_path / "weights0.pt"), torch.load(tmp_path / "weights1.pt"))
    assert read_checkpoint(tmp_path / CHECKPOINT)["step"] == 3


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({"descriptor": 0.0, "hinge_dense": 1.0}, {"hinge_dense_right", "hinge_dense_wrong"}),
        ({"descriptor": 0.0, "hinge_sparse": 1.0}, {"hinge_sparse_right", "hinge_sparse_wrong"}),
        ({"bits": 0.0, "bits_float": 0.0, "triplet": 1.0}, {"triplet"}),
        ({"bits": 0.0, "bits_float": 0.0, "triplet_bits": 1.0}, {"triplet_bits"}),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else "",
)
def test_chosen_losses_are_logged_apart_and_fall(config, tmp_path, losses, expected):
    chosen = dataclasses.replace(LossWeights(), **losses)
    config = dataclasses.replace(config, losses=chosen, steps=60, batch=2)
    trainer = Trainer(config, make_sampler(open_packs(Path(config.packs)), config), tmp_path)
    parts = [trainer.one_step() for _ in range(40)]
    assert expected | {"detector", "detector_warped", "positive", "negative"} <= set(parts[0])
    assert not {"hinge_dense_right", "hinge_sparse_right"} & set(parts[0]) - expected
    value = [sum(p[name] for name in expected) for p in parts]
    assert np.mean(value[-5:]) < 0.95 * np.mean(value[:5])


def test_total_is_the_weighted_sum_of_its_parts(config, tmp_path):
    trainer = make_trainer(config, tmp_path)
    parts = trainer.one_step()
    weights = config.losses
    names = ("place", "descriptor", "bits_float", "bits", "balance", "reliability")
    expected = sum(getattr(weights, name) * parts[name] for name in names)
    expected += weights.detector * (parts["detector"] + parts["detector_warped"]) / 2
    assert parts["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_detector_learns_on_what_the_network_sees_in_use(config, tmp_path):
    trainer = make_trainer(config, tmp_path)
    batch = {key: torch.from_numpy(value) for key, value in trainer.draw(0).items()}
    trainer.model.eval()  # batch norm would tell one batch from another
    with torch.no_grad():
        parts = trainer.model(batch)
        semi = trainer.model.network(batch["images"].flatten(0, 1)[:, None].float() / 255)["semi"]
    for view, name in zip(range(2), ("detector", "detector_warped"), strict=True):
        expected = losses.cell_cross_entropy(semi[view : view + 1], batch["targets"][view], batch["masks"][view])
        assert float(parts[name]) == pytest.approx(float(expected), rel=1e-4)


def test_mixed_precision_rounds_neither_places_nor_matches(config, tmp_path):
    trainer = make_trainer(config, tmp_path)
    batch = {key: torch.from_numpy(value) for key, value in trainer.draw(0).items()}
    trainer.model.eval()
    shared = torch.rand(2, TINY.head, 12, 16, generator=torch.Generator().manual_seed(0))
    trainer.model.network.share = lambda eighth: shared
    with torch.no_grad():
        exact = trainer.model(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = trainer.model(batch)
    assert all(mixed[name] == exact[name] for name in ("descriptor", "bits_float", "bits", "balance"))


def test_heads_without_weight_are_left_out(config, tmp_path):
    detector_only = LossWeights(descriptor=0, bits_float=0, bits=0, balance=0, reliability=0)
    trainer = make_trainer(dataclasses.replace(config, losses=detector_only), tmp_path)
    before = trainer.model.network.descriptor.weight.detach().clone()
    assert set(trainer.one_step()) == {"detector", "detector_warped", "place", "loss"}
    assert torch.equal(before, trainer.model.network.descriptor.weight)


def test_a_run_without_any_loss_is_refused(config, tmp_path):
    nothing = LossWeights(**dict.fromkeys(vars(LossWeights()), 0.0))
    with pytest.raises(VslamError, match="every weight is 0"):
        make_trainer(dataclasses.replace(config, losses=nothing), tmp_path)
