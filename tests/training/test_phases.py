"""A training in phases: each trains what it names on its own objective and schedule, and any can be resumed in."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSettings
from tests.latent import LatentModel
from tests.toy import toy_spec
from tests.training.test_resume import assert_same_end
from worldloom.errors import UserError
from worldloom.models import build
from worldloom.runs.checkpoint import Checkpoint, read_state, steps_saved
from worldloom.schedule import Budget, OptimizerSettings, Phase, phase_budget
from worldloom.training.phases import plan_phases
from worldloom.training.session import run_training

# The model samples, weights are averaged, and every update is saved.
EXACT: dict[str, Any] = {
    "family": "latent", "overrides": ("noise=0.1",), "checkpoint_every": 1, "keep": 10, "average": 0.5,
}  # fmt: skip


@pytest.fixture
def whole(toy_settings: MakeSettings, tmp_path: Path) -> Path:
    """A run of three updates of the tokenizer and three of the dynamics."""
    run_training(toy_settings(out=tmp_path / "whole", **EXACT))
    return tmp_path / "whole"


def moved(run: Path, first: int, last: int) -> set[str]:
    """Which modules' trained parameters are others at one step than at another."""
    one, other = (Checkpoint.read(run, step).trainer for step in (first, last))
    names = [name for name in one if name.startswith("trained/") and not name.endswith(("running", "calls"))]
    return {name.split("/")[1].split(".")[0] for name in names if not torch.equal(one[name], other[name])}


def test_each_phase_trains_what_it_names_and_nothing_else(whole: Path) -> None:
    assert moved(whole, 1, 3) == {"tokenizer"}
    assert moved(whole, 4, 6) == {"dynamics", "reward"}


def test_the_log_and_the_checkpoints_say_which_phase_it_was(whole: Path) -> None:
    records = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    logged = [(record["step"], record["phase"], set(record["terms"])) for record in records if "loss" in record]
    assert logged == [
        *((step, "tokenizer", {"image", "state"}) for step in (1, 2, 3)),
        *((step, "dynamics", {"latent", "reward"}) for step in (4, 5, 6)),
    ]
    phases = [read_state(whole / "checkpoints" / f"step-{step:08d}")["phase"] for step in (3, 4)]
    assert [phase["name"] for phase in phases] == ["tokenizer", "dynamics"]
    assert [phase["step"] for phase in phases] == [0, 3]


def test_a_phase_has_its_own_schedule_and_begins_its_optimiser_anew(whole: Path) -> None:
    records = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    rates = {record["step"]: record["lr"] for record in records if "loss" in record}
    assert rates[3] == pytest.approx(0.1 * 3e-3)  # as --lr and --final-lr say
    assert rates[6] == pytest.approx(0.5 * 1e-2)  # as the family says
    named = {name.split("/")[1].split(".")[0] for name in Checkpoint.read(whole, 4).trainer if "optimizer/" in name}
    assert named == {"dynamics", "reward"}
    counts = [value for name, value in Checkpoint.read(whole, 4).trainer.items() if name.endswith("weight/step")]
    assert {float(count) for count in counts} == {1.0}


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_run_resumed_in_any_phase_or_between_them_ends_with_the_same_weights(
    whole: Path, toy_settings: MakeSettings, stop: int
) -> None:
    cut = Path(shutil.copytree(whole, whole.with_name("cut")))
    for step in range(stop + 1, 7):
        shutil.rmtree(cut / "checkpoints" / f"step-{step:08d}")
    run_training(toy_settings(out=cut, resume=True, **EXACT))
    assert_same_end(whole, cut)


def test_a_run_continued_for_longer_stays_in_its_phase_and_ends_where_it_is_told(
    whole: Path, toy_settings: MakeSettings
) -> None:
    run_training(toy_settings(out=whole, resume=True, **{**EXACT, "steps": 8}))
    assert steps_saved(whole)[-1] == 8
    assert moved(whole, 6, 8) == {"dynamics", "reward"}
    assert read_state(whole / "checkpoints" / "step-00000008")["phase"]["step"] == 3


