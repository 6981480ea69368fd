import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import tyro

from worldloom.agents.policy import PolicyAgent
from worldloom.agents.saved import load_agent
from worldloom.commands.evaluate import EvaluateSettings, evaluate
from worldloom.commands.learn import learn
from worldloom.data.episode_file import load_episode
from worldloom.envs import make_env
from worldloom.envs.describe import describe
from worldloom.errors import UserError
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.learning.methods import METHODS
from worldloom.learning.session import episode_seed
from worldloom.learning.settings import LearnSettings
from worldloom.runs.checkpoint import Checkpoint, load

SHORT = {
    "size": "debug", "steps": 120, "random_steps": 40, "max_episode_steps": 20, "batch_size": 8, "updates": 1.0,
    "eval_every": 60, "eval_episodes": 2, "checkpoint_every": 40,
}  # fmt: skip
OWN: dict[str, dict[str, object]] = {
    "tdmpc": {"samples": 16, "elites": 4, "iterations": 2, "prior_samples": 2},
    "dreamer": {"length": 8, "batch_size": 4, "policy": ActorCriticConfig(units=16, layers=1, horizon=3)},
}
COLLECTING = [name for name, method in METHODS.items() if method.learner is not None]
both = pytest.mark.parametrize("method", COLLECTING)


def settings(out: Path, env: str = "gym:Pendulum-v1", method: str = "tdmpc", **changes: object) -> LearnSettings:
    return METHODS[method].settings(env=env, out=out, **{**SHORT, **OWN[method], **changes})  # type: ignore[arg-type]


def start(settings: LearnSettings) -> None:
    """As the command line does."""
    learn(settings)


@both
def test_learning_leaves_a_run_that_loads_like_a_trained_one(tmp_path: Path, method: str) -> None:
    start(settings(tmp_path / "run", method=method))
    _, run = load(tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    evaluations = [record["evaluation"] for record in records if "evaluation" in record]
    assert run.family == {"tdmpc": "tdmpc", "dreamer": "rssm"}[method]
    assert [e["decisions"] for e in evaluations] == [60, 120]
    assert all(len(e["returns"]) == 2 for e in evaluations)
    assert run.step == 120  # as many updates as decisions, those of the random phase made up for


def test_judging_a_learned_model_asks_for_data_it_never_saw(tmp_path: Path) -> None:
    start(settings(tmp_path / "run", steps=40))
    with pytest.raises(UserError, match="no data was held out"):
        evaluate(EvaluateSettings(run=tmp_path / "run"))


def test_several_environments_share_each_decision(tmp_path: Path) -> None:
    start(settings(tmp_path / "run", num_envs=3))
    assert len(list((tmp_path / "run" / "replay").iterdir())) == 6
    assert load(tmp_path / "run")[1].step == 120


@both
def test_discrete_actions_with_ends_are_learned_too(tmp_path: Path, method: str) -> None:
    start(settings(tmp_path / "run", "gym:CartPole-v1", method, steps=80, max_episode_steps=None))
    model, _ = load(tmp_path / "run")
    assert "terminated" in model.decodes


@both
def test_a_learning_that_was_killed_ends_where_an_uninterrupted_one_does(tmp_path: Path, method: str) -> None:
    start(settings(tmp_path / "whole", method=method))
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "step-00000120")
    assert load(tmp_path / "killed")[1].step == 80
    start(settings(tmp_path / "killed", method=method, resume=True))
    whole, again = (Checkpoint.read(tmp_path / name) for name in ("whole", "killed"))
    assert whole.step == again.step
    assert all(torch.equal(whole.model[name], again.model[name]) for name in whole.model)
    assert all(torch.equal(whole.auxiliary[name], again.auxiliary[name]) for name in whole.auxiliary)
    assert bool(whole.auxiliary) == (method == "dreamer")


