"""The public conformance suite of planners: run it on your own before a robot follows it.

B beliefs, N trajectories, H horizon, A action size, D the numbers that are ours. The world is a point on a plane that
moves by its action and is paid for being near the origin, so that the best plan is known: straight there.
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
    """Check each promise of `Planner` in a linear world and fail with the first that is broken; takes seconds.

    The actions are two numbers "x" and "y", or with `discrete` one of five choices. `ours` are the numbers that the
    planner chooses for us; what others do with the rest is not scored. The promises: it solves the world for every row
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
    """Every row of a batch is solved for its own start, and found says so."""
    plan = planner.plan(problem(world))
    batch, size = len(STARTS), world.spec.action.size
    assert plan.actions.shape == (batch, planner.horizon, size), f"actions are {tuple(plan.actions.shape)}"
    assert plan.std.shape == plan.actions.shape, f"std is {tuple(plan.std.shape)}"
    for name in ("score", "spread", "found", "iterations", "milliseconds"):
        value = getattr(plan, name)
        assert value.shape == (batch,), f"{name} is {tuple(value.shape)}, not one number a row"
        assert value.isfinite().all(), f"{name} is {value}"
    assert plan.found.all(), "found is False although every candidate is finite"
    gains = gained(plan, world, ours)
    assert (gains > NEARLY).all(), f"rows gain {gains.tolist()} of what the best plan does"


def check_bounds(planner: Planner, world: "Plane") -> None:
    """Neither the plan nor any candidate on the way leaves the declared range."""
    world.widest = 0.0
    plan = planner.plan(problem(world, warm=torch.full((len(STARTS), planner.horizon, world.spec.action.size), 3.0)))
    assert world.widest <= 1, f"candidates went as far as {world.widest}, but actions end at 1"
    assert plan.actions.abs().max() <= 1, f"the plan goes as far as {plan.actions.abs().max()}"
    if world.spec.action.kind == "discrete":
        one_hot = ((plan.actions == 0) | (plan.actions == 1)).all() & (plan.actions.sum(-1) == 1).all()
        assert one_hot, "the plan of a discrete action is not one-hot"


def check_trajectory(planner: Planner, world: "Plane") -> None:
    """The states and the score of a plan are those of its actions."""
    asked = problem(world)
    plan = planner.plan(asked)
    with torch.no_grad():
        states = world.imagine(Place(torch.tensor(STARTS)), plan.actions)
        score = OBJECTIVE(world, states, plan.actions)
    assert torch.allclose(plan.states.features, states.features, atol=1e-5), "the states are not those of the actions"
    assert torch.allclose(plan.score, score, atol=1e-4), f"the score is {plan.score.tolist()}, not {score.tolist()}"


def check_seed(planner: Planner, noisy: "Plane") -> None:
    """The same seed gives the same plan, in a world that samples too, and nobody else's random numbers change."""
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
    asked = problem(world)
    warm = world.best(asked.state.features, planner.horizon)
    ticking = Ticks(world)
    plan = planner.plan(problem(world, warm=warm, clock=Clock(1e-6, ticking)))
    gains = gained(plan, world, ours)
    assert (gains > 0.99).all(), f"rows keep {gains.tolist()} of a warm start that was the best plan"


def check_constraints(planner: Planner, world: "Plane", ours: Sequence[int]) -> None:
    """A limit is kept where it can be: the point may not come nearer to the origin than half of its start."""
    asked = problem(world)
    index = ours[0]
    start = asked.state.features[:, index].abs()

    def near(seen: dict[str, Tensor]) -> Tensor:
        place = seen["state"][..., index].abs().unflatten(0, (len(start), -1))
        return (start[:, None, None] / 2 - place).clamp(min=0).flatten(0, 1)

    limit = Constraint(Decoded(near, ("state",)), 1e-4)
    plan = planner.plan(problem(world, constraints=(limit,)))
    excess = limit.excess(world, plan.states, plan.actions)
    assert (excess == 0).all(), f"the plan exceeds the limit by {excess.tolist()}"


def check_deadline(planner: Planner, world: "Plane") -> None:
    """A search that has less time than it would take ends in time, with a plan."""
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
    """More time is never worse in expectation: over seeds and starts."""
    ticking = Ticks(world)
    takes = float(planner.plan(problem(world, clock=Clock(None, ticking))).milliseconds[0])
    means = []
    for part in (0.1, 0.4, 1.1):
        plans = [planner.plan(problem(world, seed=seed, clock=Clock(part * takes, ticking))) for seed in range(6)]
        gains = [gained(plan, world, ours) for plan in plans]
        means.append(float(torch.stack(gains).mean()))
    for less, more in itertools.pairwise(means):
        assert more >= less - 0.01, f"with more time plans gain {means}, which is less"


