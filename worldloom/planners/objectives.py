"""Objectives of a plan, which can be combined; and constraints, which are costs with a limit.

N trajectories, H horizon, A action size. An objective maps imagined beliefs `[N, H]` and actions `[N, H, A]` to scores
`[N]`, bigger is better. With several beliefs B planned at once N is B times candidates, the candidates of one belief
side by side.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import torch
from torch import Tensor

from worldloom.errors import UserError
from worldloom.limits import FINITE, between, check_limits
from worldloom.model import State, WorldModel


class Objective(ABC):
    """A function to maximise. `check` is called once, before the first plan."""

    @abstractmethod
    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        """Scores `[N]` of imagined beliefs `[N, H]` after actions `[N, H, A]`."""

    def check(self, model: WorldModel) -> None:  # noqa: B027, most objectives need nothing
        """Raise `UserError` when `model` cannot decode what this objective reads."""

    @property
    def rows(self) -> frozenset[int]:
        """For how many beliefs B each part of this objective was made; nothing and 1 serve any number."""
        return frozenset()


@dataclass(frozen=True)
class Return(Objective):
    """The discounted reward over the horizon, plus the model's "value" after it, where it decodes one.

    Rewards are weighted by the probability that the episode has not terminated before.
    """

    discount: Annotated[float, between(0, 1)] = 0.99
    use_value: bool = True

    def __post_init__(self) -> None:
        check_limits(self, "the {}".format)

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        rewards = model.decode(states, "reward")
        horizon = rewards.shape[1]
        weights = powers(self.discount, horizon, rewards.device, rewards.dtype)
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
class Goal(Objective):
    """Minus the distance to a goal belief `[B]` or `[1]`: the mean square of the difference of their features.

    Of the last imagined belief alone, or (`last_only=False`) summed over the horizon, which also rewards speed.
    """

    belief: State
    last_only: bool = True

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        features = (states[:, -1:] if self.last_only else states).features
        rows, goal = features.shape[0], self.belief.features
        if features.shape[-1] != goal.shape[-1]:
            raise UserError(
                f"the goal has {goal.shape[-1]} features, but the model's beliefs {features.shape[-1]}: "
                "make it with this model"
            )
        if rows % len(goal):
            raise UserError(f"the goal has {len(goal)} rows, but {rows} trajectories are no multiple of it")
        # The candidates of one belief are side by side, so goals are broadcast without copies.
        difference = features.unflatten(0, (len(goal), -1)) - goal[:, None, None]
        return -difference.square().mean(-1).sum(-1).flatten()

    def check(self, model: WorldModel) -> None:
        if self.belief.features.dim() != 2:
            shape = tuple(self.belief.features.shape)
            raise UserError(f"the goal is a belief with features {shape}, but it must be one belief a row, (B, F)")
        if not bool(self.belief.features.isfinite().all()):
            raise UserError("the goal's belief is not finite, so nothing is near to it: check the row it was made from")

    @property
    def rows(self) -> frozenset[int]:
        return frozenset({len(self.belief.features)})


@dataclass(frozen=True)
class Decoded(Objective):
    """A Python function of decoded keys: `function({key: Tensor [N, H, ...]})` is `[N]`, or `[N, H]`, which is summed.

    Among `keys` "actions" stands for the candidates themselves, `[N, H, A]` in model units.
    """

    function: Callable[[dict[str, Tensor]], Tensor]
    keys: tuple[str, ...]

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        decoded = {key: actions if key == "actions" else model.decode(states, key) for key in self.keys}
        score, leading = self.function(decoded), tuple(actions.shape[:2])
        if not isinstance(score, Tensor) or tuple(score.shape) not in (leading, leading[:1]):
            got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise UserError(
                f"the objective's function returned {got}, but it must be a tensor {leading} or {leading[:1]}"
            )
        return score.sum(1) if score.dim() == 2 else score

    def check(self, model: WorldModel) -> None:
        if not isinstance(self.keys, tuple) or not self.keys:
            raise UserError(f"the keys of an objective are {self.keys!r}, but they must be a tuple such as ('state',)")
        for key in self.keys:
            if key != "actions":
                require_key(model, key, "an objective or a constraint reads it")


@dataclass(frozen=True)
class Weighted(Objective):
    """A weighted sum: `Weighted(((1.0, Return()), (0.1, Goal(belief))))`."""

    parts: tuple[tuple[float, Objective], ...]

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        scores = [weight * part(model, states, actions) for weight, part in self.parts]
        return torch.stack(scores).sum(0)

    def check(self, model: WorldModel) -> None:
        if not self.parts:
            raise UserError("a weighted objective has no parts: give at least one (weight, objective)")
        for weight, part in self.parts:
            if not math.isfinite(weight):
                raise UserError(f"the weight of {type(part).__name__} is {weight}, but it must be a finite number")
            part.check(model)

    @property
    def rows(self) -> frozenset[int]:
        return frozenset().union(*(part.rows for _, part in self.parts))


@dataclass(frozen=True)
class Constraint:
    """A cost that must stay at or below `limit`: `cost` is an objective of which smaller values are better."""

    cost: Objective
    limit: Annotated[float, FINITE] = 0.0

    def __post_init__(self) -> None:
        check_limits(self, "the {} of a constraint".format)

    def excess(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        """By how much each trajectory exceeds the limit, 0 within it: `[N]`."""
        return (self.cost(model, states, actions).float() - self.limit).clamp(min=0)


@lru_cache(maxsize=64)  # needed for every pool of candidates, and always the same
@torch.inference_mode(False)  # a tensor made in inference mode could not be differentiated with later
def powers(of: float, most: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """1, of, of squared, ... up to the power `most`: `[most + 1]`."""
    return of ** torch.arange(most + 1, device=device, dtype=dtype)


def require_key(model: WorldModel, key: str, why: str) -> None:
    """Raise `UserError` unless the model decodes `key`."""
    if key not in model.decodes:
        raise UserError(f"the model can't decode {key!r}, it decodes {', '.join(model.decodes) or 'nothing'}: {why}")
