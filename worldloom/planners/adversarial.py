"""Planning against adversaries: the worst likely actions of others, and our best response to them.

A part of the action belongs to others. Their worst sequence is searched among those that are likely enough, ours for
the best worst case, in turn (the double oracle method, McMahan, Gordon & Blum, 2003).

B beliefs, N trajectories, H horizon, A action size, D the size of their part, R rounds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from worldloom.data.spec import ActionSpec
from worldloom.errors import UserError, unknown
from worldloom.limits import FINITE, above, at_least
from worldloom.model import State, WorldModel
from worldloom.planners.clock import Clock
from worldloom.planners.objectives import Constraint, Objective
from worldloom.planners.planner import Others, Plan, Planner, Problem, conclude, rank

BREACH_WEIGHT = 1e3  # the adversary's value of an excess of 1 over one of our limits, in units of our score

SLACK = 1e-4  # rounding of a sum over a horizon

Indices = tuple[int, ...]
LogProbability = Callable[[State, Tensor], Tensor]


@dataclass(frozen=True)
class Adversarial(Planner):
    """The worst actions of the others, who control `theirs`, and with `replies` our best response to them.

    `theirs` names numbers of the action, by name, index or slice. Theirs are searched with `inner` for the lowest
    objective and the largest excess, among sequences whose log-probability is at least `limit`:
    `log_probability(states [N, H], theirs [N, H, D]) -> [N]`. By default that is independent Gaussians around 0 with
    standard deviation `std`, and the limit is what a sequence one `std` away in every number has.

    With `replies` ours is searched with `inner` too, against all attacks found so far, for `rounds` rounds, and the
    plan is the one with the best worst case. Without, ours stays at `problem.warm` and is only attacked. The plan's
    actions are whole ones, ours and the worst attack, and its score is the worst case. `found` is False where no attack
    within the limit was found; the actions are then the fallback, zeros. A policy prior is not used.
    """

    inner: Planner
    theirs: slice | tuple[str | int, ...]
    replies: bool = True
    rounds: Annotated[int, at_least(1)] = 3
    std: Annotated[float, above(0)] = 0.5
    log_probability: LogProbability | None = None
    limit: Annotated[float | None, FINITE] = None

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Planner):
            raise UserError(f"inner is {self.inner!r}, but it must be a planner such as CEM()")
        if isinstance(self.inner, Adversarial):
            raise UserError("an adversary cannot be the inner planner of another: give it 'cem', 'icem' or 'gradient'")
        super().__post_init__()
        if self.log_probability is not None and self.limit is None:
            raise UserError("a log-probability needs its limit: give the least log-probability a sequence may have")

    @property
    def horizon(self) -> int:  # type: ignore[override]
        return self.inner.horizon

    @property
    def samples(self) -> int:  # type: ignore[override]
        return self.inner.samples

    def plan(self, problem: Problem) -> Plan:
        sides = Sides.of(problem.action, self.theirs)
        if not self.replies and problem.warm is None:
            raise UserError("without replies there must be a plan to attack: give it as the problem's warm")
        bounds = problem.bounds(getattr(self.inner, "low", None), getattr(self.inner, "high", None))
        with problem.search(self.horizon) as problem:
            start, fallback = bounds.clip(problem.warm_start(self.horizon)), bounds.fallback(self.horizon)
            if self.replies:
                rounds = self._alternate(problem, sides, start, fallback)
            else:
                rounds = [Round(start, None, self._attack(problem, sides, start, problem.clock, turn=0))]
            return settle(problem, sides, rounds, fallback)

    def _alternate(self, problem: Problem, sides: "Sides", start: Tensor, fallback: Tensor) -> list["Round"]:
        """Our reply to all attacks so far, the next attack on it, and again."""
        rounds: list[Round] = []
        attacks = [with_values(start, sides.theirs, fallback[:, list(sides.theirs)])]
        for number in problem.rounds(self.rounds):
            left = 2 * (self.rounds - number) + 1
            subproblem = one_side(
                problem, Others(sides.ours, tuple(attacks)), start, problem.clock.share(left), 2 * number
            )
            plan = self.inner.plan(subproblem)
            start = with_values(start, sides.ours, plan.actions)
            attack = self._attack(problem, sides, start, problem.clock.share(left - 1), 2 * number + 1)
            start = with_values(start, sides.theirs, attack.actions)
            rounds.append(Round(start, plan, attack))
            attacks = [with_values(start, sides.theirs, each.attack.actions) for each in rounds]
        return rounds

    def _attack(self, problem: Problem, sides: "Sides", whole: Tensor, clock: Clock, turn: int) -> "Attack":
        """The likely enough sequence of theirs that is worst for `whole` `[B, H, A]`, or the one in it."""
        bound, given = self._bound(sides.theirs), whole[..., list(sides.theirs)]
        subproblem = one_side(problem, Others(sides.theirs, (whole,)), whole, clock, turn)
        adversary = AdversaryObjective(problem.objective, problem.constraints)
        plan = self.inner.plan(replace(subproblem, objective=adversary, constraints=(bound,)))
        excess = bound.excess(problem.model, plan.states, with_values(whole, sides.theirs, plan.actions))
        allowed = plan.found & (excess <= SLACK)
        return Attack(torch.where(allowed[:, None, None], plan.actions, given), allowed, plan)

    def _bound(self, theirs: Indices) -> Constraint:
        if self.log_probability is not None and self.limit is not None:
            return Constraint(NegativeLogProbability(theirs, self.log_probability), -self.limit)
        gaussian = GaussianLogProbability(self.std)
        typical = gaussian.least(self.horizon * len(theirs))
        return Constraint(NegativeLogProbability(theirs, gaussian), -(typical if self.limit is None else self.limit))


@dataclass(frozen=True)
class Attack:
    """A sequence of theirs `[B, H, D]`, whether it is likely enough `[B]`, and the plan it came from."""

    actions: Tensor
    allowed: Tensor
    plan: Plan


@dataclass(frozen=True)
class Round:
    """Whole actions `[B, H, A]`, the plan our part came from, if it was searched, and their attack on it."""

    whole: Tensor
    plan: Plan | None
    attack: Attack


@dataclass(frozen=True)
class Sides:
    """The indices of our numbers of the action and of theirs."""

    ours: Indices
    theirs: Indices

    @classmethod
    def of(cls, action: ActionSpec, theirs: slice | tuple[str | int, ...]) -> "Sides":
        """Raises `UserError` for unknown names and where one side is empty."""
        if action.kind == "discrete":
            raise UserError("a discrete action is one choice and has no part that belongs to others")
        numbers = range(action.size)
        chosen = set(numbers[theirs]) if isinstance(theirs, slice) else {index_of(action, each) for each in theirs}
        if not 0 < len(chosen) < action.size:
            raise UserError(
                f"theirs is {theirs!r}, {len(chosen)} of the {action.size} numbers of the action: "
                "some must be theirs and some ours"
            )
        return cls(tuple(i for i in numbers if i not in chosen), tuple(sorted(chosen)))


@dataclass(frozen=True)
class AdversaryObjective(Objective):
    """What the adversary maximises: minus our objective, plus the weighted excess over our limits."""

    objective: Objective
    constraints: tuple[Constraint, ...]

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        excess = sum((each.excess(model, states, actions) for each in self.constraints), torch.zeros(()).to(actions))
        return BREACH_WEIGHT * excess - self.objective(model, states, actions)

    @property
    def rows(self) -> frozenset[int]:
        return self.objective.rows.union(*(each.cost.rows for each in self.constraints))


@dataclass(frozen=True)
class NegativeLogProbability(Objective):
    """Minus the log-probability of their part of the actions."""

    theirs: Indices
    log_probability: LogProbability

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        value = self.log_probability(states, actions[..., list(self.theirs)])
        if not isinstance(value, Tensor) or value.shape != actions.shape[:1]:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"the log-probability is {got}, but it must be a tensor ({len(actions)},), one a sequence")
        return -value


@dataclass(frozen=True)
class GaussianLogProbability:
    """Independent numbers around 0, as a log-probability."""

    std: float

    def __call__(self, states: State, theirs: Tensor) -> Tensor:
        return (-0.5 * (theirs / self.std).square() - self._scale).sum((1, 2))

    def least(self, count: int) -> float:
        """The log-probability of `count` numbers one standard deviation away."""
        return count * (-0.5 - self._scale)

    @property
    def _scale(self) -> float:
        return math.log(self.std * math.sqrt(2 * math.pi))


def settle(problem: Problem, sides: Sides, rounds: list[Round], fallback: Tensor) -> Plan:
    """Evaluate every reply against every attack; the plan is the reply with the best worst case."""
    count, last = len(rounds), rounds[-1]
    wholes = [with_values(one.whole, sides.theirs, other.attack.actions) for one in rounds for other in rounds]
    pool = torch.stack(wholes, 1)
    values, excess, states = problem.evaluate(pool)
    scores = (values if excess is None else rank(values, excess)).unflatten(1, (count, count))
    allowed = torch.stack([each.attack.allowed for each in rounds], 1)
    worst, attack = scores.masked_fill(~allowed[:, None], math.inf).min(2)
    reply = worst.argmax(1)
    rows = torch.arange(len(reply), device=reply.device)
    index = reply * count + attack[rows, reply]
    std = with_values(torch.zeros_like(last.whole), sides.theirs, last.attack.plan.std)
    searched = [plan for each in rounds for plan in (each.plan, each.attack.plan) if plan is not None]
    return conclude(
        problem,
        actions=pool[rows, index],
        states=states[rows * count**2 + index].clone(),
        score=values[rows, index].masked_fill(~allowed.any(1), -math.inf),
        spread=searched[-2 if last.plan else -1].spread,
        std=std if last.plan is None else with_values(std, sides.ours, last.plan.std),
        iterations=sum(int(plan.iterations[0]) for plan in searched),
        fallback=fallback,
    )


def one_side(problem: Problem, others: Others, whole: Tensor, clock: Clock, turn: int) -> Problem:
    """The search of one side, from its part of `whole` on, with its own share of the time and its own seed."""
    warm, seed = whole[..., list(others.searched)], problem.seed + turn
    return replace(problem, others=others, warm=warm, policy=None, clock=clock, seed=seed)


def with_values(actions: Tensor, indices: Indices, values: Tensor) -> Tensor:
    """`[..., A]` with the numbers at `indices` replaced."""
    done = actions.clone()
    done[..., list(indices)] = values
    return done


def index_of(action: ActionSpec, name: str | int) -> int:
    if isinstance(name, str):
        if name not in (action.names or ()):
            raise unknown("number of the action", name, action.names or ())
        return (action.names or ()).index(name)
    if not -action.size <= name < action.size:
        raise UserError(f"theirs holds {name}, but the action has the numbers 0 to {action.size - 1}")
    return name % action.size
