"""Who lives on, dreamt and real, where both are known by counting."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldloom.agents.play import EpisodeResult
from worldloom.agents.policy import PolicyAgent
from worldloom.evaluation.policies.survival import SurvivalSamples, survival
from worldloom.evaluation.verdict import verdict
from worldloom.model import State, state
from worldloom.noise import NOISE, Noise
from worldloom.stats.bootstrap import Figure


@state
class Count(State):
    value: Tensor

    @property
    def features(self) -> Tensor:
        return self.value


class Hazardous(nn.Module):
    """A dream in which one step in ten is the last."""

    decodes = ("reward", "terminated")

    def predict(self, belief: Count, action: Tensor, noise: Noise = NOISE) -> Count:
        return Count(belief.value + 1)

    def decode(self, belief: Count, key: str) -> Tensor:
        return torch.full(belief.value.shape[:1], 0.1)


class Still(nn.Module):
    """Does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> "Still":
        self.mode = torch.zeros(len(features), 1)
        return self

    def carried_out(self, action: Tensor) -> Tensor:
        return action


def episode(seed: int, length: int, terminated: bool) -> EpisodeResult:
    return EpisodeResult(seed, 0.0, length, terminated, None, None, 1, [0.0] * length, 0.0)


@pytest.fixture
def agent() -> Any:
    return PolicyAgent(Hazardous(), Still())  # type: ignore[arg-type]


@pytest.fixture
def samples() -> SurvivalSamples:
    steps = [0, 5, 10, 0, 5, 10, 15]
    return SurvivalSamples([1] * 3 + [2] * 4, steps, [Count(torch.zeros(1, 1)) for _ in steps])


def test_those_live_on_whose_episode_does_and_a_cut_off_one_does_not_tell(agent: Any, samples: SurvivalSamples) -> None:
    found = survival(agent, samples, [episode(1, 12, True), episode(2, 20, False)], NOISE)
    # Ten steps on: of the first only its first moment; of the second three, and nobody knows of the last.
    assert found["reality@10"].value == pytest.approx(4 / 6)
    assert found["reality@1"].value == 1
    assert found["reality@30"].value == 0
    for step in (1, 5, 10, 15, 30):
        assert found[f"dream@{step}"].value == pytest.approx(0.9**step, abs=1e-5)
    assert found["dream minus reality@10"].value == pytest.approx(0.9**10 - 4 / 6, abs=1e-5)


def test_what_no_episode_lasted_for_is_not_measured(agent: Any, samples: SurvivalSamples) -> None:
    found = survival(agent, samples, [episode(1, 12, False), episode(2, 20, False)], NOISE)
    assert found["reality@15"].value == 1
    assert found["reality@30"].value is None
    assert "played on for so long" in str(found["reality@30"].why)


def test_a_model_that_knows_no_ends_has_no_such_figures(agent: Any, samples: SurvivalSamples) -> None:
    agent.model.decodes = ("reward",)
    assert survival(agent, samples, [episode(1, 12, True), episode(2, 20, False)], NOISE) == {}


def test_the_verdict_says_from_how_many_steps_on_deaths_are_not_foreseen() -> None:
    far = Figure(5.0, 4.0, 6.0)
    returns = {"reality": far, "dream": far, "dream minus reality": far, "random": far}
    lives = {
        "reality@5": Figure(0.99), "dream@5": Figure(0.985), "dream minus reality@5": Figure(-0.005, -0.01, 0.01),
        "reality@10": Figure(0.9), "dream@10": Figure(0.97), "dream minus reality@10": Figure(0.07, 0.05, 0.09),
    }  # fmt: skip
    words = verdict({"policy": returns, "policy_survival": lives}, [], [1], 10.0)[-1].words
    assert "in the dream 0.97 of its samples go on for 10 steps, in reality 0.9" in words
    assert "5 steps" not in words
