"""Your own controller as an agent: a function of the current observation.

B environments, A action size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.model import Obs, State, state


@state
class NoMemory(State):
    """No memory; the tensor `[B, 0]` only has the number of environments."""

    empty: Tensor

    @property
    def features(self) -> Tensor:
        return self.empty


@dataclass(frozen=True)
class Scripted(Agent):
    """Does what `function` says: `obs` `{key: [B, ...]}` to actions `[B, A]` in model units, which are clipped."""

    spec: DataSpec
    function: Callable[[Obs], Tensor]

    @torch.no_grad()
    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, NoMemory]:
        """Raises `UserError` when the function returns no action for each environment."""
        batch = len(next(iter(obs.values())))
        action = self.function(obs)
        if not isinstance(action, Tensor) or action.shape != (batch, self.spec.action.size):
            got = tuple(action.shape) if isinstance(action, Tensor) else type(action).__name__
            raise UserError(f"the scripted agent returned {got}, but it must return {(batch, self.spec.action.size)}")
        action = action.float() if self.spec.action.kind == "discrete" else action.float().clamp(-1, 1)
        return action, NoMemory(action[:, :0])

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, NoMemory]:
        return self.start(obs)
