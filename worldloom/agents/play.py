"""Play an agent in real environments over a fixed list of seeds, every episode to its end.

Nothing is measured on "the first N episodes that finished": with several environments side by side those would be the
short ones. Environments are played in waves, all decisions of a wave in one batch; a finished one leaves the batch.

B environments still running, A action size.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.agents.environment import check_fits, to_env, to_obs
from worldloom.envs.adapt import AdaptedEnv
from worldloom.envs.describe import SIGNALS
from worldloom.errors import UserError, origin
from worldloom.model import State


@dataclass(frozen=True)
class EpisodeResult:
    """The result of one episode. `success` and `cost` (summed) are None where the environment reports none.

    `milliseconds` holds one number for each decision: the time of the batched call that made it, observation to
    action, with `batch` environments in it at the beginning.
    """

    seed: int
    episode_return: float
    length: int
    terminated: bool
    success: bool | None
    cost: float | None
    batch: int
    milliseconds: list[float]
    env_milliseconds: float


@dataclass(frozen=True)
class Decision:
    """One step of one episode, as callbacks get it: the observation, the reward before it, the memory and the action.

    `reward`, `terminated` and `signals`, such as "cost", arrived with `obs`; `task` is the episode's language task, ""
    without one. `memory` has one row. `action` is None at the end of the episode, where `memory` is that of the last
    decision.
    """

    seed: int
    step: int
    env: AdaptedEnv
    obs: dict[str, np.ndarray]
    task: str
    reward: float
    terminated: bool
    signals: dict[str, float]
    memory: State
    action: Any | None


OnDecision = Callable[[Decision], None]


def play(
    agent: Agent,
    make: Callable[[], AdaptedEnv],
    seeds: Sequence[int],
    num_envs: int = 1,
    max_steps: int | None = None,
    on_decision: OnDecision | None = None,
) -> list[EpisodeResult]:
    """One episode for each of `seeds`, in their order, `num_envs` at a time; `max_steps` truncates.

    Raises `UserError` when there is nothing to play or the environment is not the agent's.
    """
    check_seeds(seeds, num_envs, max_steps)
    envs: list[AdaptedEnv] = []
    try:
        for _ in range(min(num_envs, len(seeds))):
            envs.append(make())
        return play_in(agent, envs, seeds, max_steps, on_decision)
    finally:
        for env in envs:
            env.close()


def play_in(
    agent: Agent,
    envs: Sequence[AdaptedEnv],
    seeds: Sequence[int],
    max_steps: int | None = None,
    on_decision: OnDecision | None = None,
) -> list[EpisodeResult]:
    """As `play`, in environments that exist and stay open."""
    check_seeds(seeds, len(envs), max_steps)
    check_fits(envs[0], agent.spec)
    played: list[EpisodeResult] = []
    for first in range(0, len(seeds), len(envs)):
        played += play_wave(agent, envs, seeds[first : first + len(envs)], max_steps, on_decision)
    return played


def check_seeds(seeds: Sequence[int], num_envs: int, max_steps: int | None) -> None:
    if not len(seeds):
        raise UserError("there is no seed to play: give at least one")
    for seed in seeds:
        if not 0 <= seed < 2**31:
            raise UserError(f"the seed {seed} is not between 0 and 2147483647")
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if list(seeds).count(seed) > 1)
        raise UserError(f"the seed {twice} is given twice: its episode would count as two, so give each once")
    for name, value in (("num_envs", num_envs), ("max_steps", max_steps)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}, but it must be 1 or more")


def play_wave(
    agent: Agent,
    envs: Sequence[AdaptedEnv],
    seeds: Sequence[int],
    max_steps: int | None,
    on_decision: OnDecision | None,
) -> list[EpisodeResult]:
    """One episode in each of the first environments, in one batch."""
    episodes = [PlayedEpisode(env, seed) for env, seed in zip(envs, seeds, strict=False)]
    alive, memory = list(episodes), None
    for episode in episodes:
        episode.reset()
    while alive:
        action, memory, spent = decide(agent, alive, memory, seed=seeds[0])
        for row, (episode, chosen) in enumerate(zip(alive, to_env(action, agent.spec), strict=True)):
            chosen = episode.env.acts.taken(chosen)
            episode.report(on_decision, memory, row, chosen)
            episode.step(chosen, spent, max_steps)
            if episode.done:
                episode.report(on_decision, memory, row, None)
        kept = [row for row, episode in enumerate(alive) if not episode.done]
        if len(kept) < len(alive):
            alive, memory = [alive[row] for row in kept], memory[torch.tensor(kept, dtype=torch.long)]
    return [episode.played(len(episodes)) for episode in episodes]


def decide(agent: Agent, alive: "list[PlayedEpisode]", memory: State | None, seed: int) -> tuple[Tensor, State, float]:
    """One batched decision: actions `[B, A]` on the CPU, the memory after it, and its milliseconds."""
    began = perf_counter()
    obs = to_obs([e.obs for e in alive], agent.spec, agent.device, [e.task for e in alive])
    action, memory = agent.start(obs, seed) if memory is None else agent.act(memory, obs)
    action = action.cpu()  # copying waits for the GPU, so that its time is counted
    return action, memory, 1000 * (perf_counter() - began)


@dataclass
class PlayedEpisode:
    """An episode under way in one environment."""

    env: AdaptedEnv
    seed: int
    obs: dict[str, np.ndarray] = field(default_factory=dict)
    task: str = ""
    rewards: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    env_milliseconds: float = 0.0
    signals: dict[str, float] = field(default_factory=dict)  # of the last step
    sums: dict[str, float] = field(default_factory=dict)
    terminated: bool = False
    truncated: bool = False

    @property
    def done(self) -> bool:
        return self.terminated or self.truncated

    def reset(self) -> None:
        with crashes(self.env, f"reset with seed {self.seed}"):
            self.obs, info = self.env.reset(seed=self.seed)
        self.task = str(info.get("task", ""))

    def step(self, action: Any, milliseconds: float, max_steps: int | None) -> None:
        began = perf_counter()
        with crashes(self.env, f"step {len(self.rewards) + 1} of seed {self.seed}"):
            self.obs, reward, self.terminated, truncated, info = self.env.step(action)
        self.env_milliseconds += 1000 * (perf_counter() - began)
        if not isfinite(reward):
            raise UserError(
                f"{self.env.name}: the reward of step {len(self.rewards) + 1}, seed {self.seed}, is {reward}: "
                "it must be finite, so fix the environment"
            )
        self.rewards.append(reward)
        self.milliseconds.append(milliseconds)
        self.signals = dict(read_signals(info))
        self.sums |= {name: self.sums.get(name, 0.0) + value for name, value in self.signals.items()}
        at_limit = max_steps is not None and len(self.rewards) >= max_steps
        self.truncated = not self.terminated and (truncated or at_limit)

    def report(self, on_decision: OnDecision | None, memory: State, row: int, action: Any | None) -> None:
        if on_decision is not None:
            on_decision(
                Decision(
                    seed=self.seed,
                    step=len(self.rewards),
                    env=self.env,
                    obs=self.obs,
                    task=self.task,
                    reward=self.rewards[-1] if self.rewards else 0.0,
                    terminated=self.terminated,
                    signals=self.signals,
                    memory=memory[row : row + 1],
                    action=action,
                )
            )

    def played(self, batch: int) -> EpisodeResult:
        return EpisodeResult(
            seed=self.seed,
            episode_return=float(np.sum(self.rewards, dtype=np.float64)),
            length=len(self.rewards),
            terminated=self.terminated,
            # A success at any step counts: some environments report it once and then go on.
            success=self.sums["success"] > 0 if "success" in self.sums else None,
            cost=self.sums.get("cost"),
            batch=batch,
            milliseconds=self.milliseconds,
            env_milliseconds=self.env_milliseconds,
        )


@contextmanager
def crashes(env: AdaptedEnv, doing: str) -> Iterator[None]:
    """Turn any exception of an environment into a `UserError` that says where it was raised."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"environment {env.name!r} crashed in {doing}: {origin(error)}") from error


def read_signals(info: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The signals, such as "success" and "cost", that a step's info carries under any of their names."""
    for signal in SIGNALS:
        value = signal.read(info)
        if value is not None:
            yield signal.name, value
