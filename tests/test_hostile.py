"""Nothing is imported because a run, a checkpoint, an agent, a policy or a dataset says so."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import worldloom
from tests.agents.fakes import TOY
from tests.outside import install, write_hostile
from tests.toy import ToyModel
from worldloom import registry
from worldloom.agents.saved import PlanningSettings, load_agent, save_agent
from worldloom.commands.augment import AugmentSettings, augment
from worldloom.commands.evaluate import EvaluateSettings, evaluate
from worldloom.commands.imagine import ImagineSettings, imagine
from worldloom.commands.learn import learn
from worldloom.commands.plan import PlanSettings, plan
from worldloom.commands.play import PlaySettings, open_context
from worldloom.commands.record import RecordSettings, record
from worldloom.commands.train import train
from worldloom.errors import NotAllowed, UserError
from worldloom.evaluation.policies.dream_to_real import environment_of
from worldloom.learning.saved_policy import auxiliary_of
from worldloom.learning.settings import CMASettings, DreamerSettings
from worldloom.runs import checkpoint
from worldloom.runs.train_settings import TrainSettings

FAMILY = "hostile:Family"


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that `hostile.py`, in the current folder, would write; nothing is allowed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_allowed", set())
    yield write_hostile(tmp_path)
    sys.modules.pop("hostile", None)


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | changes))


def renamed(run: Path, out: Path, family: str) -> Path:
    """A copy of a run in which every file says that it is of another family."""
    shutil.copytree(run, out)
    for file in (out / "run.json", *out.glob("checkpoints/*/state.json")):
        edit(file, family=family)
    return out


@pytest.fixture
def hostile_run(toy_run: Path, tmp_path: Path, marker: Path) -> Path:
    return renamed(toy_run, tmp_path / "run", FAMILY)


def inside(run: Path) -> dict[str, Any]:
    return {"env": str(run), "out": run.parent / "policy", "steps": 1}


COMMANDS: dict[str, Callable[[Path, dict[str, Any]], object]] = {
    "evaluate": lambda run, more: evaluate(EvaluateSettings(run=run, **more)),
    "imagine": lambda run, more: imagine(ImagineSettings(run=run, start="0:3", out=run.parent / "dream", **more)),
    "plan": lambda run, more: plan(PlanSettings(run=run, env=TOY, **more)),
    "augment": lambda run, more: augment(
        AugmentSettings(run=run, data=data_of(run), out=run.parent / "mixed", context=2, horizon=2, **more)
    ),
    "learn dreamer": lambda run, more: learn(DreamerSettings(**inside(run), batch_size=2, length=4, **more)),
    "learn cma": lambda run, more: learn(CMASettings(**inside(run), horizon=2, population=4, dreams=2, **more)),
}


def data_of(run: Path) -> Path:
    return Path(json.loads((run / "run.json").read_text())["datasets"][0]["path"])


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_imports_the_family_that_a_run_names(hostile_run: Path, marker: Path, command: str) -> None:
    with pytest.raises(NotAllowed, match=rf"run\.json names the .*{FAMILY}.* not imported.* --allow {FAMILY} "):
        COMMANDS[command](hostile_run, {})
    assert not marker.exists()
    assert "hostile" not in sys.modules


def test_play_does_not_either(hostile_run: Path, marker: Path) -> None:
    with pytest.raises(NotAllowed, match=f"--allow {FAMILY}"):
        open_context(PlaySettings(what=str(hostile_run)))
    assert not marker.exists()


def test_what_the_user_allows_is_imported_and_works(hostile_run: Path, marker: Path) -> None:
    COMMANDS["evaluate"](hostile_run, {"allow": (FAMILY,)})
    assert marker.exists()
    assert (hostile_run / "card.json").exists()


def test_a_run_is_loaded_with_the_class_itself_or_with_its_name(hostile_run: Path, marker: Path) -> None:
    with pytest.raises(NotAllowed):
        worldloom.load(hostile_run)
    model, _ = worldloom.load(hostile_run, family=ToyModel)
    assert (type(model), model.family) == (ToyModel, "toy")
    assert not marker.exists()
    model, run = worldloom.load(hostile_run, allow=(FAMILY,))
    assert (model.family, run.family) == (FAMILY, FAMILY)


def test_the_members_of_an_ensemble_are_not_imported(toy_runs: Path, tmp_path: Path, marker: Path) -> None:
    shutil.copytree(toy_runs / "ensemble", tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    edit(file, config=json.loads(file.read_text())["config"] | {"member": FAMILY})
    with pytest.raises(NotAllowed, match=rf"run\.json names the model family '{FAMILY}'"):
        checkpoint.load(tmp_path / "run")
    assert not marker.exists()


@pytest.mark.parametrize(("field", "name"), [("planner", "hostile:Planner"), ("objective", "hostile:OBJECTIVE")])
def test_an_agents_planner_and_objective_are_not_imported(
    toy_run: Path, tmp_path: Path, marker: Path, field: str, name: str
) -> None:
    save_agent(tmp_path / "agent", PlanningSettings("cem", {"horizon": 2}), checkpoint.load(toy_run)[1])
    edit(tmp_path / "agent" / "agent.json", **{field: name})
    with pytest.raises(NotAllowed, match=rf"agent\.json names the {field} '{name}'"):
        load_agent(tmp_path / "agent")
    assert not marker.exists()
    registry.allow(name)
    load_agent(tmp_path / "agent")


def test_the_workers_of_a_recording_import_what_was_allowed_and_nothing_else(
    toy_run: Path, hostile_run: Path, tmp_path: Path, marker: Path
) -> None:
    found = replace(checkpoint.load(toy_run)[1], path=hostile_run)
    save_agent(tmp_path / "agent", PlanningSettings("cem", {"horizon": 2, "samples": 8, "elites": 2}), found)
    asked = RecordSettings(
        env=TOY, out=tmp_path / "data", episodes=1, num_envs=1, image_size=16, policy=str(tmp_path / "agent")
    )
    with pytest.raises(UserError, match=f"--allow {FAMILY} "):
        record(asked)
    assert not marker.exists()
    record(replace(asked, allow=(FAMILY,)))
    assert marker.exists()
    assert "hostile" not in sys.modules, "it was imported by the worker alone"


def test_a_policys_learning_method_is_not_imported(toy_run: Path, tmp_path: Path, marker: Path) -> None:
    learned = {"method": "hostile:METHOD", "settings": {}}
    with pytest.raises(NotAllowed, match=r"learn\.json names the learning method 'hostile:METHOD'"):
        auxiliary_of(checkpoint.load(toy_run)[0], learned, tmp_path / "learn.json")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("env", "options"),
    [
        ("hostile:make", ()),
        ("gym:hostile:Some-v0", ()),
        ("gym:GymV26Environment-v0", ("env_id=hostile:Some-v0",)),
        ("minigrid:hostile:Some-v0", ()),
    ],
)
def test_the_environment_that_a_policy_learned_in_is_not_made(
    tmp_path: Path, marker: Path, env: str, options: tuple[str, ...]
) -> None:
    settings = {"env": env, "options": options, "max_episode_steps": None}
    (tmp_path / "learn.json").write_text(json.dumps({"settings": settings}))
    with pytest.raises(NotAllowed, match=rf"learn\.json names the environment .*type --env {env}"):
        environment_of(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("env", ["point", "gym:CartPole-v1", "hostile:make"])
def test_known_and_allowed_environments_are_made_as_the_file_says(tmp_path: Path, marker: Path, env: str) -> None:
    settings = {"env": env, "options": ["action_repeat=2"], "max_episode_steps": 5}
    (tmp_path / "learn.json").write_text(json.dumps({"settings": settings}))
    registry.allow("hostile:make")
    assert environment_of(tmp_path) == (env, ("action_repeat=2",), 5)


def test_a_run_folder_is_not_an_installed_package(toy_run: Path, tmp_path: Path, marker: Path) -> None:
    """Entry points in the folder that the user stands in, which may be a run's, are not followed."""
    install(tmp_path, "evil", "", {"worldloom.families": {"evil": FAMILY}})
    run = renamed(toy_run, tmp_path / "run", "evil")
    with pytest.raises(UserError, match="unknown model family 'evil'"):
        checkpoint.load(run)
    assert not marker.exists()


