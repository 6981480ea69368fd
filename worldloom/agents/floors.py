"""What any agent must beat: acting at random, and doing nothing.

B environments, A action size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.agents.agent import Agent, following
from worldloom.data.spec import DataSpec
from worldloom.model import Obs, State, state


@state
class Draws(State):
    """The seed of each environment's next draw, `[B]`."""

    seed: Tensor

    @property
    def features(self) -> Tensor:
        return self.seed[:, None].float()


@dataclass(frozen=True)
class RandomChoice(Agent):
    """A new uniform action at every step. An action without declared bounds is drawn from a standard normal."""

    spec: DataSpec

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, Draws]:
        rows = torch.arange(rows_of(obs))
        return self.act(Draws((seed + 1) * 1_000_003 + rows * 7919), obs)

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, Draws]:
        assert isinstance(memory, Draws), f"this is the memory of another agent: {type(memory).__name__}"
        rows = [self._draw(torch.Generator().manual_seed(seed)) for seed in memory.seed.tolist()]
        return torch.stack(rows), Draws(following(memory.seed))

    def _draw(self, generator: torch.Generator) -> Tensor:
        action = self.spec.action
        if action.kind == "discrete":
            return torch.eye(action.size)[int(torch.randint(action.size, (), generator=generator))]
        if action.low is None or action.high is None:
            return torch.randn(action.size, generator=generator)
        return 2 * torch.rand(action.size, generator=generator) - 1


@dataclass(frozen=True)
class DoNothing(Agent):
    """The same action always: 0 in the environment's own units, or as near as its range allows; the first choice."""

    spec: DataSpec

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, Draws]:
        return self.act(Draws(torch.zeros(rows_of(obs), dtype=torch.long)), obs)

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, Draws]:
        assert isinstance(memory, Draws), f"this is the memory of another agent: {type(memory).__name__}"
        action = self.spec.action
        zero = torch.zeros(action.size)
        if action.kind == "discrete":
            still = torch.eye(action.size)[0]
        else:
            still = torch.from_numpy(action.scale(zero.numpy())).clamp(-1, 1)
        return still.expand(len(memory.seed), -1), memory


def rows_of(obs: Obs) -> int:
    return next(iter(obs.values())).shape[0]
