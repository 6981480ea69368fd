"""One update: precision, and evaluation without leaving a trace."""

from pathlib import Path

import pytest
import torch

from tests.conftest import MakeSettings
from worldloom.models import build
from worldloom.runs.checkpoint import Checkpoint
from worldloom.runs.precision import bf16_speed, choose_precision, has_fast_bf16
from worldloom.training.dataset_split import DatasetSplit, read_datasets
from worldloom.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def trainer(toy_settings: MakeSettings) -> Trainer:
    settings = toy_settings()
    split = DatasetSplit.fitted(read_datasets(settings.data, settings.resolution), settings.held_out)
    model, loader = build("toy", split.spec, "debug", noise=0.1), split.loader(settings.batch_size, settings.length)
    return Trainer(model, loader, settings.budget, settings.optimizer, CPU)


def test_bf16_keeps_weights_losses_and_optimiser_in_fp32(trainer: Trainer) -> None:
    trainer.precision = "bf16"
    objective, norm = trainer.update(next(trainer.loader))
    kept = [*trainer.model.parameters(), objective.total, norm]
    kept += [value for values in trainer.optimizer.state.values() for value in values.values()]
    assert {tensor.dtype for tensor in kept} == {torch.float32}


def test_bf16_learns_as_fp32_does(trainer: Trainer) -> None:
    segment = next(trainer.loader)
    start = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    losses = {}
    for precision in ("fp32", "bf16"):
        trainer.model.load_state_dict(start)
        trainer.optimizer.state.clear()
        trainer.step, trainer.precision = 0, precision
        torch.manual_seed(0)
        for _ in range(40):
            objective, _ = trainer.update(segment)
        losses[precision] = objective.total.item()
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_only_where_it_is_fast(monkeypatch: pytest.MonkeyPatch, fast: bool, chosen: str) -> None:
    monkeypatch.setattr("worldloom.runs.precision.has_fast_bf16", lambda device: fast)
    assert choose_precision("auto", CPU) == chosen
    assert [choose_precision(asked, CPU) for asked in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_bf16_without_instructions_for_it_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert bf16_speed.__wrapped__() == 0.0


def test_a_processor_with_instructions_for_bf16_is_asked_how_fast_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert bf16_speed.__wrapped__(side=8) > 0
    for speed, fast in ((0.5, False), (4.0, True)):
        monkeypatch.setattr("worldloom.runs.precision.bf16_speed", lambda speed=speed: speed)
        assert has_fast_bf16(CPU) is fast


def test_evaluation_leaves_random_state_mode_and_gradients_as_they_were(trainer: Trainer) -> None:
    before = torch.get_rng_state()
    with trainer.evaluation_mode() as model:
        first = model(next(trainer.loader))["state"]
        assert not model.training
        assert not first.requires_grad
    assert torch.equal(torch.get_rng_state(), before)
    assert trainer.model.training
    assert torch.is_grad_enabled()


def test_evaluating_twice_draws_the_same_samples(trainer: Trainer) -> None:
    segment = next(trainer.loader)
    losses = []
    for _ in range(2):
        with trainer.evaluation_mode() as model:
            losses.append(model(segment)["state"])
        torch.rand(3)
    assert torch.equal(*losses)


def test_restoring_repeats_the_same_updates(trainer: Trainer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer.update(next(trainer.loader))
    trainer.snapshot().save(run)
    for _ in range(3):
        trainer.update(next(trainer.loader))
    late = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.restore(Checkpoint.read(run), run)
    assert trainer.step == 1
    for _ in range(3):
        trainer.update(next(trainer.loader))
    assert all(torch.equal(late[name], tensor) for name, tensor in trainer.model.state_dict().items())