@pytest.mark.parametrize(
    ("steps", "phase_steps", "phase"),
    [
        (None, ("tokenizer=2", "dynamics=0"), "tokenizer"),
        (None, ("tokenizer=0", "dynamics=2"), "dynamics"),
        (2, ("tokenizer=2",), "tokenizer"),
        (2, ("dynamics=1",), "dynamics"),
    ],
)
def test_the_steps_of_a_phase_can_be_given(
    toy_settings: MakeSettings, steps: int | None, phase_steps: tuple[str, ...], phase: str
) -> None:
    settings = toy_settings(family="latent", steps=steps, phase_steps=phase_steps, checkpoint_every=1)
    run_training(settings)
    assert steps_saved(settings.out) == [1, 2]
    assert read_state(settings.out / "checkpoints" / "step-00000002")["phase"]["name"] == phase


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phase_steps": ("tokeniser=2",)}, "unknown phase of family 'latent' 'tokeniser'. Did you mean 'tokenizer'"),
        ({"phase_steps": ("tokenizer",)}, "write it as NAME=N"),
        ({"phase_steps": ("tokenizer=-1",)}, "write it as NAME=N"),
        ({"phase_steps": ("tokenizer=1", "tokenizer=2")}, "given twice"),
        ({"phase_steps": ("tokenizer=7",)}, "--steps is 6, but the phases take 7 (tokenizer 7)"),
        ({"phase_steps": ("tokenizer=2", "dynamics=2")}, "--steps is 6, but the phases take 4"),
        ({"phase_steps": ("tokenizer=2",), "steps": None}, "phase 'dynamics' has no budget: give --phase-steps"),
    ],
)
def test_a_budget_that_does_not_fit_the_phases_is_refused_before_anything_is_written(
    toy_settings: MakeSettings, change: dict[str, Any], words: str
) -> None:
    settings = toy_settings(family="latent", **change)
    with pytest.raises(UserError) as error:
        run_training(settings)
    assert words in str(error.value)
    assert not settings.out.exists()


def test_a_phase_that_reaches_no_parameter_is_an_error_that_names_it(
    toy_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LatentModel, "phases", (Phase("wrong", "dynamics_loss", ("tokenizer",)),))
    with pytest.raises(UserError, match=r"phase 'wrong': dynamics_loss\(\) reaches no parameter that trains"):
        run_training(toy_settings(family="latent"))


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (Phase("a", "los"), "the model has no method 'los', which its objective names"),
        (Phase("a", modules=("tokeniser",)), "no parameter is in 'tokeniser'"),
        (Phase("a", share=0.0), "share is 0.0, but must be above 0"),
    ],
)
def test_a_phase_that_names_what_its_model_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, phase: Phase, words: str
) -> None:
    monkeypatch.setattr(LatentModel, "phases", (phase,))
    with pytest.raises(UserError, match=f"phase 'a' of family 'latent': {words}"):
        plan_phases(build("latent", toy_spec(), "debug"), Budget(10), ())


def test_the_checkpoint_of_a_phase_that_is_gone_is_refused(
    whole: Path, toy_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LatentModel, "phases", (Phase("other", "dynamics_loss", ("dynamics", "reward")),))
    with pytest.raises(UserError, match=r"state\.json is damaged"):
        run_training(toy_settings(out=whole, resume=True, **EXACT))


def test_phases_share_what_is_left_by_those_that_have_steps_of_their_own() -> None:
    phases = (Phase("a", share=1), Phase("b", steps=10), Phase("c", share=3))
    assert phase_budget(phases, Budget(50), 0, 0.0) == Budget(10)
    assert phase_budget(phases[1:], Budget(50), 10, 0.0) == Budget(10)
    assert phase_budget(phases[2:], Budget(50), 20, 0.0) == Budget(30)
    assert phase_budget(phases[2:], Budget(60, minutes=5.0), 20, 60.0) == Budget(40, 4.0)


def test_a_phase_ends_by_the_clock_too() -> None:
    phases = (Phase("a", share=1), Phase("b", share=3))
    assert phase_budget(phases, Budget(minutes=8.0), 0, 0.0).progress(5, 60.0) == 0.5
    assert phase_budget(phases[1:], Budget(minutes=8.0), 9, 120.0).progress(1, 180.0) == 0.5


def test_an_empty_budget_is_spent_and_none_never_ends() -> None:
    assert Budget(0).progress(0, 0.0) == 1.0
    assert Budget().progress(10**9, 1e9) == 0.0


def test_parameters_are_named_by_whole_modules() -> None:
    phase = Phase("a", modules=("head", "core.layer"))
    assert [phase.trains(name) for name in ("head.weight", "heads.weight", "core.layer.bias", "core.bias")] == [
        True, False, True, False,
    ]  # fmt: skip


def test_a_phase_whose_parameters_are_all_in_frozen_parts_is_left_out() -> None:
    model = build("latent", toy_spec(), "debug")
    again = build("latent", toy_spec(), "debug", {"tokenizer": model.get_submodule("tokenizer")})
    phases, _ = plan_phases(again, Budget(10), ())
    assert [phase.name for phase in phases] == ["dynamics"]
    with pytest.raises(UserError, match=r"--phase-steps tokenizer=2: .* nothing to train \(frozen: tokenizer\)"):
        plan_phases(again, Budget(10), ("tokenizer=2",))


def test_what_a_phase_does_not_say_is_as_the_settings_have_it() -> None:
    settings = OptimizerSettings(lr=1.0, warmup=7, final_lr=0.3, clip=9.0)
    assert Phase("a", lr=2.0).schedule(settings) == OptimizerSettings(lr=2.0, warmup=7, final_lr=0.3, clip=9.0)
