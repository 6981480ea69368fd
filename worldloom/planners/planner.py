"""What every planner shares: the problem it is given, how candidates are scored, the clock, and the plan it returns.

B beliefs, N candidates per belief, H horizon, A action size. Actions are in model units: continuous ones within bounds
inside [-1, 1], discrete ones one-hot. Bigger scores are better.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from worldloom.data.spec import ActionSpec
from worldloom.errors import UserError
from worldloom.model import Policy, State, WorldModel, state
from worldloom.planners.objectives import Constraint, Objective


@state
class Plan(State):
    """A decision for B beliefs, one row each.

    actions `[B, H, A]`, and states `[B, H]`, the trajectory imagined for them (None where the planner was told not to
    keep it). score `[B]` is what the objective makes of it. spread `[B]`: the standard deviation of the elites' scores,
    how undecided the search still is. std `[B, H, A]`: the width of the last search distribution, for exploration.
    found bool `[B]`: False where no candidate had a finite score; the actions are then the fallback, zeros.
    iterations and milliseconds `[B]`: what the search took, the same number for the whole batch.
    """

    actions: Tensor
    states: State
    score: Tensor
    spread: Tensor
    std: Tensor
    found: Tensor
    iterations: Tensor
    milliseconds: Tensor


class Clock:
    """The deadline of one decision, and where its milliseconds go. `deadline` in milliseconds; None is no deadline."""

    def __init__(self, deadline: float | None = None):
        if deadline is not None and not deadline > 0:
            raise UserError(f"the deadline is {deadline} ms, but it must be more than 0")
        self.deadline, self.began = deadline, time.perf_counter()
        self.sections: dict[str, float] = {}

    @property
    def elapsed(self) -> float:
        """Milliseconds since the decision began."""
        return 1000 * (time.perf_counter() - self.began)

    def allows(self, milliseconds: float) -> bool:
        """Whether that much more work would still end before the deadline."""
        return self.deadline is None or self.elapsed + milliseconds <= self.deadline

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Count the time of a block under `name`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.sections[name] = self.sections.get(name, 0.0) + 1000 * (time.perf_counter() - began)


@dataclass(frozen=True)
class Bounds:
    """The range of a continuous action in model units, `[A]` each."""

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, action: ActionSpec, low: Any = None, high: Any = None) -> "Bounds":
        """The declared range, or a narrower one. Raises `UserError` when the range is missing, inverted or too wide."""
        if action.kind == "discrete":
            raise UserError("the action is discrete, and this planner searches continuous ones: use 'categorical'")
        if (action.low is None or action.high is None) and (low is None or high is None):
            raise UserError("the data declare no action range: give the planner low and high, in model units")
        ends = [torch.as_tensor(default if end is None else end, dtype=torch.float32).expand(action.size)
                for end, default in ((low, -1.0), (high, 1.0))]  # fmt: skip
        for index, (least, most) in enumerate(zip(*(end.tolist() for end in ends), strict=True)):
            if not (math.isfinite(least) and math.isfinite(most) and least < most):
                raise UserError(f"action {index} is bounded by [{least}, {most}]: low must lie below high, both finite")
        return cls(*ends)

    def clip(self, actions: Tensor) -> Tensor:
        """`[..., A]` into the range."""
        return torch.maximum(torch.minimum(actions, self.high.to(actions)), self.low.to(actions))


@dataclass(frozen=True)
class Problem:
    """What is to be decided: from beliefs `[B]`, which actions make the most of the objective?

    warm `[B, H, A]` is the last plan, already shifted to now. policy is a prior to start from. seed makes the search
    repeatable. keep_states=False leaves `Plan.states` at the start belief, for training loops that do not look at it.
    """

    model: WorldModel
    state: State
    objective: Objective
    constraints: tuple[Constraint, ...] = ()
    warm: Tensor | None = None
    policy: Policy | None = None
    seed: int = 0
    clock: Clock = field(default_factory=Clock)

    @property
    def batch(self) -> int:
        return self.state.features.shape[0]

    @property
    def device(self) -> torch.device:
        return self.state.features.device

    def generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(self.seed)

    def score(self, actions: Tensor) -> tuple[Tensor, State]:
        """Imagine candidates `[B, N, H, A]`: their scores `[B, N]` and trajectories `[B * N, H]`.

        A candidate whose score or cost is not finite gets -inf. One that breaks a constraint ranks below all that
        keep them, and the less it exceeds the limits the higher.
        """
        batch, count = actions.shape[:2]
        flat = actions.flatten(0, 1)
        with self.clock.section("imagine"):
            states = self.model.imagine(self.state.repeat(count), flat)
        with self.clock.section("objective"):
            scores = self.objective(self.model, states, flat).float().view(batch, count)
        with self.clock.section("constraints"):
            scores = self._constrained(scores, states, flat)
        return scores, states

    def _constrained(self, scores: Tensor, states: State, flat: Tensor) -> Tensor:
        scores = scores.nan_to_num(-math.inf, -math.inf, -math.inf)
        if not self.constraints:
            return scores
        excess = sum((c.excess(self.model, states, flat) for c in self.constraints), torch.zeros(()).to(scores))
        excess = excess.view_as(scores)
        worst = scores.masked_fill(scores.isinf(), math.inf).amin(1, keepdim=True).clamp(max=1e30)
        ranked = torch.where(excess > 0, worst - 1 - excess, scores)
        return torch.where(scores.isinf() | ~excess.isfinite(), -math.inf, ranked)


class Planner(ABC):
    """A search. Final classes are frozen dataclasses of their hyperparameters with `horizon` among them."""

    horizon: int

    @abstractmethod
    def plan(self, problem: Problem) -> Plan:
        """The best actions found before the problem's deadline. Never raises because of what the model predicts."""


def check_horizon(horizon: int) -> None:
    if horizon < 1:
        raise UserError(f"the planning horizon is {horizon}, but it must be 1 or more")
