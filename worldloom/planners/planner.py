"""Shared by all planners: the problem, the evaluation of candidates, and the plan.

B beliefs, N candidates per belief, H horizon, A action size. Actions are in model units: continuous ones within bounds
inside [-1, 1], discrete ones one-hot. Bigger scores are better.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from worldloom.data.spec import ActionSpec
from worldloom.errors import UserError
from worldloom.limits import check_limits
from worldloom.model import Policy, State, WorldModel, state
from worldloom.noise import NOISE, Noise, TorchNoise
from worldloom.planners.bounds import Bounds
from worldloom.planners.clock import Clock
from worldloom.planners.objectives import Constraint, Objective

MARGIN = 0.9  # the share of the remaining time that is used, as the clock is not exact
TAIL = 1.5  # milliseconds reserved for choosing among scored candidates, and for returning the plan
PILOT = 8  # under a deadline one candidate in so many is scored first, to measure the model's speed
# Milliseconds that each model last took for a candidate of each shape. Kept between decisions, so that only the first
# decision has to measure.
PACES: WeakKeyDictionary[WorldModel, dict[torch.Size, float]] = WeakKeyDictionary()

Scored = tuple[Tensor, Tensor | None, State]  # values, excess over the limits, trajectories


@state
class Plan(State):
    """A decision for B beliefs, one row each.

    actions `[B, H, A]`, and states `[B, H]`, the trajectory imagined for them. score `[B]` is its objective value.
    spread `[B]`: the standard deviation of the elites' scores, near 0 for a converged search. std
    `[B, H, A]`: the width of the last search distribution, for exploration. found bool `[B]`: False where no candidate
    had a finite score; the actions are then the fallback, zeros (the first choice of a discrete action).
    iterations and milliseconds `[B]` of the search, the same number for the whole batch.
    """

    actions: Tensor
    states: State
    score: Tensor
    spread: Tensor
    std: Tensor
    found: Tensor
    iterations: Tensor
    milliseconds: Tensor


@dataclass(frozen=True)
class Others:
    """Sequences of others for some numbers of the action while a planner searches the rest.

    `searched` are the indices the planner searches. `possible` are whole action sequences `[B, H, A]`, one for each
    possibility; a candidate's score is the worst over them. The searched numbers in them are not read.
    """

    searched: tuple[int, ...]
    possible: tuple[Tensor, ...]

    def complete(self, actions: Tensor) -> Iterator[Tensor]:
        """Candidates `[B, N, H, D]` of the searched numbers as whole actions `[B, N, H, A]`, once per possibility."""
        for given in self.possible:
            whole = given[:, None].repeat(1, actions.shape[1], 1, 1)
            yield whole.index_copy(-1, torch.tensor(self.searched, device=actions.device), actions)

    def part(self, action: ActionSpec) -> ActionSpec:
        names, low, high = (
            None if of is None else tuple(of[i] for i in self.searched)
            for of in (action.names, action.low, action.high)
        )
        return ActionSpec(action.kind, len(self.searched), names, low, high)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Problem:
    """A planning problem: from beliefs `[B]`, find the actions that maximise the objective.

    warm `[B, H, A]` is the last plan, already shifted to now. policy is a prior to start from. seed makes the search
    repeatable: within `search` all samples of planner, model and policy come from `noise`, which is seeded there.
    others, where given, control a part of the action: planners then search the rest, and `A` is its size. Raises
    `UserError` when the model cannot decode what the objective or a constraint reads.
    """

    model: WorldModel
    state: State
    objective: Objective
    constraints: tuple[Constraint, ...] = ()
    warm: Tensor | None = None
    policy: Policy | None = None
    seed: int = 0
    clock: Clock = field(default_factory=Clock)
    others: Others | None = None
    noise: Noise = NOISE

    def __post_init__(self) -> None:
        for part in (self.objective, *(constraint.cost for constraint in self.constraints)):
            part.check(self.model)
            for rows in part.rows - {1, self.batch}:
                raise UserError(f"the goal has {rows} rows, but {self.batch} beliefs are planned: give one for each")

    @property
    def batch(self) -> int:
        return self.state.features.shape[0]

    @property
    def device(self) -> torch.device:
        return self.state.features.device

    @property
    def action(self) -> ActionSpec:
        """The searched action: the model's, or without the part that others control."""
        action = self.model.spec.action
        return action if self.others is None else self.others.part(action)

    def bounds(self, low: tuple[float, ...] | float | None, high: tuple[float, ...] | float | None) -> Bounds:
        """The range of the searched action; `low` and `high` are those of the model's whole action."""
        whole = Bounds.of(self.model.spec.action, low, high, self.device)
        return whole if self.others is None else whole.part(self.others.searched)

    @contextmanager
    def search(self, horizon: int) -> "Iterator[Problem]":
        """`with problem.search(horizon) as problem:` around a whole search: inputs checked, gradients off, new noise.

        Raises `UserError` when `warm` has another shape than the plan will have.
        """
        expected = (self.batch, horizon, self.action.size)
        if self.warm is not None and tuple(self.warm.shape) != expected:
            raise UserError(
                f"warm is {tuple(self.warm.shape)}, but this plan is (beliefs, horizon, action size) = {expected}: "
                "start from the last plan of the same planner, or from None"
            )
        with torch.no_grad():
            yield replace(self, noise=TorchNoise.seeded(self.seed, self.device))

    def warm_start(self, horizon: int) -> Tensor:
        """The actions to start from `[B, H, A]`: the last plan, or zeros."""
        if self.warm is None:
            return torch.zeros(self.batch, horizon, self.action.size, device=self.device)
        return self.warm.detach().to(self.device, torch.float32).nan_to_num()

    def rounds(self, most: int, growth: float = 1.0) -> Iterator[int]:
        """0, 1, ... for each iteration that fits: the first always, later ones by the time of the last.

        `growth` is how many times as long as the first the second may take, where they differ in work.
        """
        clock, last = self.clock, 0.0
        for number in range(most):
            if number and not clock.allows(last * (growth if number == 1 else 1.0) / MARGIN + TAIL):
                return
            began = clock.elapsed
            yield number
            self.wait()
            last = clock.elapsed - began

    def prior(self, count: int, horizon: int, legal: Callable[[Tensor], Tensor]) -> Tensor:
        """Rollouts of the policy prior inside the model, `count` a belief: `[B, count, H, A]`, none without a prior.

        `legal` clips the policy's actions `[..., A]` to the range of the action.
        """
        if self.policy is None or not count or self.others is not None:
            return self.state.features.new_zeros(self.batch, 0, horizon, self.action.size)
        with self.clock.section("policy"):
            belief = self.state.repeat(count)
            actions: list[Tensor] = []
            for step in range(horizon):
                if step:
                    belief = self.model.predict(belief, actions[-1], self.noise)
                actions.append(legal(self.policy(belief, self.noise).nan_to_num()))
            return torch.stack(actions, 1).unflatten(0, (self.batch, count))

    def score(self, actions: Tensor) -> tuple[Tensor, State]:
        """Imagine candidates `[B, N, H, A]`: their scores `[B, N]` and trajectories `[B * N, H]`.

        A candidate whose score or cost is not finite gets -inf. One that breaks a constraint ranks below all that
        keep them, and the less it exceeds the limits the higher.
        """
        values, excess, states = self.evaluate(actions)
        return (values if excess is None else rank(values, excess)), states

    def evaluate_in_time(self, actions: Tensor, left: int = 1) -> Scored:
        """`evaluate` as many of the candidates, from the first on, as fit before the deadline: N may shrink.

        `left` pools, this one among them, share the time: many small ones find more than a few large ones. A pool is
        evaluated at once where the time of a candidate is known, else one in `PILOT` is evaluated first. The first two
        candidates, the mean and the best so far, are always evaluated.
        """
        if self.clock.deadline is None:
            return self.evaluate(actions)
        paces, shape = PACES.setdefault(self.model, {}), actions.shape[:1] + actions.shape[2:]
        pool, parts, done = actions.shape[1], [], 0
        least = max(1, pool // PILOT)
        if shape not in paces:
            parts, done = [self._timed(actions[:, :least], paces, shape, least)], least
        count = min(pool, max(done, 2, done + self._fitting(paces[shape], least, left)))
        if count > done:
            parts.append(self._timed(actions[:, done:count], paces, shape, least))
        return parts[0] if len(parts) == 1 else join(parts, self.batch)

    def _timed(self, actions: Tensor, paces: dict[torch.Size, float], shape: torch.Size, least: int) -> Scored:
        """Evaluate and record the time a candidate takes; fewer than `least` candidates may only lower it.

        The fixed cost of a call would make a few candidates look slow, and keep all later pools small.
        """
        began = self.clock.elapsed
        scored = self.evaluate(actions)
        self.wait()
        pace = (self.clock.elapsed - began) / actions.shape[1]
        paces[shape] = pace if actions.shape[1] >= least else min(pace, paces[shape])
        return scored

    def _fitting(self, pace: float, least: int, left: int) -> int:
        """How many candidates of `pace` milliseconds each fit into this pool, with `left` pools of `least` or more."""
        assert self.clock.deadline is not None
        fitting = MARGIN * (self.clock.deadline - TAIL - self.clock.elapsed) / max(pace, 1e-6)
        return int(fitting / min(max(fitting // least, 1), left))

    def wait(self) -> None:
        """Wait for the device to finish, where there is a deadline."""
        if self.clock.deadline is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def evaluate(self, actions: Tensor) -> Scored:
        """Values `[B, N]` of candidates `[B, N, H, A]`, by how much they exceed the limits, and trajectories.

        Values are -inf where they or the excess are not finite. Differentiable where the model and objective are. The
        excess `[B, N]` is None without constraints. With several possibilities of others the worst counts, and the
        trajectories are those of the first.
        """
        if self.others is None:
            return self._evaluate(actions)
        outcomes = [self._evaluate(whole) for whole in self.others.complete(actions)]
        values, excess, states = outcomes[0]
        for other, more, _ in outcomes[1:]:
            values, excess = values.minimum(other), None if excess is None or more is None else excess.maximum(more)
        return values, excess, states

    def _evaluate(self, actions: Tensor) -> Scored:
        batch, count = actions.shape[:2]
        flat, clock = actions.flatten(0, 1), self.clock
        with clock.section("imagine"):
            states = self.model.imagine(self.state.repeat(count), flat, self.noise)
        with clock.section("objective"):
            values = self.objective(self.model, states, flat).float().view(batch, count)
            values = values.nan_to_num(-math.inf, -math.inf, -math.inf)
        if not self.constraints:
            return values, None, states
        with clock.section("constraints"):
            excess = sum((c.excess(self.model, states, flat) for c in self.constraints), values.new_zeros(()))
            excess = excess.view(batch, count).nan_to_num(math.inf, math.inf)
        return values.masked_fill(excess.isinf(), -math.inf), excess, states


class Planner(ABC):
    """A search. Final classes are frozen dataclasses of their hyperparameters.

    Among them are `horizon` and `samples`, how many candidates are imagined side by side. Raises `UserError` for a
    hyperparameter outside its declared limits.
    """

    horizon: int
    samples: int = 1

    def __post_init__(self) -> None:
        check_limits(self, ("{} of " + type(self).__name__).format)

    @abstractmethod
    def plan(self, problem: Problem) -> Plan:
        """The best actions found before the problem's deadline. Never raises because of what the model predicts.

        Raises `UserError` for a problem it cannot search: another kind of action, no bounds, a warm start of another
        shape.
        """


def rank(values: Tensor, excess: Tensor) -> Tensor:
    """Scores that order one pool `[B, N]`: candidates within the limits first, the others by how little they exceed."""
    invalid = values.isinf()
    worst = values.masked_fill(invalid, math.inf).amin(1, keepdim=True).clamp(max=1e30)
    return torch.where((excess > 0) & ~invalid, worst - 1 - excess, values)


def join(parts: list[Scored], batch: int) -> Scored:
    """Pools of scored candidates as one, the candidates of each belief side by side again."""
    values, excess, states = zip(*parts, strict=True)
    together = State.cat([each.unflatten(batch) for each in states], dim=1).flatten()
    return torch.cat(values, 1), None if excess[0] is None else torch.cat(excess, 1), together


def conclude(
    problem: Problem,
    actions: Tensor,
    states: State,
    score: Tensor,
    spread: Tensor,
    std: Tensor,
    iterations: int,
    fallback: Tensor,
) -> Plan:
    """The plan of the best candidates `[B, H, A]` of a search where their `score` `[B]` is finite, else of `fallback`.

    `fallback` `[H, A]` is then imagined too.
    """
    found = score.isfinite()
    if not bool(found.all()):
        actions = torch.where(found[:, None, None], actions, fallback)
        states = problem.evaluate(actions[:, None])[2]
    return Plan(
        actions=actions,
        states=states,
        score=score,
        spread=spread.nan_to_num(0.0, 0.0, 0.0),
        std=std,
        found=found,
        iterations=torch.full_like(score, iterations, dtype=torch.long),
        milliseconds=torch.full_like(score, problem.clock.elapsed),
    )


def check_pool(planner: Planner, kept: str, given: int) -> None:
    """Raise `UserError` unless there are more samples than `given` ones, which are not drawn, and at least `kept`."""
    samples, number = planner.samples, getattr(planner, kept)
    if samples <= given:
        raise UserError(f"samples is {samples}, but must be at least {given + 1}, as {given} of them are not drawn")
    if number > samples:
        raise UserError(f"{kept} is {number}, but must be at most samples, which is {samples}")


def check_widths(min_std: float, max_std: float) -> None:
    """Raise `UserError` for limits of a search distribution's width that contradict each other."""
    if max_std < min_std:
        raise UserError(f"max_std is {max_std}, but must be at least min_std, which is {min_std}")
