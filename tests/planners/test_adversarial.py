"""Others that hurt us as far as they plausibly would, and answers that hold against the worst of it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.planners.planners import CASES
from worldloom.errors import UserError
from worldloom.model import State
from worldloom.planners.adversarial import Adversarial, GaussianLogProbability
from worldloom.planners.check import Plane, Position, problem
from worldloom.planners.gradient import Gradient
from worldloom.planners.objectives import Constraint, Decoded
from worldloom.planners.planner import Plan, Problem

CEM = CASES["cem"].planner
HORIZON = CEM.horizon
STD = 0.5


def attacked(warm: Tensor | None = None, **given: object) -> Plan:
    """What hurts a plan that stays at the start most."""
    warm = torch.zeros(4, HORIZON, 2) if warm is None else warm
    planner = Adversarial(CEM, theirs=("y",), replies=False, **given)  # type: ignore[arg-type]
    return planner.plan(problem(Plane(), warm=warm))


def cost_of(push: Tensor) -> Tensor:
    """The score of everyone staying but them, who push y by `[B, H]`."""
    asked = problem(Plane())
    actions = torch.stack([torch.zeros_like(push), push], -1)
    return asked.evaluate(actions[:, None])[0][:, 0]


def test_the_worst_hurts_and_is_as_likely_as_promised() -> None:
    plan = attacked(std=STD)
    theirs = plan.actions[..., 1:]
    gaussian = GaussianLogProbability(STD)
    assert plan.found.all()
    assert (plan.score < cost_of(torch.zeros(4, HORIZON))).all()
    assert (gaussian(plan.states, theirs) >= gaussian.least(HORIZON) - 1e-3).all()


def test_the_worst_is_at_least_as_bad_as_pushing_on_with_all_that_is_likely() -> None:
    away = torch.sign(problem(Plane()).state.features[:, 1:]) * STD
    plain = cost_of(away.expand(-1, HORIZON))
    assert (attacked(std=STD).score <= plain + 0.02 * plain.abs()).all()


def test_the_less_likely_they_may_be_the_more_they_hurt() -> None:
    mild, wild = attacked(std=0.2).score, attacked(std=0.6).score
    assert (wild < mild - 0.05).all()


def test_a_limit_of_ones_own_is_kept() -> None:
    limit = GaussianLogProbability(STD).least(HORIZON) - 2.0
    plan = attacked(std=STD, limit=limit)
    assert (GaussianLogProbability(STD)(plan.states, plan.actions[..., 1:]) >= limit - 1e-3).all()
    assert (plan.score < attacked(std=STD).score).all()


def test_a_log_probability_of_ones_own_is_kept() -> None:
    def only_up(states: State, theirs: Tensor) -> Tensor:
        return -theirs.clamp(max=0).abs().sum((1, 2)) - (theirs - 0.3).clamp(min=0).sum((1, 2))

    plan = attacked(log_probability=only_up, limit=-0.01)
    theirs = plan.actions[..., 1]
    assert plan.found.all()
    assert theirs.min() >= -0.011
    assert theirs.max() <= 0.311


def test_where_nothing_they_do_is_likely_enough_nothing_is_found() -> None:
    plan = attacked(log_probability=lambda states, theirs: torch.full((len(theirs),), -9.0), limit=-1.0)
    assert not plan.found.any()
    assert (plan.actions == 0).all()


def test_a_fixed_plan_stays_as_it_is() -> None:
    warm = torch.rand(4, HORIZON, 2)
    plan = attacked(warm)
    assert torch.equal(plan.actions[..., 0], warm[..., 0])
    assert not torch.equal(plan.actions[..., 1], warm[..., 1])


def test_a_fixed_plan_beyond_the_range_is_attacked_where_it_can_be() -> None:
    plan = attacked(torch.full((4, HORIZON, 2), 3.0))
    assert (plan.actions[..., 0] == 1).all()


def hiding() -> Problem:
    """We want to end as far to the right as they end from the middle, and they may stay there or leave it."""
    apart = Decoded(lambda seen: -(seen["state"][:, -1, 0] - seen["state"][:, -1, 1].abs()).square(), ("state",))
    starts = torch.tensor([[0.5, 0.0], [-0.75, 0.0]])
    return replace(problem(Plane(), starts=starts), objective=apart)


def test_the_reply_holds_against_all_that_they_may_do() -> None:
    plan = Adversarial(CEM, theirs=("y",), rounds=4, std=STD).plan(hiding())
    ours = plan.states.features[:, -1, 0]
    farthest = STD * 0.25 * HORIZON
    assert (ours - farthest / 2).abs().max() < 0.1, "half way the worst case is least; replying to either end is wrong"
    assert (plan.score >= -((farthest / 2 + 0.1) ** 2)).all()


def test_more_rounds_do_not_make_the_worst_case_worse() -> None:
    """Scored by the hardest attack on each plan."""
    worst = []
    for rounds in (1, 4):
        ours = Adversarial(CEM, theirs=("y",), rounds=rounds, std=STD).plan(hiding())
        attack = Adversarial(CEM, theirs=("y",), replies=False, std=STD)
        worst.append(attack.plan(replace(hiding(), warm=ours.actions)).score)
    assert (worst[1] >= worst[0] - 1e-3).all()
    assert (worst[1] > worst[0] + 0.05).any()


def test_they_attack_our_limits_too() -> None:
    """Nothing is to be gains_of but y may not rise: so they raise it."""
    nothing = Decoded(lambda seen: 0 * seen["state"][..., 0], ("state",))
    limit = Constraint(Decoded(lambda seen: seen["state"][:, -1, 1], ("state",)), 0.2)
    asked = replace(
        problem(Plane(), starts=torch.zeros(1, 2), warm=torch.zeros(1, HORIZON, 2)),
        objective=nothing,
        constraints=(limit,),
    )
    plan = Adversarial(CEM, theirs=("y",), replies=False, std=STD).plan(asked)
    assert limit.excess(asked.model, plan.states, plan.actions) > 0.2


def test_gradients_search_both_sides_too() -> None:
    inner = Gradient(HORIZON, samples=16, restarts=4, iterations=15)
    plan = Adversarial(inner, theirs=("y",), rounds=3, std=STD).plan(hiding())
    assert plan.found.all()
    assert (plan.states.features[:, -1, 0] - 0.25).abs().max() < 0.1


@pytest.mark.parametrize("theirs", [("y",), (1,), (-1,), slice(1, 2), slice(1, None)])
def test_a_name_an_index_and_a_slice_mean_the_same(theirs: slice | tuple[str | int, ...]) -> None:
    plan = Adversarial(CEM, theirs=theirs, rounds=1).plan(problem(Plane()))
    same = Adversarial(CEM, theirs=("y",), rounds=1).plan(problem(Plane()))
    assert torch.equal(plan.actions, same.actions)


@pytest.mark.parametrize(
    ("theirs", "said"),
    [((), "0 of the 2"), (slice(0, 2), "2 of the 2"), (("z",), "unknown number"), ((2,), "0 to 1")],
)
def test_an_impossible_part_is_refused(theirs: slice | tuple[str | int, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Adversarial(CEM, theirs=theirs).plan(problem(Plane()))


def test_what_cannot_be_attacked_is_refused() -> None:
    with pytest.raises(UserError, match="warm"):
        Adversarial(CEM, theirs=("y",), replies=False).plan(problem(Plane()))
    with pytest.raises(UserError, match="inner"):
        Adversarial(Adversarial(CEM, theirs=(0,)), theirs=(1,))
    with pytest.raises(UserError, match="limit"):
        Adversarial(CEM, theirs=("y",), log_probability=GaussianLogProbability(1.0))
    with pytest.raises(UserError, match="log-probability is"):
        attacked(log_probability=lambda states, theirs: theirs.sum(-1), limit=0.0)
    for wrong in ({"rounds": 0}, {"std": 0.0}, {"limit": float("nan")}):
        with pytest.raises(UserError):
            Adversarial(CEM, theirs=("y",), **wrong)  # type: ignore[arg-type]


def test_beliefs_of_one_batch_meet_their_own_adversary() -> None:
    """Four rows at once are as badly hurt as each alone."""
    together = attacked(std=STD).score
    world = Plane()
    planner = Adversarial(CEM, theirs=("y",), replies=False, std=STD)
    for row, start in enumerate(problem(world).state.features):
        alone = Problem(world, Position(start[None]), problem(world).objective, warm=torch.zeros(1, HORIZON, 2))
        assert torch.allclose(planner.plan(alone).score, together[row], rtol=0.03)
