"""Episodes of an agent in real environments as rows that can be learned from.

B environments, A action size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.agents.play import Decision, play_in
from worldloom.data.episode import Episode
from worldloom.data.spec import DataSpec
from worldloom.envs.adapt import AdaptedEnv
from worldloom.envs.rollout import Rows, to_episode
from worldloom.model import Obs, State, state


@state
class Draws(State):
    """What a random agent remembers: nothing but how many environments it plays, `[B]`."""

    rows: Tensor


@dataclass(frozen=True)
class RandomAgent(Agent):
    """A new uniform action at every step, from torch's generator: how a learner begins."""

    spec: DataSpec

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, Draws]:
        return self.act(Draws(torch.zeros(len(next(iter(obs.values()))))), obs)

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, Draws]:
        assert isinstance(memory, Draws), f"this is the memory of another agent: {type(memory).__name__}"
        count, size = len(memory.rows), self.spec.action.size
        if self.spec.action.kind == "discrete":
            return torch.eye(size)[torch.randint(size, (count,))], memory
        return torch.rand(count, size) * 2 - 1, memory


def collect(
    agent: Agent,
    envs: Sequence[AdaptedEnv],
    seeds: Sequence[int],
    max_steps: int | None = None,
    on_decision: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """Play one episode in each of `envs`, from `seeds`, to its end: all that were begun, in the order of `seeds`.

    `on_decision` is called once for every decision of every environment.
    """
    rows = {seed: Rows() for seed in seeds}

    def watch(decision: Decision) -> None:
        taken = rows[decision.seed]
        taken.obs.append(decision.obs)
        if decision.step:
            taken.rewards.append(decision.reward)
            taken.infos.append({})
        if decision.action is not None:
            taken.actions.append(decision.action)
            on_decision()

    played = play_in(agent, envs, seeds, max_steps, watch)
    return [to_episode(env, rows[p.seed], p.terminated, not p.terminated) for env, p in zip(envs, played, strict=True)]
