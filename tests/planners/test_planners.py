"""What every planner promises, for every registered planner; and that the promises can be broken."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from tests.planners.planners import CASES, Case
from worldloom.errors import UserError
from worldloom.planners import PLANNERS, check
from worldloom.planners.check import OBJECTIVE, STARTS, Plane, check_planner, problem
from worldloom.planners.clock import Clock
from worldloom.planners.objectives import Decoded
from worldloom.planners.planner import Plan, Planner, Problem

every = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def test_every_registered_planner_is_tested() -> None:
    assert set(CASES) == set(PLANNERS)
    assert all(type(CASES[name].planner) is PLANNERS[name] for name in PLANNERS)


@every
def test_every_row_of_a_batch_is_solved(case: Case) -> None:
    check.check_solves(case.planner, Plane(case.discrete), case.ours)


@every
def test_bounds_are_never_left(case: Case) -> None:
    check.check_bounds(case.planner, Plane(case.discrete))


@every
def test_the_plan_carries_its_own_trajectory_and_score(case: Case) -> None:
    check.check_trajectory(case.planner, Plane(case.discrete))


@every
def test_the_same_seed_gives_the_same_plan_even_in_a_world_that_samples(case: Case) -> None:
    check.check_seed(case.planner, Plane(case.discrete, spread=0.1))


@every
def test_another_seed_gives_another_search(case: Case) -> None:
    noisy = Plane(case.discrete, spread=0.1)
    one, other = (case.planner.plan(problem(noisy, seed=seed)) for seed in (0, 1))
    assert not torch.equal(one.score, other.score)


@every
def test_rows_do_not_influence_each_other(case: Case) -> None:
    starts = torch.tensor(STARTS)
    elsewhere = starts.clone()
    elsewhere[1] = torch.tensor([5.0, -7.0])
    one, other = (case.planner.plan(problem(Plane(case.discrete), starts=start)) for start in (starts, elsewhere))
    assert torch.equal(one.actions[[0, 2, 3]], other.actions[[0, 2, 3]])
    assert not torch.equal(one.actions[1], other.actions[1])


@every
def test_a_warm_start_is_not_lost(case: Case) -> None:
    check.check_warm_start(case.planner, Plane(case.discrete), case.ours)


@every
def test_constraints_are_kept(case: Case) -> None:
    check.check_constraints(case.planner, Plane(case.discrete), case.ours)


@every
def test_a_deadline_is_kept(case: Case) -> None:
    check.check_deadline(case.planner, Plane(case.discrete))


@every
def test_more_time_is_never_worse_in_expectation(case: Case) -> None:
    check.check_budget(case.planner, Plane(case.discrete), case.ours)


@every
def test_where_nothing_is_finite_the_plan_falls_back_and_says_so(case: Case) -> None:
    check.check_fallback(case.planner, Plane(case.discrete), case.ours)


@every
def test_an_objective_that_is_never_finite_raises_nothing(case: Case) -> None:
    lost = Decoded(lambda seen: seen["state"].sum(-1) * torch.nan, ("state",))
    plan = case.planner.plan(replace(problem(Plane(case.discrete)), objective=lost))
    assert not plan.found.any()
    assert plan.actions.isfinite().all()


@every
def test_the_callers_grad_mode_does_not_matter(case: Case) -> None:
    plans = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            plans.append(case.planner.plan(problem(Plane(case.discrete))))
    assert not plans[0].actions.requires_grad
    assert torch.equal(plans[0].actions, plans[1].actions)
    assert torch.equal(plans[0].actions, plans[2].actions)


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "gradient", "categorical"])
def test_every_further_iteration_keeps_the_best_so_far(name: str) -> None:
    planner, world = CASES[name].planner, Plane(CASES[name].discrete)
    scores = [replace(planner, iterations=n).plan(problem(world)).score for n in (1, 2, 3, 4)]  # type: ignore[call-arg]
    for less, more in itertools.pairwise(scores):
        assert (more >= less - 1e-5).all()


@every
def test_a_warm_start_of_another_shape_is_refused(case: Case) -> None:
    with pytest.raises(UserError, match="warm is"):
        case.planner.plan(problem(Plane(case.discrete), warm=torch.zeros(len(STARTS), 9, 2)))


@every
def test_the_other_kind_of_action_is_refused(case: Case) -> None:
    with pytest.raises(UserError, match="discrete"):
        case.planner.plan(problem(Plane(not case.discrete)))


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "categorical"])
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("horizon", 0, "horizon"), ("samples", 0, "samples"), ("elites", 1000, "elites"), ("iterations", 0, "iterations")],
)
def test_impossible_numbers_are_refused(name: str, field: str, value: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(CASES[name].planner, **{field: value})  # type: ignore[arg-type]


def test_impossible_numbers_of_the_gradient_planner_are_refused() -> None:
    planner = CASES["gradient"].planner
    for field, value in (("horizon", 0), ("samples", 0), ("restarts", 1000), ("iterations", 0)):
        with pytest.raises(UserError):
            replace(planner, **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "gradient"])
def test_narrower_bounds_are_kept_and_wrong_ones_refused(name: str) -> None:
    planner, world = CASES[name].planner, Plane()
    plan = replace(planner, low=(0.1, -1.0), high=0.3).plan(problem(world))  # type: ignore[call-arg]
    assert plan.actions[..., 0].min() >= 0.1 - 1e-6
    assert plan.actions.max() <= 0.3 + 1e-6
    for low, high, said in ((0.5, 0.1, "low must lie below high"), (-2.0, 2.0, "model units"), ((0.0,), 1.0, "1 numb")):
        with pytest.raises(UserError, match=said):
            replace(planner, low=low, high=high).plan(problem(world))  # type: ignore[call-arg]


def test_one_belief_and_one_step_are_enough() -> None:
    for name, case in CASES.items():
        inner = getattr(case.planner, "inner", case.planner)
        short = replace(inner, horizon=1)
        planner = replace(case.planner, inner=short) if name == "adversarial" else short  # type: ignore[call-arg]
        plan = planner.plan(problem(Plane(case.discrete), starts=torch.tensor(STARTS[:1])))
        assert plan.actions.shape[:2] == (1, 1)


@dataclass(frozen=True)
class Broken(Planner):
    """CEM, spoilt by `spoil(problem, plan)`."""

    spoil: Callable[[Problem, Plan], Plan]
    horizon: int = 4

    def plan(self, problem: Problem) -> Plan:
        return self.spoil(problem, CASES["cem"].planner.plan(problem))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda problem, plan: replace(plan, actions=-plan.actions),
        lambda problem, plan: replace(plan, actions=plan.actions * 1.01),
        lambda problem, plan: replace(plan, score=plan.score + 1),
        lambda problem, plan: replace(plan, found=torch.ones_like(plan.found)),
        lambda problem, plan: replace(plan, spread=torch.rand_like(plan.spread)),
        lambda problem, plan: CASES["cem"].planner.plan(replace(problem, warm=None)),
        lambda problem, plan: CASES["cem"].planner.plan(replace(problem, constraints=())),
        lambda problem, plan: CASES["cem"].planner.plan(replace(problem, clock=Clock(None, problem.clock.now))),
        lambda problem, plan: plan[torch.zeros(len(plan.score), dtype=torch.long)],
    ],
    ids=["backwards", "bounds", "score", "found", "random", "warm", "constraints", "deadline", "rows"],
)
def test_the_conformance_suite_finds_what_is_broken(spoil: Callable[[Problem, Plan], Plan]) -> None:
    with pytest.raises(AssertionError):
        check_planner(Broken(spoil))


def test_the_conformance_suite_passes_a_good_planner() -> None:
    check_planner(CASES["cem"].planner)
    check_planner(CASES["categorical"].planner, discrete=True)
    assert OBJECTIVE.discount == 1
