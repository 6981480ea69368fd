"""A controller evolved inside a trained model: it gets better, the model stays, a killed run goes on bit for bit."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("cma", reason="the extra 'cma' is not installed")

from tests.toy import write_toy_dataset
from worldloom.agents.actor import LinearController
from worldloom.agents.policy import PolicyAgent
from worldloom.agents.saved import load_agent
from worldloom.commands.learn import learn
from worldloom.commands.record import RecordSettings, record
from worldloom.errors import UserError
from worldloom.learning.cma import dreamt_returns, make_strategy
from worldloom.learning.settings import CMASettings
from worldloom.model import State
from worldloom.noise import NOISE, Noise
from worldloom.planners.check import Plane, Position
from worldloom.runs.checkpoint import Checkpoint
from worldloom.runs.run import RunRecord
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.session import run_training

SHORT: dict[str, Any] = {"steps": 6, "population": 6, "dreams": 3, "horizon": 5, "length": 8}


@pytest.fixture(scope="module", params=["vae_rnn", "rssm"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evolving")
    data = write_toy_dataset(folder / "data")
    run_training(
        TrainSettings(request.param, (data,), folder / "run", "debug", steps=4, length=8, batch_size=4, image_size=16)
    )
    return folder / "run"


def settings(env: Path, out: Path, **changes: Any) -> CMASettings:
    return CMASettings(env=str(env), out=out, **{**SHORT, **changes})


class Ending(Plane):
    """The plane, paying 1 a step, where a dream ends with the probability that is its first coordinate."""

    @property
    def decodes(self) -> tuple[str, ...]:
        return ("reward", "terminated")

    def decode(self, state: State, key: str) -> torch.Tensor:
        place = state.features[..., 0]
        return place.clamp(0, 1) if key == "terminated" else torch.ones_like(place)

    def predict(self, state: State, action: torch.Tensor, noise: Noise = NOISE) -> State:
        return state


def test_what_follows_an_end_counts_by_the_probability_that_there_was_none() -> None:
    world = Ending()
    weights = torch.zeros(2, 2 * world.spec.action.size + world.spec.action.size)
    controller = LinearController(2, world.spec.action)
    starts = Position(torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]]))
    returns = dreamt_returns(world, controller, weights, starts, 20)
    np.testing.assert_allclose(returns, (20 + 2 + 1) / 3, rtol=1e-3)


@pytest.mark.parametrize("discrete", [False, True])
def test_evolution_finds_a_controller_that_does_what_is_rewarded(discrete: bool) -> None:
    torch.manual_seed(0)
    world = Plane(discrete)
    controller = LinearController(2, world.spec.action)
    size = sum(p.numel() for p in controller.parameters())
    strategy = make_strategy(size, 16, 0.5, seed=0)
    starts = Position(torch.rand(16, 2) * 2 - 1)

    def returns(candidates: np.ndarray) -> np.ndarray:
        return dreamt_returns(world, controller, torch.as_tensor(candidates, dtype=torch.float32), starts, 8)

    before = returns(np.zeros((1, size)))[0]
    for _ in range(30):
        candidates = strategy.ask()
        strategy.tell(candidates, -returns(np.stack(candidates)))
    assert returns(strategy.mean[None])[0] > 0.5 * before  # rewards are negative


def test_every_candidate_acts_with_its_own_weights() -> None:
    torch.manual_seed(0)
    world = Plane()
    controller = LinearController(2, world.spec.action)
    candidates = torch.randn(5, sum(p.numel() for p in controller.parameters()))
    starts = Position(torch.rand(4, 2))
    together = dreamt_returns(world, controller, candidates, starts, 6)
    alone = [dreamt_returns(world, controller, each[None], starts, 6)[0] for each in candidates]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_the_model_stays_as_it_is_and_what_comes_of_it_is_an_agent(trained: Path, tmp_path: Path) -> None:
    learn(settings(trained, tmp_path / "cma"))
    before, after = Checkpoint.read(trained), Checkpoint.read(tmp_path / "cma")
    assert after.hash == before.hash
    assert after.step == 6
    agent = load_agent(tmp_path / "cma")
    assert isinstance(agent, PolicyAgent)
    assert torch.equal(agent.actor.output.weight, after.auxiliary["output.weight"])
    assert agent.actor.output.weight.abs().sum() > 0
    record(
        RecordSettings(
            env="tests.agents.fakes:make_toy",
            out=tmp_path / "data",
            episodes=1,
            policy=str(tmp_path / "cma"),
            image_size=16,
        )
    )


def test_one_that_was_killed_ends_where_an_uninterrupted_one_does(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldloom.learning.evolving.CHECKPOINT_EVERY", 4)
    learn(settings(trained, tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "step-00000006")
    learn(settings(trained, tmp_path / "killed", resume=True))
    whole, again = (Checkpoint.read(tmp_path / name) for name in ("whole", "killed"))
    assert torch.equal(whole.trainer["fitness"], again.trainer["fitness"])
    assert all(torch.equal(whole.auxiliary[name], again.auxiliary[name]) for name in whole.auxiliary)
    lines = (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    assert len(lines) == 6


def test_a_resumed_one_keeps_the_model_it_began_in_when_that_was_trained_further(trained: Path, tmp_path: Path) -> None:
    source = tmp_path / "run"
    shutil.copytree(trained, source)
    learn(settings(source, tmp_path / "cma", steps=2))
    began = Checkpoint.read(source).hash
    run_training(replace(TrainSettings.from_json(RunRecord.load(source).settings), out=source, steps=6, resume=True))
    assert Checkpoint.read(source).hash != began
    learn(settings(source, tmp_path / "cma", steps=3, resume=True))
    assert Checkpoint.read(tmp_path / "cma").step == 3
    assert Checkpoint.read(tmp_path / "cma").hash == began


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env": "gym:CartPole-v1"}, "is no trained model"),
        ({"population": 2}, "--population is 2"),
        ({"sigma": 0.0}, "--sigma is 0.0"),
        ({"temperature": -1.0}, "--temperature is -1.0"),
        ({"horizon": 0}, "--horizon is 0"),
    ],
)
def test_what_cannot_be_evolved_is_refused(trained: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        learn(CMASettings(out=tmp_path / "cma", **{"env": str(trained), **SHORT, **changes}))
    assert not (tmp_path / "cma").exists()
