"""Whole episodes of an agent in real environments, side by side, as rows that can be learned from.

B environments, A action size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.agents.environment import to_env, to_obs
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
    """A new uniform action at every step, from torch's generator: the floor, and how a learner begins."""

    spec: DataSpec

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, Draws]:
        rows = torch.zeros(len(next(iter(obs.values()))))
        return self.act(Draws(rows), obs)

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, Draws]:
        assert isinstance(memory, Draws)
        count, size = len(memory.rows), self.spec.action.size
        if self.spec.action.kind == "discrete":
            return torch.eye(size)[torch.randint(size, (count,))], memory
        return torch.rand(count, size) * 2 - 1, memory


def collect(
    agent: Agent,
    envs: Sequence[AdaptedEnv],
    seeds: Sequence[int],
    *,
    max_steps: int | None = None,
    on_step: Callable[[int], None] = lambda count: None,
) -> list[Episode]:
    """Play one episode in each of `envs`, from `seeds`, to its end: one batched decision per step for all still going.

    `on_step` hears how many environments moved. Every episode that was begun is returned, in the order of `seeds`, so
    that long and short ones count alike.
    """
    rows = [Rows() for _ in seeds]
    ended: list[tuple[bool, bool]] = [(False, False)] * len(rows)
    for env, row, seed in zip(envs, rows, seeds, strict=True):
        row.obs.append(env.reset(seed=seed)[0])
    going = list(range(len(rows)))
    action, memory = agent.start(to_obs([rows[i].obs[-1] for i in going], agent.spec), seed=int(seeds[0]))
    while True:
        for i, chosen in zip(going, to_env(action, agent.spec), strict=True):
            ended[i] = step(envs[i], rows[i], chosen, max_steps)
        on_step(len(going))
        kept = [n for n, i in enumerate(going) if not any(ended[i])]
        if not kept:
            break
        if len(kept) < len(going):
            going, memory = [going[n] for n in kept], memory[torch.tensor(kept)]
        action, memory = agent.act(memory, to_obs([rows[i].obs[-1] for i in going], agent.spec))
    return [to_episode(env, row, *end) for env, row, end in zip(envs, rows, ended, strict=True)]


def step(env: AdaptedEnv, rows: Rows, action: object, max_steps: int | None) -> tuple[bool, bool]:
    """One step of one environment, written down: whether it terminated, whether it was truncated."""
    obs, reward, terminated, truncated, info = env.step(action)
    rows.obs.append(obs)
    rows.actions.append(action)
    rows.rewards.append(reward)
    rows.infos.append(info)
    at_limit = max_steps is not None and len(rows.actions) >= max_steps
    return terminated, not terminated and (truncated or at_limit)


def episode_return(episode: Episode) -> float:
    """The undiscounted sum of an episode's rewards."""
    return float(np.sum(episode.reward, dtype=np.float64))
