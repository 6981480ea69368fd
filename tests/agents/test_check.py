"""The conformance suite of agents passes ours, and finds what is wrong with others."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.toy import ToyConfig, ToyModel, toy_spec
from worldloom import check_agent
from worldloom.agents.actor import LinearController
from worldloom.agents.agent import Agent
from worldloom.agents.planning import PlanningAgent
from worldloom.agents.policy import PolicyAgent
from worldloom.agents.reference import NoOpAgent, RandomAgent
from worldloom.agents.repeat import Repeat
from worldloom.agents.scripted import NoMemory, Scripted
from worldloom.data.spec import DataSpec
from worldloom.model import Obs, State
from worldloom.planners.categorical import CategoricalCEM
from worldloom.planners.cem import CEM


def toy_model(discrete: bool, noise: float = 0.0) -> ToyModel:
    torch.manual_seed(0)
    return ToyModel(toy_spec(discrete=discrete), ToyConfig(hidden=8, noise=noise)).eval()


def planning(discrete: bool) -> Agent:
    made = CategoricalCEM if discrete else CEM
    return PlanningAgent(toy_model(discrete, noise=0.1), made(horizon=3, samples=8, elites=3, iterations=2))


def learned(discrete: bool, explore: bool = False) -> Agent:
    model = toy_model(discrete, noise=0.1)
    return PolicyAgent(model, LinearController(8, model.spec.action), explore)


AGENTS: dict[str, Callable[[bool], Agent]] = {
    "planning": planning,
    "repeated planning": lambda discrete: Repeat(planning(discrete), 2),
    "exploring plan": lambda discrete: replace(planning(discrete), explore=True, replan_every=2),  # type: ignore[type-var]
    "policy": learned,
    "exploring policy": lambda discrete: learned(discrete, explore=True),
    "random": lambda discrete: RandomAgent(toy_spec(discrete=discrete)),
    "nothing": lambda discrete: NoOpAgent(toy_spec(discrete=discrete)),
}


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("name", AGENTS)
def test_our_agents_keep_every_promise(name: str, discrete: bool) -> None:
    check_agent(AGENTS[name](discrete))


def test_the_worlds_own_observations_can_be_given() -> None:
    seen = []

    def look(t: int) -> Obs:
        seen.append(t)
        return {"image": torch.zeros(3, 3, 16, 16, dtype=torch.uint8), "state": torch.full((3, 2), float(t))}

    check_agent(Scripted(toy_spec(), lambda obs: obs["state"].tanh()), look)
    assert set(seen) == {0, 1, 2, 3}


@dataclass(frozen=True)
class Wrong(Agent):
    """Acts as `function` says, of what is observed and of a list that lives as long as the agent."""

    spec: DataSpec
    function: Callable[[Obs, list[Any]], Tensor]
    kept: list[Any]

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, State]:
        return self.function(obs, self.kept), NoMemory(torch.zeros(3, 0))

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, State]:
        return self.start(obs)


def counting(obs: Obs, kept: list[Any]) -> Tensor:
    kept.append(1)
    return torch.full((3, 2), 0.01 * len(kept))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda obs, kept: torch.zeros(3, 3), r"actions are \(3, 3\)"),
        (lambda obs, kept: torch.zeros(3, 2, dtype=torch.long), "not float"),
        (lambda obs, kept: torch.full((3, 2), torch.nan), "the actions are .*nan"),
        (lambda obs, kept: torch.full((3, 2), 1.5), "reaches 1.5"),
        (lambda obs, kept: torch.rand(3, 2), "acting moved torch's random generator"),
        (counting, "two episodes of one seed act differently"),
        (lambda obs, kept: (obs["state"] - obs["state"].mean(0)).tanh(), "changes what is done in another"),
    ],
)
def test_a_broken_promise_is_found(function: Callable[[Obs, list[Any]], Tensor], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_agent(Wrong(toy_spec(), function, []))


def test_a_choice_that_is_not_one_hot_is_found() -> None:
    with pytest.raises(AssertionError, match="not one-hot"):
        check_agent(Wrong(toy_spec(discrete=True), lambda obs, kept: torch.full((3, 4), 0.25), []))


@dataclass(frozen=True)
class Overwriting(Wrong):
    """Counts steps in its memory's own tensor."""

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, State]:
        return torch.zeros(3, 2), NoMemory(torch.zeros(3, 1))

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, State]:
        assert isinstance(memory, NoMemory)
        return 0.01 * memory.empty.add_(1).expand(3, 2), memory


def test_a_memory_that_is_overwritten_is_found() -> None:
    with pytest.raises(AssertionError, match="acting changed the memory it was given"):
        check_agent(Overwriting(toy_spec(), counting, []))
