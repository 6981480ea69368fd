import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.agents.fakes import make_toy, toy_model, write_run
from tests.toy import ToyModel, toy_segment
from worldloom.agents.agent import Agent
from worldloom.agents.saved import PlanningSettings, SavedPolicy, load_agent, make_planner, save_agent
from worldloom.envs import make_env
from worldloom.envs.adapt import adapt
from worldloom.envs.policy import load_policy
from worldloom.envs.rollout import play_episode
from worldloom.errors import UserError
from worldloom.runs import checkpoint

SEARCH = {"horizon": 4, "samples": 16, "elites": 4, "iterations": 2, "policy_samples": 2}
SETTINGS = PlanningSettings("mppi", SEARCH, replan_every=2, discount=0.9)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", toy_model(noise=0.3))


@pytest.fixture
def saved(run: Path) -> Path:
    save_agent(run / "plan" / "toy", SETTINGS, checkpoint.load(run)[1])
    return run / "plan" / "toy"


def actions(agent: Agent) -> list[Tensor]:
    segment = toy_segment(1, 6)
    action, memory = agent.start({k: v[:, 0] for k, v in segment.obs.items()}, 3)
    taken = [action]
    for t in range(1, 6):
        action, memory = agent.act(memory, {k: v[:, t] for k, v in segment.obs.items()})
        taken.append(action)
    return taken


@pytest.mark.parametrize("settings", [SETTINGS, PlanningSettings("cem", {"samples": 64}, action_repeat=2)])
def test_a_saved_agent_acts_as_it_did(run: Path, tmp_path: Path, settings: PlanningSettings) -> None:
    model, found = checkpoint.load(run)
    save_agent(tmp_path / "agent", settings, found)
    again = load_agent(tmp_path / "agent")
    assert all(torch.equal(a, b) for a, b in zip(actions(settings.make(model, found)), actions(again), strict=True))


def test_every_setting_of_the_planner_is_written_down(saved: Path) -> None:
    content = json.loads((saved / "agent.json").read_text())
    assert content["settings"]["temperature"] == 0.5  # a default of today, which may be another one tomorrow
    assert (content["kind"], content["run"], content["step"]) == ("planning", "../..", 1)
    assert len(content["checkpoint"]) == 64


def test_an_agent_inside_its_run_moves_along_with_it(saved: Path, tmp_path: Path) -> None:
    run = saved.parents[1]
    shutil.move(run, tmp_path / "elsewhere")
    load_agent(tmp_path / "elsewhere" / "plan" / "toy")


def test_recording_plays_the_folder_the_same_every_time(saved: Path) -> None:
    env = adapt(make_toy(), "toy", 16)
    policy = load_policy(str(saved), env.action_space)
    episodes = [play_episode(env, policy, np.random.SeedSequence(seed)) for seed in (1, 2, 1)]
    assert np.array_equal(episodes[0].action, episodes[2].action)
    assert not np.array_equal(episodes[0].action[:4], episodes[1].action[:4])


def test_another_checkpoint_of_the_same_step_is_refused(saved: Path) -> None:
    run = saved.parents[1]
    model = toy_model(noise=0.3)
    torch.nn.init.ones_(model.correction.bias)
    shutil.rmtree(run / "checkpoints")
    write_over(run, model)
    with pytest.raises(UserError, match="trained again since"):
        load_agent(saved)


def write_over(run: Path, model: ToyModel) -> None:
    other = write_run(run.parent / "other", model)
    shutil.copytree(other / "checkpoints", run / "checkpoints")


def test_a_run_that_is_gone_is_named(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "a" / "b" / "agent")
    with pytest.raises(UserError, match="not a run"):
        load_agent(tmp_path / "a" / "b" / "agent")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda content: content.update(format=9), "format 9"),
        (lambda content: content.pop("deadline"), "damaged.*deadline"),
        (lambda content: content["settings"].update(elites=0), "elites of MPPI is 0"),
        (lambda content: content.update(planner="mpi"), "Did you mean 'mppi'"),
    ],
)
def test_a_damaged_description_is_refused(saved: Path, edit: Callable[[Any], Any], words: str) -> None:
    content = json.loads((saved / "agent.json").read_text())
    edit(content)
    (saved / "agent.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        load_agent(saved)


def test_a_policy_for_another_environment_is_refused(saved: Path) -> None:
    with pytest.raises(UserError, match="plans 2 continuous actions, but the environment takes 2 discrete ones"):
        SavedPolicy(saved, make_env("gym:CartPole-v1").action_space)
    env = adapt(make_toy(pixels=False), "toy")
    with pytest.raises(UserError, match="shows state, but the saved agent observes 'image'"):
        play_episode(env, load_policy(str(saved), env.action_space), np.random.SeedSequence(0))
    env = adapt(make_toy(), "toy", 32)
    with pytest.raises(UserError, match=r"'image' as \(3, 32, 32\), but .* \(3, 16, 16\)"):
        play_episode(env, load_policy(str(saved), env.action_space), np.random.SeedSequence(0))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("mmpi", {}, "unknown planner 'mmpi'. Did you mean 'mppi'"),
        ("mppi", {"elite": 3}, "unknown setting of planner 'mppi' 'elite'. Did you mean 'elites'"),
        ("mppi", {"horizon": 0}, "horizon of MPPI is 0"),
        ("mppi", {"elites": "many"}, "elites is 'many', but it must be a int"),
        ("mppi", {"elites": 2.5}, "elites is 2.5"),
        ("adversarial", {}, "only Python can give"),
    ],
)
def test_a_planner_that_cannot_be_made_says_why(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_planner(name, settings)
