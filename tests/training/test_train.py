"""`worldloom train` end to end on the toy family: what it writes, what it refuses, how it stops."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSettings
from tests.toy import ToyModel, write_toy_dataset
from worldloom.cli import main
from worldloom.errors import MissingExtra, UserError
from worldloom.noise import NOISE, Noise
from worldloom.runs.checkpoint import load, steps_saved
from worldloom.runs.folders import claimed
from worldloom.runs.run import RunRecord
from worldloom.training.new_model import hyperparameters
from worldloom.training.session import choose_threads, run_training


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_training_leaves_settings_checkpoints_log_previews_and_summary(toy_settings: MakeSettings) -> None:
    settings = toy_settings(preview_every=3, log_every=2)
    run_training(settings)
    run = settings.out
    assert {path.name for path in run.iterdir()} == {"run.json", "checkpoints", "log.jsonl", "previews", "summary.json"}
    assert steps_saved(run)[-2:] == [4, 6]
    assert [path.name for path in sorted((run / "previews").iterdir())] == [
        "step-00000003-image.png",
        "step-00000006-image.png",
    ]
    assert [r["step"] for r in records(run) if "loss" in r] == [2, 4, 6]
    described = json.loads((run / "run.json").read_text())
    assert described["settings"]["lr"] == settings.lr
    assert described["config"]["hidden"] == 16
    assert json.loads((run / "summary.json").read_text())["shuffled_actions"]["total"]["value"] > 0


def test_a_training_learns(toy_settings: MakeSettings) -> None:
    settings = toy_settings(steps=120, log_every=10, checkpoint_every=100)
    run_training(settings)
    losses = [r["loss"] for r in records(settings.out) if "loss" in r]
    held_out = [r["held_out_loss"] for r in records(settings.out) if "held_out_loss" in r]
    assert losses[-1] < losses[0] / 4
    assert held_out[-1] < losses[0] / 4


def test_the_description_is_fitted_on_training_episodes_alone(toy_settings: MakeSettings, toy_data: Path) -> None:
    from worldloom.data.cache import cache_dataset

    settings = toy_settings(steps=1)
    run_training(settings)
    _, run = load(settings.out)
    dataset = cache_dataset(toy_data, (16, 16))
    assert run.spec == dataset.fit(run.datasets[0].train)
    assert run.spec != dataset.fit(range(len(dataset)))


def test_several_datasets_are_mixed_by_weight(toy_settings: MakeSettings, toy_data: Path, tmp_path: Path) -> None:
    other = write_toy_dataset(tmp_path / "other", episodes=4, length=16, seed=7)
    settings = toy_settings(data=(toy_data, other), weights=(1.0, 3.0))
    run_training(settings)
    _, run = load(settings.out)
    assert [use.weight for use in run.datasets] == [0.25, 0.75]


def test_minutes_can_stop_a_training_instead_of_steps(toy_settings: MakeSettings) -> None:
    settings = toy_settings(steps=None, minutes=0.01)
    run_training(settings)
    _, run = load(settings.out)
    assert run.step >= 1
    assert run.train_seconds >= 0.6


def test_one_thread_is_the_default_and_a_resumed_run_keeps_its_number(toy_settings: MakeSettings) -> None:
    settings = toy_settings(threads=None, steps=1)
    assert choose_threads(settings, None, torch.device("cpu")) == 1
    run_training(toy_settings(threads=2, steps=1))
    assert choose_threads(settings, RunRecord.load(settings.out), torch.device("cpu")) == 2


def test_a_hyperparameter_can_be_set() -> None:
    values = hyperparameters("toy", "debug", ("hidden=8", "noise=1", "ignore_actions=true"))
    assert values == {"hidden": 8, "noise": 1.0, "ignore_actions": True}
    assert type(values["noise"]) is float


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"family": "toi"}, "unknown model family 'toi'. Did you mean 'toy'"),
        ({"size": "nanno"}, "Did you mean 'nano'"),
        ({"overrides": ("hiden=8",)}, "Did you mean 'hidden'"),
        ({"overrides": ("hidden",)}, "KEY=VALUE"),
        ({"overrides": ("hidden=big",)}, "hidden is of type int"),
        ({"overrides": ("hidden=8.5",)}, "hidden is of type int"),
        ({"overrides": ("noise=true",)}, "noise is of type float"),
        ({"family": "rssm", "image_size": 16, "overrides": ("deter=0",)}, "hyperparameter deter of family 'rssm' is 0"),
        (
            {"family": "rssm", "image_size": 16, "overrides": ("deter=-8",)},
            "hyperparameter deter of family 'rssm' is -8",
        ),
        ({"device": "tpu"}, "--device 'tpu'"),
        ({"batch_size": 10_000}, "--batch-size is 10000, but the training episodes hold only"),
        ({"data": (Path("nowhere"),)}, "nowhere"),
        ({"resume": True}, "no run to resume"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    toy_settings: MakeSettings, change: dict[str, Any], words: str
) -> None:
    settings = toy_settings(**change)
    with pytest.raises(UserError) as error:
        run_training(settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not settings.out.exists()


def test_a_finished_run_is_not_overwritten(toy_settings: MakeSettings) -> None:
    run_training(toy_settings(steps=1))
    with pytest.raises(UserError, match=r"already holds a run: continue it with --resume"):
        run_training(toy_settings(steps=1))


def test_a_folder_that_holds_something_else_is_left_alone(toy_settings: MakeSettings) -> None:
    settings = toy_settings()
    settings.out.mkdir()
    (settings.out / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"something else \(thesis.tex\)"):
        run_training(settings)
    assert [path.name for path in settings.out.iterdir()] == ["thesis.tex"]


def test_an_out_that_is_a_file_is_refused(toy_settings: MakeSettings) -> None:
    settings = toy_settings()
    settings.out.touch()
    with pytest.raises(UserError, match="is a file"):
        run_training(settings)


def spoil(monkeypatch: pytest.MonkeyPatch, at: int, term: str, value: float) -> None:
    """Make one loss term of the `at`-th training update (from 1) `value`."""
    real, calls = ToyModel.loss, iter(range(1, 1000))

    def loss(model: ToyModel, segment: Any, belief: Any = None, noise: Noise = NOISE) -> dict[str, torch.Tensor]:
        terms = real(model, segment)
        if model.training and next(calls) == at:
            terms[term] = terms[term] * value
        return terms

    monkeypatch.setattr(ToyModel, "loss", loss)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_at_once_and_keeps_the_last_good_checkpoint(
    toy_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    spoil(monkeypatch, at=4, term="reward", value=value)
    settings = toy_settings(checkpoint_every=2)
    with pytest.raises(UserError) as error:
        run_training(settings)
    assert f"stopped at step 4: loss term 'reward' is {value}" in str(error.value)
    assert "step-00000002" in str(error.value)
    assert steps_saved(settings.out) == [2]
    model, _ = load(settings.out)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_gradient_that_is_not_finite_stops_too(toy_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ToyModel.loss

    def loss(model: ToyModel, segment: Any, belief: Any = None, noise: Noise = NOISE) -> dict[str, torch.Tensor]:
        terms = real(model, segment)
        bias = model.get_parameter("heads.reward.bias")[0]
        return {**terms, "reward": terms["reward"] + (bias - bias.detach()).abs().sqrt()}

    monkeypatch.setattr(ToyModel, "loss", loss)
    with pytest.raises(UserError, match=r"step 1: every loss term is finite, but the gradient is not.*No checkpoint"):
        run_training(toy_settings())


def test_a_model_that_ignores_its_actions_gets_a_loud_warning(
    toy_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = toy_settings(overrides=("ignore_actions=true",))
    run_training(settings)
    assert "THIS MODEL IGNORES ITS ACTIONS" in capsys.readouterr().out
    test = json.loads((settings.out / "summary.json").read_text())["shuffled_actions"]
    assert test["ignores_actions"]
    assert test["total"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_a_model_that_listens_gets_none(toy_settings: MakeSettings, capsys: pytest.CaptureFixture[str]) -> None:
    settings = toy_settings(steps=300, log_every=100, checkpoint_every=300, batch_size=8)
    run_training(settings)
    assert "IGNORES" not in capsys.readouterr().out
    assert json.loads((settings.out / "summary.json").read_text())["shuffled_actions"]["terms"]["state"]["low"] > 1.01


def test_ctrl_c_saves_and_prints_the_line_that_goes_on(
    toy_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = ToyModel.loss, iter(range(1, 1000))

    def loss(model: ToyModel, segment: Any, belief: Any = None, noise: Noise = NOISE) -> dict[str, torch.Tensor]:
        if next(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(model, segment)

    monkeypatch.setattr(ToyModel, "loss", loss)
    settings = toy_settings(checkpoint_every=100)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_training(settings)
    assert signal.getsignal(signal.SIGINT) is handler
    assert steps_saved(settings.out) == [3]
    said = capsys.readouterr().out
    assert "stopped at step 3, which is saved" in said
    assert settings.resume_line() in said


def test_a_full_disk_stops_in_one_line(toy_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    from worldloom.runs import folders

    real, calls = folders.write_and_sync, iter(range(100))

    def full(path: Path, data: bytes) -> None:
        if next(calls) > 3:
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(folders, "write_and_sync", full)
    settings = toy_settings()
    with pytest.raises(UserError, match=r"No space left on device.*--resume.*step-00000002"):
        run_training(settings)
    assert steps_saved(settings.out) == [2]


def test_a_missing_tensorboard_answers_with_the_line_to_type(
    toy_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'worldloom\[tensorboard\]'"):
        run_training(toy_settings(tensorboard=True))


def test_tensorboard_files_are_written_when_asked_for(toy_settings: MakeSettings) -> None:
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    settings = toy_settings(tensorboard=True, steps=2)
    run_training(settings)
    assert list((settings.out / "tensorboard").glob("events*"))


def test_the_command_line_leaves_with_2_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["worldloom", "train", "toi", "data", "--out", str(tmp_path / "run"), "--steps", "1"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("worldloom: error: unknown model family 'toi'. Did you mean 'toy'?")
    assert "\n" not in error


def test_a_held_out_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    toy_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last update had a finite loss, but what it made of the weights has none: they are not to go on from."""
    run_training(toy_settings(steps=2, checkpoint_every=2))
    with pytest.raises(UserError, match="stopped at step 3: the held-out loss is nan") as error:
        run_training(toy_settings(steps=3, lr=1e38, warmup=0, clip=0.0, checkpoint_every=2, resume=True))
    assert "step-00000002" in str(error.value)
    assert steps_saved(toy_settings().out) == [2]


def test_two_trainings_into_one_folder_do_not_mix(toy_settings: MakeSettings) -> None:
    run_training(toy_settings(steps=1))
    for settings in (toy_settings(steps=2, resume=True), toy_settings(out=toy_settings().out.with_name("new"))):
        with claimed(settings.out), pytest.raises(UserError, match="another process is training into it"):
            run_training(settings)
    assert steps_saved(toy_settings().out) == [1]
    assert not toy_settings().out.with_name("new").exists()


def test_windows_that_do_not_fit_into_memory_are_one_line(
    toy_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise MemoryError("Unable to allocate 22 TiB")

    monkeypatch.setattr("worldloom.training.dataset_split.DatasetSplit.loader", full)
    with pytest.raises(UserError, match="4 windows of 8 rows do not fit into memory"):
        run_training(toy_settings())
    assert not toy_settings().out.exists()
