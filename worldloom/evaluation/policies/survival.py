"""Does the dream foresee how a policy's episodes end? From where it really went: who lives on, in the dream and really.

That a dream pays too much says that a policy is flattered; this says how far ahead the dream begins to flatter.
M moments of real play.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from worldloom.agents.play import Decision, EpisodeResult
from worldloom.agents.policy import PolicyAgent, PolicyMemory
from worldloom.model import State
from worldloom.noise import Noise
from worldloom.stats.bootstrap import Figure, figure

STEPS = (1, 5, 10, 15, 30)
EVERY = 5  # neighbouring moments have nearly the same future
UNKNOWN = "no episode was played on for so long"


@dataclass
class SurvivalSamples:
    """Every fifth moment of real episodes: whose it was, at which step, and what was believed `[1]`."""

    seeds: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    beliefs: list[State] = field(default_factory=list)

    def watch(self, decision: Decision) -> None:
        """Keep the moment if it is one of them and something is decided in it."""
        if decision.action is not None and decision.step % EVERY == 0:
            assert isinstance(decision.memory, PolicyMemory)
            self.seeds.append(decision.seed)
            self.steps.append(decision.step)
            self.beliefs.append(decision.memory.belief)


@torch.no_grad()
def survival(
    agent: PolicyAgent, moments: SurvivalSamples, played: Sequence[EpisodeResult], noise: Noise
) -> dict[str, Figure]:
    """The share of moments after which an episode goes on for k steps: "reality@k", "dream@k" and their difference.

    Nothing for a model that knows no ends. An episode that was cut off does not say what would have come.
    """
    if "terminated" not in agent.model.decodes:
        return {}
    ends = {each.seed: each for each in played}
    left = np.array([ends[seed].length - step for seed, step in zip(moments.seeds, moments.steps, strict=True)])
    died = np.array([ends[seed].terminated for seed in moments.seeds])
    found: dict[str, Figure] = {}
    for step, dreamt in foretold(agent, State.cat(moments.beliefs), noise).items():
        known, lived = died | (left >= step), (~died | (left > step)).astype(float)
        episodes = np.array(moments.seeds)[known]
        for name, shares in (("reality", lived), ("dream", dreamt), ("dream minus reality", dreamt - lived)):
            found[f"{name}@{step}"] = share(shares[known], episodes)
    return found


def foretold(agent: PolicyAgent, belief: State, noise: Noise) -> dict[int, np.ndarray]:
    """The probability `[M]` of living on from each belief, by steps, when the policy goes on in the dream."""
    found: dict[int, np.ndarray] = {}
    alive = torch.ones(len(belief.features), device=agent.device)
    for step in range(1, max(STEPS) + 1):
        chosen = agent.actor(belief.features)
        belief = agent.model.predict(belief, chosen.carried_out(chosen.mode), noise)
        alive = alive * (1 - agent.model.decode(belief, "terminated"))
        if step in STEPS:
            found[step] = alive.cpu().numpy().astype(float)
    return found


def share(values: np.ndarray, episodes: np.ndarray) -> Figure:
    return figure(lambda weights: weights @ values / weights.sum(1), episodes, why=UNKNOWN)
