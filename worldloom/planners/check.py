"""The public conformance suite of planners: run it on your own before a robot follows it.

B beliefs, N trajectories, H horizon, A action size, D the numbers that are ours. The environment is a point on a plane
that moves by its action, with more reward nearer to the origin, so that the best plan is known: straight there.
"""

import itertools
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from worldloom.data.segment import Segment
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.errors import unknown
from worldloom.model import Obs, State, WorldModel, state
from worldloom.noise import NOISE, Noise
from worldloom.planners.clock import Clock
from worldloom.planners.objectives import Constraint, Decoded, Return
from worldloom.planners.planner import Plan, Planner, Problem

STEP = 0.25
STARTS = ((1.0, 0.5), (-0.5, 1.0), (0.25, -0.75), (-1.0, -0.5))
MOVES = ((0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
OBJECTIVE = Return(discount=1.0, use_value=False)
NEARLY = 0.85  # of what the best plan gains over doing nothing


def check_planner(planner: Planner, *, discrete: bool = False, ours: Sequence[int] = (0, 1)) -> None:
    """Check each requirement of `Planner` in a linear world and fail with the first that is not met; takes seconds.

    The actions are two numbers "x" and "y", or with `discrete` one of five choices. `ours` are the numbers that the
    planner chooses for us; the numbers of others are not checked. The requirements: it solves the world for every row
    of a batch, stays within the bounds, returns the trajectory of its actions, repeats itself under a seed, uses the
    warm start, keeps constraints, keeps a deadline, is no worse with more time, and falls back where nothing is finite.
    """
    world = Plane(discrete)
    check_solves(planner, world, ours)
    check_bounds(planner, world)
    check_trajectory(planner, world)
    check_seed(planner, Plane(discrete, spread=0.1))
    check_warm_start(planner, world, ours)
    check_constraints(planner, world, ours)
    check_deadline(planner, Plane(discrete))
    check_budget(planner, Plane(discrete), ours)
    check_fallback(planner, world, ours)


def check_solves(planner: Planner, world: "Plane", ours: Sequence[int]) -> None:
    """Every row of a batch is solved for its own start, and `found` is True."""
    plan = planner.plan(problem(world))
    batch, size = len(STARTS), world.spec.action.size
    assert plan.actions.shape == (batch, planner.horizon, size), f"actions are {tuple(plan.actions.shape)}"
    assert plan.std.shape == plan.actions.shape, f"std is {tuple(plan.std.shape)}"
    for name in ("score", "spread", "found", "iterations", "milliseconds"):
        value = getattr(plan, name)
        assert value.shape == (batch,), f"{name} is {tuple(value.shape)}, not one number a row"
        assert value.isfinite().all(), f"{name} is {value}"
    assert plan.found.all(), "found is False although every candidate is finite"
    gains = gains_of(plan, world, ours)
    assert (gains > NEARLY).all(), f"rows gain {gains.tolist()} of what the best plan does"


def check_bounds(planner: Planner, world: "Plane") -> None:
    """Neither the plan nor any candidate leaves the declared range."""
    world.largest_action = 0.0
    plan = planner.plan(problem(world, warm=torch.full((len(STARTS), planner.horizon, world.spec.action.size), 3.0)))
    assert world.largest_action <= 1, f"a candidate reaches {world.largest_action}, beyond 1"
    assert plan.actions.abs().max() <= 1, f"the plan goes as far as {plan.actions.abs().max()}"
    if world.spec.action.kind == "discrete":
        one_hot = ((plan.actions == 0) | (plan.actions == 1)).all() & (plan.actions.sum(-1) == 1).all()
        assert one_hot, "the plan of a discrete action is not one-hot"


def check_trajectory(planner: Planner, world: "Plane") -> None:
    """The states and the score of a plan are those of its actions."""
    base = problem(world)
    plan = planner.plan(base)
    with torch.no_grad():
        states = world.imagine(Position(torch.tensor(STARTS)), plan.actions)
        score = OBJECTIVE(world, states, plan.actions)
    assert torch.allclose(plan.states.features, states.features, atol=1e-5), "the states are not those of the actions"
    assert torch.allclose(plan.score, score, atol=1e-4), f"the score is {plan.score.tolist()}, not {score.tolist()}"


def check_seed(planner: Planner, noisy: "Plane") -> None:
    """The same seed gives the same plan, also in a stochastic world, and torch's generator is left unchanged."""
    before = torch.get_rng_state()
    one = planner.plan(problem(noisy, seed=3))
    assert torch.equal(before, torch.get_rng_state()), "planning moved torch's random generator"
    torch.rand(1)
    other = planner.plan(problem(noisy, seed=3))
    for name in ("actions", "score", "spread", "std", "found", "iterations"):
        assert torch.equal(getattr(one, name), getattr(other, name)), f"{name} of two plans of one seed differ"
    assert torch.equal(one.states.features, other.states.features), "the states of two plans of one seed differ"


def check_warm_start(planner: Planner, world: "Plane", ours: Sequence[int]) -> None:
    """With hardly any time, a good warm start is not lost."""
    base = problem(world)
    warm = world.best(base.state.features, planner.horizon)
    ticking = Ticks(world)
    plan = planner.plan(problem(world, warm=warm, clock=Clock(1e-6, ticking)))
    gains = gains_of(plan, world, ours)
    assert (gains > 0.99).all(), f"rows keep {gains.tolist()} of a warm start that was the best plan"


def check_constraints(planner: Planner, world: "Plane", ours: Sequence[int]) -> None:
    """A limit is kept where it can be: the point may not come nearer to the origin than half of its start."""
    base = problem(world)
    index = ours[0]
    start = base.state.features[:, index].abs()

    def near(decoded: dict[str, Tensor]) -> Tensor:
        position = decoded["state"][..., index].abs().unflatten(0, (len(start), -1))
        return (start[:, None, None] / 2 - position).clamp(min=0).flatten(0, 1)

    limit = Constraint(Decoded(near, ("state",)), 1e-4)
    plan = planner.plan(problem(world, constraints=(limit,)))
    excess = limit.excess(world, plan.states, plan.actions)
    assert (excess == 0).all(), f"the plan exceeds the limit by {excess.tolist()}"


def check_deadline(planner: Planner, world: "Plane") -> None:
    """A search with too little time ends before the deadline, with a plan."""
    ticking = Ticks(world)
    whole = planner.plan(problem(world, clock=Clock(None, ticking)))
    takes = float(whole.milliseconds[0])
    for part in (0.6, 0.3, 0.05, 0.02):
        plan = planner.plan(problem(world, clock=Clock(part * takes, ticking)))
        took = float(plan.milliseconds[0])
        assert took <= part * takes, f"the plan took {took} ms of {part * takes}"
        assert plan.found.all(), "nothing was found within a short deadline"
        assert plan.iterations[0] >= 1, "no iteration was carried out"
        assert plan.iterations[0] <= whole.iterations[0], "less time made for more iterations"


def check_budget(planner: Planner, world: "Plane", ours: Sequence[int]) -> None:
    """With more time the mean over seeds and starts is not worse."""
    ticking = Ticks(world)
    takes = float(planner.plan(problem(world, clock=Clock(None, ticking))).milliseconds[0])
    means = []
    for part in (0.1, 0.4, 1.1):
        plans = [planner.plan(problem(world, seed=seed, clock=Clock(part * takes, ticking))) for seed in range(6)]
        gains = [gains_of(plan, world, ours) for plan in plans]
        means.append(float(torch.stack(gains).mean()))
    for less, more in itertools.pairwise(means):
        assert more >= less - 0.01, f"with more time plans gain {means}, which is less"


def check_fallback(planner: Planner, world: "Plane", ours: Sequence[int]) -> None:
    """A row in which nothing is finite gets the fallback and `found` False; the other rows are not affected."""
    starts = torch.tensor(STARTS)
    starts[1] = torch.nan
    plan = planner.plan(problem(world, starts=starts))
    assert plan.found.tolist() == [True, False, True, True], f"found is {plan.found.tolist()}"
    fallback = torch.zeros_like(plan.actions[1])
    if world.spec.action.kind == "discrete":
        fallback[:, 0] = 1
    assert torch.equal(plan.actions[1], fallback), f"the fallback is {plan.actions[1].tolist()}"
    assert plan.std.isfinite().all(), "std is not finite"
    gains = gains_of(plan, world, ours)[[0, 2, 3]]
    assert (gains > NEARLY).all(), f"the other rows gain {gains.tolist()} of what the best plan does"


@state
class Position(State):
    position: Tensor

    @property
    def features(self) -> Tensor:
        return self.position


class Plane(WorldModel[Position]):
    """The linear world: `position + STEP * action`, plus noise of deviation `spread`.

    It records the largest action and counts its predictions.
    """

    family: ClassVar[str] = "plane"

    def __init__(self, discrete: bool = False, spread: float = 0.0):
        super().__init__()
        moves = ActionSpec("discrete", len(MOVES), ("stay", "right", "left", "up", "down"))
        pushes = ActionSpec("continuous", 2, ("x", "y"), (-1.0, -1.0), (1.0, 1.0))
        obs = {"state": KeySpec("vector", (2,))}
        self.spec = DataSpec({**obs, **signal_keys(reward=True)}, moves if discrete else pushes, 10.0)
        self.spread, self.largest_action, self.predicted = spread, 0.0, 0
        self.loss_weights = {}

    @property
    def decodes(self) -> tuple[str, ...]:
        return ("state", "reward")

    def start(self, obs: Obs, noise: Noise = NOISE) -> Position:
        return Position(obs["state"])

    def observe(self, state: Position, action: Tensor, obs: Obs, noise: Noise = NOISE) -> Position:
        return Position(obs["state"])

    def predict(self, state: Position, action: Tensor, noise: Noise = NOISE) -> Position:
        self.largest_action = max(self.largest_action, float(action.detach().abs().max()))
        self.predicted += len(action)
        push = action @ torch.tensor(MOVES) if self.spec.action.kind == "discrete" else action
        position = state.features + STEP * push
        return Position(position + self.spread * noise.normal(position.shape, position) if self.spread else position)

    def decode(self, state: Position, key: str) -> Tensor:
        if key not in self.decodes:
            raise unknown("key", key, self.decodes)
        return state.features if key == "state" else -state.features.square().sum(-1)

    def loss(self, segment: Segment, belief: Position | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        return {}

    def best(self, position: Tensor, horizon: int) -> Tensor:
        """The best plan from `[B, 2]`: `[B, H, A]`. Straight to the origin, or by the larger step first."""
        actions = []
        for _ in range(horizon):
            if self.spec.action.kind == "continuous":
                actions.append((-position / STEP).clamp(-1, 1))
            else:
                ahead = position[:, None] + STEP * torch.tensor(MOVES)
                choice = ahead.square().sum(-1).argmin(1)
                actions.append(torch.nn.functional.one_hot(choice, len(MOVES)).float())
            position = self.predict(Position(position), actions[-1]).position
        return torch.stack(actions, 1)


class Ticks:
    """A clock that advances with the world's predictions: a millisecond for each belief."""

    def __init__(self, world: Plane):
        self.world = world

    def __call__(self) -> float:
        return self.world.predicted / 1000


def problem(world: Plane, starts: Tensor | None = None, **given: object) -> Problem:
    position = torch.tensor(STARTS) if starts is None else starts
    return Problem(world, Position(position), OBJECTIVE, **given)  # type: ignore[arg-type]


def gains_of(plan: Plan, world: Plane, ours: Sequence[int]) -> Tensor:
    """The gain of plans over doing nothing in our numbers, as a fraction of the best plan's: `[B]`."""
    start, index = torch.tensor(STARTS), list(ours)
    best = world.imagine(Position(start), world.best(start, plan.actions.shape[1])).features

    def cost(places: Tensor) -> Tensor:
        return places[..., index].square().sum((-1, -2))

    nothing = cost(start[:, None].expand_as(best))
    return (nothing - cost(plan.states.features)) / (nothing - cost(best))
