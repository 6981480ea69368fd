"""What learning in dreams says to what cannot work, or to what had better be asked for differently."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests.toy import toy_episode, toy_spec, write_toy_dataset
from worldloom.agents.saved import load_agent
from worldloom.commands.learn import learn
from worldloom.data.lerobot.writer import LeRobotWriter
from worldloom.data.spec import signal_keys
from worldloom.errors import UserError
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.learning.settings import DreamerSettings
from worldloom.runs import checkpoint
from worldloom.runs.precision import slow_precision
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.session import run_training

SHORT: dict[str, Any] = {
    "size": "debug", "steps": 2, "batch_size": 4, "length": 8,
    "policy": ActorCriticConfig(units=16, layers=1, horizon=10),
}  # fmt: skip
ONLINE: dict[str, Any] = {**SHORT, "steps": 40, "random_steps": 20, "eval_episodes": 1}


def train(data: Path, out: Path) -> Path:
    run_training(TrainSettings("rssm", (data,), out, "debug", steps=2, length=8, batch_size=4, image_size=16))
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refuses")
    return train(write_toy_dataset(folder / "data"), folder / "run")


def write_card(run: Path, sha256: str, **useful: float | None) -> None:
    figures = {key: {"value": value, "low": None, "high": None} for key, value in useful.items()}
    card = {"metrics": {"useful_horizon": figures}, "provenance": {"checkpoint": {"step": 2, "sha256": sha256}}}
    (run / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("useful", "said"),
    [
        ({"image": 5.0, "state": 12.0}, "dreams last 10 steps"),
        ({"image": 10.0, "state": None}, None),
    ],
)
def test_dreams_longer_than_the_card_found_useful_are_warned_of(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], useful: dict[str, float], said: str | None
) -> None:
    sha256 = checkpoint.load(trained)[1].checkpoint_hash
    write_card(trained, sha256, **useful)
    learn(DreamerSettings(env=str(trained), out=tmp_path / "policy", **SHORT))
    printed = capsys.readouterr().out
    assert ("warning" in printed) == (said is not None)
    if said:
        assert f"{said}, but {trained / 'card.json'} found the model useful for fewer ('image' 5)" in printed
        assert "--policy.horizon" in printed


def test_the_card_of_another_checkpoint_says_nothing_and_a_damaged_one_is_an_error(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_card(trained, "0" * 64, image=1.0)
    learn(DreamerSettings(env=str(trained), out=tmp_path / "policy", **SHORT))
    assert "warning" not in capsys.readouterr().out
    (trained / "card.json").write_text("{}")
    with pytest.raises(UserError, match=r"card\.json is damaged"):
        learn(DreamerSettings(env=str(trained), out=tmp_path / "other", **SHORT))
    (trained / "card.json").unlink()


def test_a_trained_model_that_knows_no_reward_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    unrewarded = toy_spec(fitted=False).with_targets(signal_keys(terminated=True))
    with LeRobotWriter(tmp_path / "data", unrewarded) as writer:
        for seed in range(6):
            writer.add(toy_episode(seed))
    run = train(tmp_path / "data", tmp_path / "run")
    with pytest.raises(UserError, match="no reward: a policy can only learn in the dreams of a model that was trained"):
        learn(DreamerSettings(env=str(run), out=tmp_path / "policy", **SHORT))
    assert not (tmp_path / "policy").exists()


class Boundless(gymnasium.Env[Any, Any]):
    """Takes any number there is."""

    metadata: dict[str, Any] = {"render_fps": 10}  # noqa: RUF012, as gymnasium declares it

    def __init__(self, action: spaces.Space):
        self.observation_space, self.action_space = spaces.Box(-1, 1, (2,), np.float32), action


def boundless() -> gymnasium.Env:
    return Boundless(spaces.Box(-np.inf, np.inf, (2,), np.float32))


def textual() -> gymnasium.Env:
    return Boundless(spaces.Text(5))


@pytest.mark.parametrize(
    ("make", "words"),
    [(boundless, "finite low and high"), (textual, "the action is a Text space")],
)
def test_actions_that_no_policy_can_take_are_refused_before_anything_is_written(
    tmp_path: Path, make: Callable[[], gymnasium.Env], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        learn(DreamerSettings(env=f"{__name__}:{make.__name__}", out=tmp_path / "run", **ONLINE))
    assert not (tmp_path / "run").exists()


def test_episodes_shorter_than_a_window_and_fewer_rows_than_a_batch_are_padded_and_drawn_again(tmp_path: Path) -> None:
    short = {**ONLINE, "length": 32, "batch_size": 16, "random_steps": 3, "steps": 9, "max_episode_steps": 3}
    learn(DreamerSettings(env="gym:Pendulum-v1", out=tmp_path / "run", updates=1.0, **short))
    assert checkpoint.load(tmp_path / "run")[1].step == 9


def test_a_policy_beside_the_checkpoint_of_another_is_refused(trained: Path, tmp_path: Path) -> None:
    wide = {**SHORT, "policy": ActorCriticConfig(units=32, layers=1, horizon=3)}
    for name, asked in (("one", SHORT), ("wide", wide)):
        learn(DreamerSettings(env=str(trained), out=tmp_path / name, **asked))
    (tmp_path / "one" / "learn.json").write_text((tmp_path / "wide" / "learn.json").read_text())
    with pytest.raises(UserError, match="it belongs to another configuration"):
        load_agent(tmp_path / "one")


def test_bf16_is_warned_of_only_where_it_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr("worldloom.runs.precision.has_fast_bf16", lambda device: False)
    assert "slower than fp32" in slow_precision("bf16", cpu)[0]
    assert slow_precision("fp32", cpu) == []
    monkeypatch.setattr("worldloom.runs.precision.has_fast_bf16", lambda device: True)
    assert slow_precision("bf16", cpu) == []


def test_training_and_learning_say_it_before_they_begin(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = ("training.session", "learning.loop", "learning.frozen")
    for module in modules:
        monkeypatch.setattr(f"worldloom.{module}.slow_precision", lambda *_, m=module: [f"slow, says {m}"])
    train(trained.parent / "data", tmp_path / "run")
    learn(DreamerSettings(env="gym:Pendulum-v1", out=tmp_path / "online", max_episode_steps=20, **ONLINE))
    learn(DreamerSettings(env=str(trained), out=tmp_path / "frozen", **SHORT))
    printed = capsys.readouterr().out
    assert [printed.count(f"slow, says {module}") for module in modules] == [1, 1, 1]
