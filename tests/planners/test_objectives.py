"""What plans are for: each objective by hand, their sums, and what they say about keys that are not there."""

import pytest
import torch
from torch import Tensor

from worldloom.errors import UserError
from worldloom.model import State
from worldloom.planners.cem import CEM
from worldloom.planners.check import STARTS, Plane, Position, problem
from worldloom.planners.objectives import Constraint, Decoded, Goal, Objective, Return, Weighted
from worldloom.planners.planner import Problem

PLACES = torch.tensor([[[1.0, 0.0], [0.5, 0.0]], [[0.0, 2.0], [0.0, 1.0]]])  # [N 2, H 2, 2]
ACTIONS = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.5, 0.5], [1.0, 1.0]]])


class Heads(Plane):
    """The plane with an end and a value, given by hand."""

    def __init__(self, **heads: Tensor):
        super().__init__()
        self.given = heads

    @property
    def decodes(self) -> tuple[str, ...]:
        return ("state", "reward", *self.given)

    def decode(self, state: State, key: str) -> Tensor:
        if key == "value":
            return self.given["value"]
        return self.given[key] if key in self.given else super().decode(state, key)


def scores(objective: Objective, model: Plane | None = None) -> list[float]:
    model = model or Plane()
    objective.check(model)
    return objective(model, Position(PLACES), ACTIONS).tolist()


def test_return_discounts_rewards() -> None:
    assert scores(Return(discount=0.5)) == [-1 - 0.5 * 0.25, -4 - 0.5]


def test_return_adds_what_the_model_expects_after_the_horizon() -> None:
    model = Heads(value=torch.tensor([8.0, 16.0]))
    assert scores(Return(discount=0.5), model) == [-1.125 + 2, -4.5 + 4]
    assert scores(Return(discount=0.5, use_value=False), model) == [-1.125, -4.5]


def test_what_follows_a_certain_end_does_not_count() -> None:
    model = Heads(terminated=torch.tensor([[1.0, 0.0], [0.0, 0.5]]), value=torch.tensor([8.0, 16.0]))
    assert scores(Return(discount=0.5), model) == [-1.0, -4.5 + 0.25 * 0.5 * 16]


def test_a_goal_is_nearer_or_farther() -> None:
    goal = Position(torch.tensor([[0.5, 0.0]]))
    assert scores(Goal(goal)) == [0.0, -(0.25 + 1) / 2]
    assert scores(Goal(goal, last_only=False)) == [-0.125, -(0.25 + 4) / 2 - (0.25 + 1) / 2]


def test_every_belief_has_its_own_goal_whatever_the_number_of_candidates() -> None:
    goals = Position(torch.tensor([[0.5, 0.0], [0.0, 1.0]]))
    states = Position(PLACES.repeat_interleave(3, 0))
    assert Goal(goals)(Plane(), states, ACTIONS.repeat_interleave(3, 0)).tolist() == [0.0] * 6


def test_a_plan_reaches_the_goal_of_each_row() -> None:
    goals = torch.tensor(STARTS).flip(0) * 0.5
    world, planner = Plane(), CEM(horizon=8, samples=256, elites=24, iterations=8)
    asked = Problem(world, problem(world).state, Goal(Position(goals)))
    reached = planner.plan(asked).states.features[:, -1]
    assert (reached - goals).abs().max() < 0.1


def test_goals_for_another_number_of_beliefs_are_refused() -> None:
    world, goals = Plane(), Position(torch.zeros(2, 2))
    fitting = Goal(Position(torch.zeros(4, 2)))
    for objective in (Goal(goals), Weighted(((1.0, Return()), (2.0, Goal(goals)), (1.0, fitting)))):
        with pytest.raises(UserError, match="2 rows, but 4 beliefs"):
            Problem(world, problem(world).state, objective)
    with pytest.raises(UserError, match="one belief a row"):
        Goal(Position(torch.zeros(2))).check(world)


def test_any_function_of_decoded_keys_is_an_objective() -> None:
    assert scores(Decoded(lambda seen: seen["state"][..., 0], ("state",))) == [1.5, 0.0]
    assert scores(Decoded(lambda seen: seen["state"][:, -1].sum(-1), ("state",))) == [0.5, 1.0]
    effort = Decoded(lambda seen: -seen["actions"].square().sum(-1) + seen["reward"], ("actions", "reward"))
    assert scores(effort) == [-1 - 1.25, -0.5 - 2 - 5]


@pytest.mark.parametrize("returned", [1.0, torch.zeros(2, 2, 2), torch.zeros(())])
def test_a_function_that_returns_something_else_is_refused(returned: object) -> None:
    with pytest.raises(UserError, match="function returned"):
        scores(Decoded(lambda seen: returned, ("state",)))  # type: ignore[arg-type, return-value]


def test_weights_sum() -> None:
    left, right = (Decoded(lambda seen, i=i: seen["state"][..., i], ("state",)) for i in range(2))  # type: ignore[misc]
    assert scores(Weighted(((2.0, left), (-1.0, right)))) == [3.0, -3.0]


def test_a_key_that_cannot_be_decoded_is_named_with_those_that_can() -> None:
    height = Decoded(lambda seen: seen["height"], ("height",))
    world = Plane()
    start = problem(world).state
    for objective, constraints in (
        (height, ()),
        (Weighted(((1.0, Return()), (1.0, height))), ()),
        (Return(), (Constraint(height, 1.0),)),
    ):
        with pytest.raises(UserError, match="can't decode 'height', it decodes state, reward"):
            Problem(world, start, objective, constraints)


def test_a_reward_that_the_data_did_not_have_is_missed() -> None:
    class Silent(Plane):
        @property
        def decodes(self) -> tuple[str, ...]:
            return ("state",)

    with pytest.raises(UserError, match="no reward"):
        Return().check(Silent())


def test_impossible_numbers_are_refused() -> None:
    nothing = Decoded(lambda seen: seen["state"], ())
    for make in (
        lambda: Constraint(nothing, float("nan")),
        lambda: Weighted(()).check(Plane()),
        lambda: Weighted(((float("inf"), Return()),)).check(Plane()),
        lambda: nothing.check(Plane()),
        lambda: Return(discount=1.5),
    ):
        with pytest.raises(UserError):
            make()


def test_a_constraint_counts_only_what_exceeds_its_limit() -> None:
    limit = Constraint(Decoded(lambda seen: seen["state"].amax((1, 2)), ("state",)), 1.5)
    assert limit.excess(Plane(), Position(PLACES), ACTIONS).tolist() == [0.0, 0.5]