def test_exploring_goes_on_bit_for_bit_and_what_is_judged_and_saved_is_the_task(tmp_path: Path) -> None:
    asked = {"method": "dreamer", "explore": "disagreement", "explore_steps": 100}
    start(settings(tmp_path / "whole", **asked))
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "step-00000120")
    start(settings(tmp_path / "killed", **asked, resume=True))
    whole, again = (Checkpoint.read(tmp_path / name).auxiliary for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    agent = load_agent(tmp_path / "whole")
    assert isinstance(agent, PolicyAgent)
    actor = {name: value for name, value in whole.items() if name.startswith("task.actor.")}
    assert actor
    assert all(torch.equal(agent.actor.state_dict()[name.removeprefix("task.actor.")], v) for name, v in actor.items())


def test_the_explorer_collects_until_its_steps_are_over_and_never_is_judged(tmp_path: Path) -> None:
    asked = settings(tmp_path / "run", method="dreamer", explore="disagreement", explore_steps=100)
    learner = METHODS["dreamer"].learner(asked, describe(make_env("gym:Pendulum-v1")))
    assert learner.collector(99).actor is not learner.evaluated.actor
    assert learner.collector(100).actor is learner.evaluated.actor
    assert learner.collector(100).explore
    assert not learner.evaluated.explore


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"explore_steps": 60}, "--explore-steps is 60: it needs --explore"),
        ({"explore": "disagreement", "explore_steps": 40}, "to be more than the first --random-steps 40"),
    ],
)
def test_exploring_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        start(settings(tmp_path / "run", method="dreamer", **changes))
    assert not (tmp_path / "run").exists()


def test_a_learning_that_was_killed_logs_nothing_twice(tmp_path: Path) -> None:
    start(settings(tmp_path / "run", steps=80, random_steps=70))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000080")  # as if killed after the random phase
    start(settings(tmp_path / "run", steps=80, random_steps=70, resume=True))
    records = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    counted = [record["decisions"] for record in records if "returns" in record]
    assert counted == [20, 40, 60, 80]


def test_training_and_evaluation_episodes_never_share_a_seed() -> None:
    training = {episode_seed(seed, index) for seed in range(3) for index in range(500)}
    assert training.isdisjoint(range(1_000_000, 1_000_100))


@both
def test_the_command_of_a_learning_asks_for_what_it_was_told(tmp_path: Path, method: str) -> None:
    asked = settings(tmp_path, method=method, options=("a=1", "b=2"), overrides=("depth=8",), max_episode_steps=None)
    words = shlex.split(asked.command())
    assert words[:3] == ["worldloom", "learn", method]
    assert tyro.cli(METHODS[method].settings, args=words[3:]) == asked


def test_every_method_is_called_as_its_settings_say() -> None:
    assert {name: method.settings.method for name, method in METHODS.items()} == {name: name for name in METHODS}


def test_a_run_of_one_method_is_not_continued_as_another(tmp_path: Path) -> None:
    start(settings(tmp_path / "run", steps=40))
    with pytest.raises(UserError, match="started with tdmpc, not dreamer"):
        start(settings(tmp_path / "run", method="dreamer", resume=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "--steps is 0"),
        ({"updates": 0.0}, "--updates is 0.0"),
        ({"elites": 17}, "--elites is 17"),
        ({"size": "huge"}, "size of family 'tdmpc'"),
        ({"overrides": ("latnt=3",)}, "latnt"),
        ({"env": "gym:NoSuchThing-v0"}, "NoSuchThing"),
        ({"resume": True}, "no learning to resume"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        start(replace(settings(tmp_path / "run"), **change))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_run_is_neither_overwritten_nor_continued_as_another(tmp_path: Path) -> None:
    start(settings(tmp_path / "run", steps=40))
    with pytest.raises(UserError, match="already holds a run"):
        start(settings(tmp_path / "run"))
    with pytest.raises(UserError, match="--seed 0, not 1"):
        start(settings(tmp_path / "run", seed=1, resume=True))


@both
def test_a_model_that_reconstructs_is_scaled_to_what_was_collected_at_random(tmp_path: Path, method: str) -> None:
    start(settings(tmp_path / "run", method=method, steps=60, random_steps=40))
    model, run = load(tmp_path / "run")
    # The second episode was still going on when it was time to learn.
    seen = load_episode(tmp_path / "run" / "replay" / "000000.safetensors").obs["state"]
    std = model.encoder.scale.std.tolist()  # type: ignore[union-attr, operator]
    assert std == pytest.approx(seen.std(0).tolist() if method == "dreamer" else [1.0] * 3, rel=1e-4)
    assert (run.spec.obs["state"].mean is not None) == (method == "dreamer")
