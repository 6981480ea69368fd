"""Settings: wrong values are refused, JSON and the resume line lead back to the same training."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import pytest
import tyro

from tests.conftest import MakeSettings
from worldloom.errors import UserError
from worldloom.runs.train_settings import TrainSettings
from worldloom.schedule import Budget, OptimizerSettings, Reporting


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "--steps is 0"),
        ({"steps": None}, "--steps N or --minutes M"),
        ({"steps": None, "minutes": -1.0}, "--minutes is -1"),
        ({"minutes": float("nan")}, "--minutes is nan"),
        ({"steps": None, "minutes": 0.0}, "--minutes is 0"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"length": 1}, "--length is 1"),
        ({"lr": float("inf")}, "--lr is inf"),
        ({"average": 1.0}, "--average is 1.0, but must be below 1"),
        ({"keep": 0}, "--keep is 0"),
        ({"held_out": 1.0}, "--held-out is 1.0"),
        ({"image_size": -1}, "--image-size is -1"),
        ({"image_size": (0, 8)}, "--image-size is (0, 8)"),
        ({"log_every": 0}, "--log-every is 0"),
        ({"weights": (1.0, 2.0)}, "2 numbers for 1 datasets"),
        ({"weights": (0.0,)}, "not all 0"),
        ({"weights": (float("inf"),)}, "finite"),
        ({"seed": 10**30}, "--seed is 1000000000000000000000000000000, but must be at most"),
        ({"threads": 10**12}, "--threads is 1000000000000, but must be at most"),
        ({"length": 10**12}, "--length is 1000000000000, but must be at most"),
        ({"data": ()}, "no dataset given"),
        ({"out": Path("")}, "--out is '.'"),
    ],
)
def test_a_value_that_cannot_work_is_named_with_its_flag(
    toy_settings: MakeSettings, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as error:
        toy_settings(**change).check()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_json_leads_back_to_the_same_settings(toy_settings: MakeSettings) -> None:
    settings = toy_settings(weights=(2.0,), overrides=("hidden=8",), minutes=2.5, phase_steps=("a=3", "b=4"))
    assert TrainSettings.from_json(settings.to_json()) == settings


def test_the_resume_line_leads_back_to_the_same_settings(toy_settings: MakeSettings) -> None:
    further = {"part": ("a=runs/one@3",), "init_part": ("b=runs/two",), "phase_steps": ("a=3", "b=4")}
    changes = {"overrides": ("hidden=8", "noise=0.5"), "tensorboard": True, "skip_broken": True, **further}
    settings = toy_settings(weights=(2.0,), **changes)
    words = shlex.split(settings.resume_line())
    assert words[:2] == ["worldloom", "train"]
    assert parsed(words[2:]) == toy_settings(**{**_values(settings), "resume": True})


def test_settings_from_before_there_were_parts_and_phases_are_read(toy_settings: MakeSettings) -> None:
    settings = toy_settings(average=0.9)
    earlier = settings.to_json()
    for name in ("part", "init_part", "phase_steps"):
        del earlier[name]
    assert TrainSettings.from_json(earlier) == settings


def test_a_part_may_be_found_elsewhere_but_not_begun_with_anew(toy_settings: MakeSettings) -> None:
    assert toy_settings(part=("a=there",)).changes(toy_settings(part=("a=here",))) == []
    with pytest.raises(UserError, match=r"was started with --init-part a=.*here and cannot continue with .*there"):
        toy_settings(init_part=("a=there",)).changes(toy_settings(init_part=("a=here",)))


def test_the_small_values_say_what_the_flags_do(toy_settings: MakeSettings) -> None:
    settings = toy_settings(minutes=3.0, average=0.9, clip=0.1, keep=7)
    assert settings.budget == Budget(6, 3.0)
    assert settings.optimizer == OptimizerSettings(lr=3e-3, warmup=2, clip=0.1, ema_decay=0.9)
    assert settings.reporting == Reporting(log_every=1, checkpoint_every=2, keep=7, preview_every=0)


def test_a_resumed_run_may_go_on_for_longer_and_says_so(toy_settings: MakeSettings) -> None:
    changes = toy_settings(steps=20, log_every=7).changes(toy_settings(steps=10))
    assert changes == ["--steps 20 from here on, --steps 10 before"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 8}, {"overrides": ("hidden=8",)}, {"size": "nano"}])
def test_a_resumed_run_cannot_become_another_run(toy_settings: MakeSettings, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="was started with"):
        toy_settings(**change).changes(toy_settings())


@pytest.mark.parametrize("flags", [["--stepz", "3"], ["--steps", "many"], ["--precision", "fp8"]])
def test_a_flag_that_does_not_exist_or_fit_leaves_with_2(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parsed(["toy", "data", "--out", "run", *flags])
    assert stopped.value.code == 2


def parsed(words: list[str]) -> TrainSettings:
    def command(settings: Annotated[TrainSettings, tyro.conf.arg(name="")]) -> TrainSettings:
        return settings

    return tyro.cli(command, args=words)


def _values(settings: TrainSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}
