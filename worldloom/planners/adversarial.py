"""Planning against others: what is the worst that somebody else could plausibly do, and what is best against it?

Part of the action belongs to others. Their sequence is searched for the most harm among those that are likely enough,
ours for the best worst case, in turn (the double oracle method, McMahan, Gordon & Blum, 2003).

B beliefs, N trajectories, H horizon, A action size, D the size of their part, R rounds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worldloom.data.spec import ActionSpec
from worldloom.errors import UserError, unknown
from worldloom.model import State, WorldModel
from worldloom.planners.clock import Clock
from worldloom.planners.objectives import Constraint, Objective
from worldloom.planners.planner import Others, Plan, Planner, Problem, conclude, rank

BREACH = 1e3  # what breaking one of our constraints by one is worth to them, in units of our score

SLACK = 1e-4  # rounding of a sum over a horizon

Indices = tuple[int, ...]
LogProbability = Callable[[State, Tensor], Tensor]


@dataclass(frozen=True)
class Adversarial(Planner):
    """The worst that the owners of `theirs` could do, and with `replies` our best answer to it.

    `theirs` names numbers of the action, by name, index or slice. What they do is searched with `inner` for the most
    harm to our objective and constraints, among sequences whose log-probability is at least `limit`:
    `log_probability(states [N, H], theirs [N, H, D]) -> [N]`. By default that is independent Gaussians around 0 with
    standard deviation `std`, and the limit is what a sequence one `std` away in every number has.

    With `replies` ours is searched with `inner` too, against all that they were found to do so far, for `rounds`
    rounds, and the plan is the one with the best worst case. Without, ours is held to `problem.warm` and only attacked.
    The plan's actions are whole ones, ours and their worst, and its score is the worst case. `found` is False where
    nothing they could do was found within the limit; the actions are then the fallback, zeros. A policy prior is not
    used.
    """

    inner: Planner
    theirs: slice | tuple[str | int, ...]
    replies: bool = True
    rounds: int = 3
    std: float = 0.5
    log_probability: LogProbability | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.inner, Adversarial):
            raise UserError("an adversary cannot be the inner planner of another: give it 'cem', 'icem' or 'gradient'")
        if self.rounds < 1:
            raise UserError(f"rounds is {self.rounds}, but it must be 1 or more")
        if not self.std > 0:
            raise UserError(f"std is {self.std}, but it must be above 0")
        if self.log_probability is not None and self.limit is None:
            raise UserError("a log-probability needs its limit: give the least log-probability a sequence may have")
        if self.limit is not None and not math.isfinite(self.limit):
            raise UserError(f"the limit is {self.limit}, but it must be a finite log-probability")

    @property
    def horizon(self) -> int:  # type: ignore[override]
        return self.inner.horizon

    def plan(self, problem: Problem) -> Plan:
        ours, theirs = split(problem.action, self.theirs)
        with problem.search(self.horizon):
            start = problem.warm_start(self.horizon)
            if self.replies:
                return self._settle(problem, ours, theirs, *self._alternate(problem, start, ours, theirs))
            if problem.warm is None:
                raise UserError("without replies there must be a plan to attack: give it as the problem's warm")
            attack = self._attack(problem, start, ours, theirs, problem.clock, 0)
            return self._settle(problem, ours, theirs, [start], [attack], [attack.plan])

    def _alternate(
        self, problem: Problem, start: Tensor, ours: Indices, theirs: Indices
    ) -> tuple[list[Tensor], list["Attack"], list[Plan]]:
        """Our replies `[B, H, A]`, their attack on each, and the plans our part came from, round by round."""
        replies: list[Tensor] = []
        attacks: list[Attack] = []
        plans: list[Plan] = []
        held = [put(start, theirs, 0.0)]
        for number in problem.rounds(self.rounds):
            left = 2 * (self.rounds - number) + 1
            against = Others(ours, tuple(held))
            warm, clock = start[..., list(ours)], problem.clock.share(left)
            plan = self.inner.plan(part(problem, against, warm, clock, 2 * number))
            start = put(start, ours, plan.actions)
            attack = self._attack(problem, start, ours, theirs, problem.clock.share(left - 1), 2 * number + 1)
            start = put(start, theirs, attack.actions)
            replies, attacks, plans = [*replies, start], [*attacks, attack], [*plans, plan]
            held = [put(start, theirs, one.actions) for one in attacks]
        return replies, attacks, plans

    def _attack(
        self, problem: Problem, whole: Tensor, ours: Indices, theirs: Indices, clock: Clock, turn: int
    ) -> "Attack":
        """The likely enough sequence of theirs that hurts `whole` `[B, H, A]` most, from the one in it on."""
        bound = self._bound(theirs)
        against = part(problem, Others(theirs, (whole,)), whole[..., list(theirs)], clock, turn)
        harm = Harm(problem.objective, problem.constraints)
        plan = self.inner.plan(replace(against, objective=harm, constraints=(bound,)))
        excess = bound.excess(problem.model, plan.states, put(whole, theirs, plan.actions))
        return Attack(plan.actions, plan.found & (excess <= SLACK), plan)

    def _bound(self, theirs: Indices) -> Constraint:
        if self.log_probability is not None and self.limit is not None:
            return Constraint(Surprise(theirs, self.log_probability), -self.limit)
        gaussian = Gaussian(self.std)
        typical = gaussian.least(self.horizon * len(theirs))
        return Constraint(Surprise(theirs, gaussian), -(typical if self.limit is None else self.limit))

    def _settle(
        self,
        problem: Problem,
        ours: Indices,
        theirs: Indices,
        replies: list[Tensor],
        attacks: list["Attack"],
        plans: list[Plan],
    ) -> Plan:
        """Every reply against every attack; the reply whose worst case is best, with that worst case."""
        batch, shape = problem.batch, (len(replies), len(attacks))
        pool = torch.stack([put(reply, theirs, attack.actions) for reply in replies for attack in attacks], 1)
        values, excess, states = problem.judge(pool)
        scores = (values if excess is None else rank(values, excess)).view(batch, *shape)
        allowed = torch.stack([attack.allowed for attack in attacks], 1)[:, None]
        worst, by = scores.masked_fill(~allowed, math.inf).min(2)
        lost, reply = worst.max(1)
        index = reply * shape[1] + by.gather(1, reply[:, None])[:, 0]
        rows = torch.arange(batch, device=index.device)
        score = torch.where(lost.isfinite(), values[rows, index], -math.inf)
        states = states[rows * pool.shape[1] + index]
        last, attack = plans[-1], attacks[-1].plan
        std = torch.zeros_like(pool[:, 0]).index_copy(-1, torch.tensor(theirs, device=pool.device), attack.std)
        if last is not attack:
            std = put(std, ours, last.std)
        took = sum(
            int(plan.iterations[0]) for plan in {id(p): p for p in [*plans, *(a.plan for a in attacks)]}.values()
        )
        rest = torch.zeros_like(pool[0, 0])
        return conclude(problem, pool[rows, index], states, score, last.spread, std, took, rest)


@dataclass(frozen=True)
class Attack:
    """A sequence of theirs `[B, H, D]`, whether it is likely enough `[B]`, and the plan it came from."""

    actions: Tensor
    allowed: Tensor
    plan: Plan


@dataclass(frozen=True)
class Harm(Objective):
    """What our score loses, and by how much our limits are exceeded."""

    objective: Objective
    constraints: tuple[Constraint, ...]

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        breach = sum((each.excess(model, states, actions) for each in self.constraints), torch.zeros(()).to(actions))
        return BREACH * breach - self.objective(model, states, actions)

    @property
    def rows(self) -> int | None:
        return self.objective.rows


@dataclass(frozen=True)
class Surprise(Objective):
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
class Gaussian:
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


def part(problem: Problem, others: Others, warm: Tensor, clock: Clock, turn: int) -> Problem:
    """The search of one side, with its own share of the time and its own seed."""
    return replace(problem, others=others, warm=warm, policy=None, clock=clock, seed=problem.seed + turn)


def put(actions: Tensor, indices: Indices, values: Tensor | float) -> Tensor:
    """`[..., A]` with the numbers at `indices` replaced."""
    done = actions.clone()
    done[..., list(indices)] = values
    return done


def split(action: ActionSpec, theirs: slice | tuple[str | int, ...]) -> tuple[Indices, Indices]:
    """The indices of our numbers and of theirs. Raises `UserError` for unknown names and where one side is empty."""
    if action.kind == "discrete":
        raise UserError("a discrete action is one choice and has no part that belongs to others")
    numbers = range(action.size)
    chosen = set(numbers[theirs]) if isinstance(theirs, slice) else {find(action, each) for each in theirs}
    if not 0 < len(chosen) < action.size:
        raise UserError(
            f"theirs is {theirs!r}, {len(chosen)} of the {action.size} numbers of the action: "
            "some must be theirs and some ours"
        )
    return tuple(i for i in numbers if i not in chosen), tuple(sorted(chosen))


def find(action: ActionSpec, name: str | int) -> int:
    if isinstance(name, str):
        if name not in (action.names or ()):
            raise unknown("number of the action", name, action.names or ())
        return (action.names or ()).index(name)
    if not -action.size <= name < action.size:
        raise UserError(f"theirs holds {name}, but the action has the numbers 0 to {action.size - 1}")
    return name % action.size
