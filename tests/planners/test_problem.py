"""What planners share: the clock, the bounds, how candidates are ranked, and what fits before a deadline."""

import math

import pytest
import torch

from worldloom.data.spec import ActionSpec
from worldloom.errors import UserError
from worldloom.model import State
from worldloom.noise import NOISE, Noise
from worldloom.planners.bounds import Bounds
from worldloom.planners.check import STARTS, Plane, Ticks, problem
from worldloom.planners.clock import Clock
from worldloom.planners.objectives import Constraint, Decoded
from worldloom.planners.planner import Others, rank

UP = Constraint(Decoded(lambda seen: seen["state"][..., 1].amax(1), ("state",)), 0.6)


def candidates(count: int, horizon: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(len(STARTS), count, horizon, 2, generator=generator) * 2 - 1


def test_candidates_of_one_belief_are_scored_from_that_belief() -> None:
    asked, pool = problem(Plane()), candidates(5)
    scores, states = asked.score(pool)
    assert scores.shape == (4, 5)
    for row in range(4):
        alone, trajectories = problem(Plane(), starts=torch.tensor(STARTS[row : row + 1])).score(pool[row : row + 1])
        assert torch.allclose(alone[0], scores[row])
        assert torch.allclose(trajectories.features, states.features[5 * row : 5 * row + 5])


def test_what_keeps_the_limits_ranks_first_then_what_exceeds_them_least() -> None:
    values = torch.tensor([[5.0, 1.0, 9.0, -math.inf, 7.0]])
    excess = torch.tensor([[0.0, 0.0, 2.0, 0.0, 1.0]])
    assert rank(values, excess).argsort(1, descending=True).tolist() == [[0, 1, 4, 2, 3]]


def test_where_every_candidate_breaks_the_limits_the_least_breach_wins() -> None:
    values, excess = torch.tensor([[5.0, 1.0, 9.0]]), torch.tensor([[3.0, 0.5, 2.0]])
    assert rank(values, excess).argmax() == 1


def test_a_cost_that_is_not_finite_loses_the_candidate() -> None:
    broken = Constraint(Decoded(lambda seen: seen["state"][:, -1, 0] / 0, ("state",)), 0.0)
    scores, _ = problem(Plane(), constraints=(broken,)).score(candidates(6))
    assert ((scores == -math.inf) | scores.isfinite()).all()
    assert (scores == -math.inf).any()


@pytest.mark.parametrize("constraints", [(), (UP,)])
def test_judging_in_time_is_judging_as_far_as_it_goes(constraints: tuple[Constraint, ...]) -> None:
    pool, world = candidates(32), Plane()
    values, excess, states = problem(world, constraints=constraints).evaluate(pool)
    for deadline, least, most in ((4 * 32 * 3 * 0.6, 16, 19), (1e-3, 2, 2), (1e6, 32, 32)):
        asked = problem(world, constraints=constraints, clock=Clock(deadline, Ticks(world)))
        some, more, trajectories = asked.evaluate_in_time(pool)
        count = some.shape[1]
        assert least <= count <= most
        assert torch.allclose(some, values[:, :count])
        assert torch.allclose(
            trajectories.features.unflatten(0, (4, count)), states.features.unflatten(0, (4, 32))[:, :count]
        )
        assert (more is None) == (excess is None)


class Counting(Plane):
    """Remembers how many candidates it was asked about at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def imagine(self, state: State, actions: torch.Tensor, noise: Noise = NOISE) -> State:
        self.asked.append(len(actions) // len(STARTS))
        return super().imagine(state, actions)


def test_only_the_first_decision_feels_its_way() -> None:
    world, pool = Counting(), candidates(32)
    for _ in range(2):
        problem(world, clock=Clock(1e6, Ticks(world))).evaluate_in_time(pool)
    assert world.asked == [4, 28, 32]


def test_what_a_call_costs_however_small_it_is_does_not_make_pools_small_for_ever() -> None:
    """A call takes as long as 30 candidates and there is time for 32: pools are small, but must not keep shrinking."""
    world, pool = Counting(), candidates(64)
    candidate, ticks = 4 * 3, Ticks(world)  # milliseconds: beliefs times steps

    def now() -> float:
        return ticks() + 30 * candidate * len(world.asked) / 1000

    counts = [problem(world, clock=Clock(32 * candidate, now)).evaluate_in_time(pool)[0].shape[1] for _ in range(12)]
    assert min(counts) >= 5, counts


def test_pools_that_share_the_time_are_small_and_many() -> None:
    world, pool = Counting(), candidates(64)
    per_candidate = 4 * 3  # ticks: beliefs times steps
    problem(world, clock=Clock(1e6, Ticks(world))).evaluate_in_time(pool)
    for left, least, most in ((1, 40, 48), (4, 10, 12), (50, 8, 10)):
        clock = Clock(48 * per_candidate, Ticks(world))
        values, _, _ = problem(world, clock=clock).evaluate_in_time(pool, left)
        assert least <= values.shape[1] <= most, left


def test_rounds_stop_before_the_deadline() -> None:
    time = [0.0]
    asked = problem(Plane(), clock=Clock(100.0, lambda: time[0]))
    done = []
    for number in asked.rounds(50):
        done.append(number)
        time[0] += 0.030
    assert done == [0, 1, 2]
    time[0] = 0.0
    for number in problem(Plane(), clock=Clock(1.0, lambda: time[0])).rounds(50):
        assert number == 0, "only the first is carried out whatever it takes"
        time[0] += 0.030


def test_a_share_of_the_clock_ends_earlier_and_counts_together() -> None:
    time = [0.0]
    clock = Clock(100.0, lambda: time[0])
    time[0] = 0.020
    part = clock.share(4)
    assert part.deadline == pytest.approx(40)
    assert part.elapsed == pytest.approx(20)
    with part.section("imagine"):
        time[0] += 0.005
    assert clock.sections == {"imagine": pytest.approx(5)}
    assert Clock(None).share(3).deadline is None


@pytest.mark.parametrize("deadline", [0.0, -1.0, math.nan])
def test_a_deadline_in_the_past_is_refused(deadline: float) -> None:
    with pytest.raises(UserError, match="deadline"):
        Clock(deadline)


def test_the_declared_range_is_the_unit_range_and_an_empty_one_is_zero() -> None:
    action = ActionSpec("continuous", 3, low=(-2.0, 0.0, 4.0), high=(2.0, 1.0, 4.0))
    bounds = Bounds.of(action)
    assert bounds.low.tolist() == [-1, -1, 0]
    assert bounds.high.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("action", "low", "high", "said"),
    [
        (ActionSpec("continuous", 2), None, None, "declare no action range"),
        (ActionSpec("continuous", 2), -1.0, None, "declare no action range"),
        (ActionSpec("continuous", 2, low=(1.0, 0.0), high=(0.0, 1.0)), None, None, "must not lie above"),
        (ActionSpec("continuous", 2), 1.0, -1.0, "low must lie below high"),
        (ActionSpec("continuous", 2), 0.0, 0.0, "low must lie below high"),
        (ActionSpec("continuous", 2), -math.inf, 1.0, "both finite"),
        (ActionSpec("continuous", 2), math.nan, 1.0, "both finite"),
        (ActionSpec("continuous", 2), (0.0, 0.0, 0.0), 1.0, "low has 3 numbers"),
        (ActionSpec("discrete", 2), None, None, "categorical"),
    ],
)
def test_bounds_that_are_missing_or_inverted_are_refused(action, low, high, said) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=said):
        Bounds.of(action, low, high)


def test_undeclared_actions_may_have_any_given_range() -> None:
    bounds = Bounds.of(ActionSpec("continuous", 2), (-3.0, 0.0), [5.0, 1.0])
    assert bounds.clip(torch.tensor([-9.0, 9.0])).tolist() == [-3, 1]


def test_where_others_may_do_several_things_the_worst_counts() -> None:
    pool = candidates(6)[..., :1]
    possible = tuple(torch.full((4, 3, 2), push) for push in (-1.0, 0.5))
    asked = problem(Plane(), others=Others((0,), possible))
    assert asked.action == ActionSpec("continuous", 1, ("x",), (-1.0,), (1.0,))
    each = [problem(Plane()).evaluate(torch.cat([pool, p[:, None, :, 1:].expand_as(pool)], -1))[0] for p in possible]
    assert torch.allclose(asked.evaluate(pool)[0], torch.minimum(*each))
