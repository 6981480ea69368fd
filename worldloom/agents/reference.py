"""Reference agents, which any other must beat: random actions, and no-op actions.

B environments, A action size.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worldloom.agents.agent import Agent, next_seed
from worldloom.data.spec import DataSpec
from worldloom.model import Obs, State, state
from worldloom.planners.bounds import one_hot_slices


@state
class SeedMemory(State):
    """The seed of each environment's next draw, `[B]`."""

    seed: Tensor

    @property
    def features(self) -> Tensor:
        return self.seed[:, None].float()


@dataclass(frozen=True)
class RandomAgent(Agent):
    """A new uniform action at every step. An action without declared bounds is sampled from a standard normal."""

    spec: DataSpec

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, SeedMemory]:
        rows = torch.arange(batch_size(obs))
        return self.act(SeedMemory((seed + 1) * 1_000_003 + rows * 7919), obs)

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, SeedMemory]:
        assert isinstance(memory, SeedMemory), f"this is the memory of another agent: {type(memory).__name__}"
        rows = [self._draw(torch.Generator().manual_seed(seed)) for seed in memory.seed.tolist()]
        return torch.stack(rows), SeedMemory(next_seed(memory.seed))

    def _draw(self, generator: torch.Generator) -> Tensor:
        action = self.spec.action
        if action.kind == "discrete":
            return F.one_hot(torch.randint(action.size, (), generator=generator), action.size).float()
        if action.low is None or action.high is None:
            return torch.randn(action.size, generator=generator)
        return one_hot_slices(2 * torch.rand(action.size, generator=generator) - 1, action.choices)


@dataclass(frozen=True)
class NoOpAgent(Agent):
    """Always the same action: 0 in the environment's own units, or as near as its range allows; the first choice."""

    spec: DataSpec

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, SeedMemory]:
        return self.act(SeedMemory(torch.zeros(batch_size(obs), dtype=torch.long)), obs)

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, SeedMemory]:
        assert isinstance(memory, SeedMemory), f"this is the memory of another agent: {type(memory).__name__}"
        action = self.spec.action
        zero = torch.zeros(action.size)
        if action.kind == "discrete":
            still = F.one_hot(torch.tensor(0), action.size).float()
        else:
            still = one_hot_slices(torch.from_numpy(action.scale(zero.numpy())).clamp(-1, 1), action.choices)
        return still.expand(len(memory.seed), -1), memory


def batch_size(obs: Obs) -> int:
    return next(iter(obs.values())).shape[0]
