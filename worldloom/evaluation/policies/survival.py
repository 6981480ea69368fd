"""Does the model predict when the episodes of a policy terminate? Survival from real rows, predicted and recorded.

The dream-to-real gap says that the return is overestimated; this says from how many steps ahead on.
M rows of real play.
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
EVERY = 5  # neighbouring rows have nearly the same future
UNKNOWN = "no episode was played on for so long"


@dataclass
class SurvivalSamples:
    """Every fifth row of real episodes: its seed, its step and the belief `[1]`."""

    seeds: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    beliefs: list[State] = field(default_factory=list)

    def watch(self, decision: Decision) -> None:
        """Keep every fifth row in which an action is chosen."""
        if decision.action is not None and decision.step % EVERY == 0:
            assert isinstance(decision.memory, PolicyMemory)
            self.seeds.append(decision.seed)
            self.steps.append(decision.step)
            self.beliefs.append(decision.memory.belief)


@torch.no_grad()
def survival(
    agent: PolicyAgent, samples: SurvivalSamples, played: Sequence[EpisodeResult], noise: Noise
) -> dict[str, Figure]:
    """The share of rows after which an episode goes on for k steps: "reality@k", "dream@k" and their difference.

    Empty for a model without a terminated head. A truncated episode counts only up to its last row.
    """
    if "terminated" not in agent.model.decodes:
        return {}
    ends = {each.seed: each for each in played}
    left = np.array([ends[seed].length - step for seed, step in zip(samples.seeds, samples.steps, strict=True)])
    terminated = np.array([ends[seed].terminated for seed in samples.seeds])
    found: dict[str, Figure] = {}
    for step, predicted in predicted_survival(agent, State.cat(samples.beliefs), noise).items():
        known, survived = terminated | (left >= step), (~terminated | (left > step)).astype(float)
        episodes = np.array(samples.seeds)[known]
        difference = predicted - survived
        for name, shares in (("reality", survived), ("dream", predicted), ("dream minus reality", difference)):
            found[f"{name}@{step}"] = share(shares[known], episodes)
    return found


def predicted_survival(agent: PolicyAgent, belief: State, noise: Noise) -> dict[int, np.ndarray]:
    """The probability `[M]` that the episode still runs, by steps, when the policy acts in the model."""
    found: dict[int, np.ndarray] = {}
    survives = torch.ones(len(belief.features), device=agent.device)
    for step in range(1, max(STEPS) + 1):
        chosen = agent.actor(belief.features)
        belief = agent.model.predict(belief, chosen.carried_out(chosen.mode), noise)
        survives = survives * (1 - agent.model.decode(belief, "terminated"))
        if step in STEPS:
            found[step] = survives.cpu().numpy().astype(float)
    return found


def share(values: np.ndarray, episodes: np.ndarray) -> Figure:
    return figure(lambda weights: weights @ values / weights.sum(1), episodes, why=UNKNOWN)