def check_fallback(planner: Planner, world: "Plane", ours: Sequence[int]) -> None:
    """A row in which nothing is finite gets the fallback and says so; the others do not notice."""
    starts = torch.tensor(STARTS)
    starts[1] = torch.nan
    plan = planner.plan(problem(world, starts=starts))
    assert plan.found.tolist() == [True, False, True, True], f"found is {plan.found.tolist()}"
    rest = torch.zeros_like(plan.actions[1])
    if world.spec.action.kind == "discrete":
        rest[:, 0] = 1
    assert torch.equal(plan.actions[1], rest), f"the fallback is {plan.actions[1].tolist()}"
    assert plan.std.isfinite().all(), "std is not finite"
    gains = gained(plan, world, ours)[[0, 2, 3]]
    assert (gains > NEARLY).all(), f"the other rows gain {gains.tolist()} of what the best plan does"


@state
class Place(State):
    place: Tensor

    @property
    def features(self) -> Tensor:
        return self.place


class Plane(WorldModel[Place]):
    """The linear world: `place + STEP * action`, plus a draw of deviation `spread`. Remembers what it was asked."""

    family: ClassVar[str] = "plane"

    def __init__(self, discrete: bool = False, spread: float = 0.0):
        super().__init__()
        moves = ActionSpec("discrete", len(MOVES), ("stay", "right", "left", "up", "down"))
        pushes = ActionSpec("continuous", 2, ("x", "y"), (-1.0, -1.0), (1.0, 1.0))
        obs = {"state": KeySpec("vector", (2,))}
        self.spec = DataSpec({**obs, **signal_keys(reward=True)}, moves if discrete else pushes, 10.0)
        self.spread, self.widest, self.predicted = spread, 0.0, 0
        self.loss_weights = {}

    @property
    def decodes(self) -> tuple[str, ...]:
        return ("state", "reward")

    def start(self, obs: Obs, noise: Noise = NOISE) -> Place:
        return Place(obs["state"])

    def observe(self, state: Place, action: Tensor, obs: Obs, noise: Noise = NOISE) -> Place:
        return Place(obs["state"])

    def predict(self, state: Place, action: Tensor, noise: Noise = NOISE) -> Place:
        self.widest = max(self.widest, float(action.detach().abs().max()))
        self.predicted += len(action)
        push = action @ torch.tensor(MOVES) if self.spec.action.kind == "discrete" else action
        place = state.features + STEP * push
        return Place(place + self.spread * noise.normal(place.shape, place) if self.spread else place)

    def decode(self, state: Place, key: str) -> Tensor:
        if key not in self.decodes:
            raise unknown("key", key, self.decodes)
        return state.features if key == "state" else -state.features.square().sum(-1)

    def loss(self, segment: Segment, belief: Place | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        return {}

    def best(self, place: Tensor, horizon: int) -> Tensor:
        """The best plan from `[B, 2]`: `[B, H, A]`. Straight to the origin, or by the larger step first."""
        actions = []
        for _ in range(horizon):
            if self.spec.action.kind == "continuous":
                actions.append((-place / STEP).clamp(-1, 1))
            else:
                ahead = place[:, None] + STEP * torch.tensor(MOVES)
                choice = ahead.square().sum(-1).argmin(1)
                actions.append(torch.nn.functional.one_hot(choice, len(MOVES)).float())
            place = self.predict(Place(place), actions[-1]).place
        return torch.stack(actions, 1)


class Ticks:
    """A clock that only moves when the world predicts: a millisecond for each belief."""

    def __init__(self, world: Plane):
        self.world = world

    def __call__(self) -> float:
        return self.world.predicted / 1000


def problem(world: Plane, starts: Tensor | None = None, **given: object) -> Problem:
    place = torch.tensor(STARTS) if starts is None else starts
    return Problem(world, Place(place), OBJECTIVE, **given)  # type: ignore[arg-type]


def gained(plan: Plan, world: Plane, ours: Sequence[int]) -> Tensor:
    """What plans gain in our numbers over doing nothing, as a fraction of what the best one does: `[B]`."""
    start, index = torch.tensor(STARTS), list(ours)
    best = world.imagine(Place(start), world.best(start, plan.actions.shape[1])).features

    def cost(places: Tensor) -> Tensor:
        return places[..., index].square().sum((-1, -2))

    nothing = cost(start[:, None].expand_as(best))
    return (nothing - cost(plan.states.features)) / (nothing - cost(best))
