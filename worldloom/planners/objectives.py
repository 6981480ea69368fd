"""What a plan is for, as small values that compose; and what it must not do, as costs with a limit.

N trajectories, H horizon, A action size. An objective maps imagined beliefs `[N, H]` and actions `[N, H, A]` to scores
`[N]`, bigger is better. With several beliefs B planned at once N is B times candidates, the candidates of one belief
side by side.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.errors import UserError
from worldloom.model import State, WorldModel


class Objective(ABC):
    """Something to be maximised. `check` is called once, before the first plan."""

    @abstractmethod
    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        """Scores `[N]` of imagined beliefs `[N, H]` after actions `[N, H, A]`."""

    def check(self, model: WorldModel) -> None:  # noqa: B027, most objectives need nothing
        """Raise `UserError` when `model` cannot decode what this objective reads."""


@dataclass(frozen=True)
class Return(Objective):
    """The discounted reward over the horizon, and what the model's "value" expects after it, where it decodes one.

    Rewards after a probable end count by the probability of having come so far.
    """

    discount: float = 0.99
    use_value: bool = True

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        rewards = model.decode(states, "reward")
        horizon = rewards.shape[1]
        weights = self.discount ** torch.arange(horizon + 1, device=rewards.device, dtype=rewards.dtype)
        alive = torch.ones_like(rewards[:, :1])
        if "terminated" in model.decodes:
            lives = (1 - model.decode(states, "terminated")).cumprod(1)
            alive = torch.cat([alive, lives], 1)
        total = (weights[:horizon] * alive[:, : horizon if alive.shape[1] > 1 else 1] * rewards).sum(1)
        if self.use_value and "value" in model.decodes:
            total = total + weights[-1] * alive[:, -1] * model.decode(states[:, -1], "value")
        return total

    def check(self, model: WorldModel) -> None:
        require_key(model, "reward", "its data had no reward, so plan for a goal or a function of what it decodes")


@dataclass(frozen=True)
class Constraint:
    """A cost that must stay at or below `limit`: `cost` is an objective read the other way round, smaller is better."""

    cost: Objective
    limit: float = 0.0

    def excess(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        """By how much each trajectory exceeds the limit, 0 where it keeps it: `[N]`."""
        return (self.cost(model, states, actions).float() - self.limit).clamp(min=0)


def require_key(model: WorldModel, key: str, why: str) -> None:
    """Raise `UserError` unless the model decodes `key`."""
    if key not in model.decodes:
        raise UserError(f"the model can't decode {key!r}, it decodes {', '.join(model.decodes) or 'nothing'}: {why}")
