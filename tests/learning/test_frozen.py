"""A policy learned inside a trained model: the model stays, the run is one, and a killed one goes on bit for bit."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import train_toy
from worldloom.agents.policy import PolicyAgent
from worldloom.agents.saved import load_agent
from worldloom.commands.learn import learn
from worldloom.commands.record import RecordSettings, record
from worldloom.errors import UserError
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.learning.settings import DreamerSettings
from worldloom.runs.checkpoint import Checkpoint, load

POLICY = ActorCriticConfig(units=16, layers=1, horizon=3)
SHORT: dict[str, Any] = {"steps": 12, "batch_size": 4, "length": 8, "policy": POLICY}


def settings(env: Path | str, out: Path, **changes: Any) -> DreamerSettings:
    return DreamerSettings(env=str(env), out=out, **{**SHORT, **changes})


def test_the_model_stays_as_it_is_and_the_policy_does_not(rssm_run: Path, tmp_path: Path) -> None:
    learn(settings(rssm_run, tmp_path / "policy"))
    before, after = Checkpoint.read(rssm_run), Checkpoint.read(tmp_path / "policy")
    assert after.hash == before.hash
    assert after.step == 12
    learn(settings(rssm_run, tmp_path / "longer", steps=13))
    longer = Checkpoint.read(tmp_path / "longer")
    assert any(not torch.equal(after.auxiliary[name], longer.auxiliary[name]) for name in after.auxiliary)


def test_what_comes_of_it_is_a_run_and_an_agent(rssm_run: Path, tmp_path: Path) -> None:
    learn(settings(rssm_run, tmp_path / "policy"))
    model, run = load(tmp_path / "policy")
    assert run.spec == load(rssm_run)[1].spec
    agent = load_agent(tmp_path / "policy")
    assert isinstance(agent, PolicyAgent)
    assert agent.model.spec == model.spec
    record(
        RecordSettings(
            env="tests.agents.fakes:make_toy",
            out=tmp_path / "data",
            episodes=1,
            policy=str(tmp_path / "policy"),
            image_size=16,
        )
    )


def test_one_that_was_killed_ends_where_an_uninterrupted_one_does(
    rssm_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldloom.learning.frozen.CHECKPOINT_EVERY", 5)
    learn(settings(rssm_run, tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "step-00000012")
    assert Checkpoint.read(tmp_path / "killed").step == 10
    learn(settings(rssm_run, tmp_path / "killed", resume=True))
    whole, again = (Checkpoint.read(tmp_path / name).auxiliary for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_one_that_was_saved_under_earlier_names_goes_on(
    rssm_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldloom.learning.frozen.CHECKPOINT_EVERY", 5)
    learn(settings(rssm_run, tmp_path / "whole"))
    old = tmp_path / "whole" / "checkpoints" / "step-00000010"
    as_earlier(old)
    for step in (5, 12):
        shutil.rmtree(old.with_name(f"step-{step:08d}"), ignore_errors=True)
    assert isinstance(load_agent(tmp_path / "whole"), PolicyAgent)
    learn(settings(rssm_run, tmp_path / "again"))
    learn(settings(rssm_run, tmp_path / "whole", resume=True))
    whole, again = (Checkpoint.read(tmp_path / name).auxiliary for name in ("whole", "again"))
    assert all(torch.equal(whole[name], again[name]) for name in again)


def as_earlier(checkpoint: Path) -> None:
    """Make a checkpoint as it was before an auxiliary module was called so and training had phases."""
    (checkpoint / "auxiliary.safetensors").rename(checkpoint / "policy.safetensors")
    optimizer = checkpoint / "optimizer.safetensors"
    tensors = {name.replace("/auxiliary.", "/companion."): value for name, value in load_file(optimizer).items()}
    save_file(tensors, optimizer)
    state = json.loads((checkpoint / "state.json").read_text())
    state["companion_hash"] = state.pop("auxiliary_hash")
    state["trainer_hash"] = sha256(optimizer.read_bytes()).hexdigest()
    del state["phase"]
    (checkpoint / "state.json").write_text(json.dumps(state))


def test_a_policy_learned_around_a_frozen_part_refers_to_it_too(toy_data: Path, tmp_path: Path) -> None:
    train_toy(tmp_path / "first", toy_data, "latent", size="debug", steps=2, length=8)
    part = (f"tokenizer={tmp_path / 'first'}",)
    train_toy(tmp_path / "second", toy_data, "latent", size="debug", steps=2, length=8, part=part)
    learn(settings(tmp_path / "second", tmp_path / "deep" / "policy"))
    saved = Checkpoint.read(tmp_path / "deep" / "policy")
    assert saved.step == 12
    assert [name for name in saved.model if name.startswith("tokenizer")] == []
    model, _ = load(tmp_path / "deep" / "policy")
    assert model.frozen == ("tokenizer",)


def test_a_run_that_learned_while_acting_is_dreamed_in_from_what_it_collected(tmp_path: Path) -> None:
    online = {"size": "debug", "random_steps": 20, "max_episode_steps": 20, "eval_every": 60, "eval_episodes": 1}
    learn(replace(settings("gym:Pendulum-v1", tmp_path / "online", steps=40), **online))
    learn(settings(tmp_path / "online", tmp_path / "inside"))
    assert Checkpoint.read(tmp_path / "inside").step == 12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minutes": -1.0}, "--minutes is -1.0"),
        ({"explore": "disagreement"}, "in which nothing is collected"),
        ({"batch_size": 10_000}, "--batch-size is 10000"),
        ({"policy": replace(POLICY, horizon=2), "resume": True}, "no learning to resume"),
    ],
)
def test_what_cannot_work_is_refused(rssm_run: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        learn(settings(rssm_run, tmp_path / "policy", **changes))
    assert not (tmp_path / "policy" / "learn.json").exists()


def test_minutes_are_for_learning_inside_a_model_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only learning inside a trained model heeds it"):
        learn(settings("gym:Pendulum-v1", tmp_path / "run", steps=5000, minutes=1.0))