def test_an_installed_module_is_not_looked_for_in_the_current_folder(
    toy_run: Path, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that names an installed reference gets the installed module, not a file beside the run of the same name."""
    text = f"from tests.toy import ToyModel\nclass Family(ToyModel): pass\nwhere = {str(tmp_path)!r}\n"
    site = install(tmp_path / "site", "hostile", text, {"worldloom.families": {"good": FAMILY}})
    monkeypatch.syspath_prepend(site)
    checkpoint.load(renamed(toy_run, tmp_path / "run", FAMILY))
    assert sys.modules["hostile"].where == str(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("wrong", ["hostile", "hostile:", ":Family", "hostile.py:Family:x", "../hostile:Family", ""])
def test_only_a_reference_can_be_allowed(marker: Path, wrong: str) -> None:
    with pytest.raises(UserError, match="write it as module:attribute"):
        registry.allow(wrong)


def test_a_frozen_part_of_a_hostile_run_is_not_imported(toy_data: Path, hostile_run: Path, marker: Path) -> None:
    settings = TrainSettings(
        "latent", (toy_data,), hostile_run.parent / "new", "debug", steps=1, part=(f"tokenizer={hostile_run}",)
    )
    with pytest.raises(NotAllowed, match=f"--allow {FAMILY} "):
        train(settings)
    assert not marker.exists()


def test_what_was_allowed_is_typed_again_with_every_command(toy_data: Path) -> None:
    settings = TrainSettings("latent", (toy_data,), Path("out"), steps=1, allow=("a:b", "c:d"))
    assert settings.resume_line().endswith("--allow a:b --allow c:d --resume")
    assert "allow" not in settings.to_json()
    learning = CMASettings(env="run", out=Path("out"), allow=("a:b",))
    assert learning.command().endswith("--allow a:b")
    assert "allow" not in learning.to_json()
