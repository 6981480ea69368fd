"""What is particular to one planner: coloured noise, the prior's trajectories, gradients, choices."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.planners.planners import CASES
from worldloom.errors import UserError
from worldloom.model import State
from worldloom.noise import NOISE, Noise
from worldloom.planners.categorical import CategoricalCEM, to_probs
from worldloom.planners.cem import CEM
from worldloom.planners.check import Plane, gains_of, problem
from worldloom.planners.clock import Clock
from worldloom.planners.gradient import Gradient
from worldloom.planners.icem import ICEM, coloured
from worldloom.planners.mppi import MPPI, weigh
from worldloom.planners.objectives import Constraint, Decoded


@pytest.mark.parametrize(
    ("planner", "settings"),
    [
        (CEM, {"min_std": 2.0}),
        (CEM, {"max_std": -1.0}),
        (CEM, {"momentum": 5.0}),
        (ICEM, {"decay": 0.0}),
        (ICEM, {"keep": float("nan")}),
        (MPPI, {"temperature": -1.0}),
        (Gradient, {"learning_rate": -0.1}),
        (CategoricalCEM, {"momentum": 1.5}),
    ],
)
def test_settings_no_search_can_have_are_refused_by_name(planner: type, settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"_std|momentum|decay|keep|temperature|learning_rate"):
        planner(**settings)


@pytest.mark.parametrize("horizon", [1, 2, 5, 8, 12])
@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0, 4.0])
def test_coloured_noise_has_unit_variance_at_every_step(horizon: int, colour: float) -> None:
    torch.manual_seed(0)
    noise = coloured(NOISE, (1, 20000, horizon, 1), colour, torch.zeros(()))
    assert noise.shape == (1, 20000, horizon, 1)
    assert torch.allclose(noise.std((0, 1, 3)), torch.ones(horizon), atol=0.03)


def test_the_redder_the_noise_the_smoother_the_candidates() -> None:
    torch.manual_seed(0)
    follows = []
    for colour in (0.0, 1.0, 2.0, 4.0):
        noise = coloured(NOISE, (1, 5000, 12, 1), colour, torch.zeros(()))
        follows.append(float((noise[:, :, 1:] * noise[:, :, :-1]).mean()))
    assert abs(follows[0]) < 0.02
    assert follows == sorted(follows)
    assert follows[-1] > 0.7


def test_icem_draws_fewer_and_fewer_candidates_but_enough_for_its_elites() -> None:
    drawn = [ICEM(samples=100, elites=20, decay=1.5).drawn(number) for number in range(6)]
    assert drawn == [98, 67, 44, 40, 40, 40]
    world = Plane()
    ICEM(4, samples=100, elites=20, decay=1.5, iterations=2, keep=0.5).plan(problem(world))
    assert world.predicted == 4 * 4 * (1 + 1 + 98 + 1 + 10 + 67)


def test_mppi_weighs_elites_by_their_scores_and_lost_ones_not_at_all() -> None:
    weights = weigh(torch.tensor([[2.0, 0.0, -torch.inf], [-torch.inf] * 3]), 0.5)
    assert torch.allclose(weights[0], torch.tensor([1.0, torch.e**-1, 0.0]) / (1 + torch.e**-1))
    assert torch.allclose(weights[1], torch.full((3,), 1 / 3))


def straight(belief: State, noise: Noise) -> Tensor:
    """A policy that knows the way."""
    return (-belief.features / 0.25).clamp(-1, 1)


@pytest.mark.parametrize(
    "planner",
    [MPPI(4, samples=8, elites=4, iterations=1, policy_samples=2), Gradient(4, samples=8, restarts=2, iterations=1)],
)
def test_a_good_prior_is_found_with_hardly_any_search(planner: MPPI | Gradient) -> None:
    world = Plane()
    without, given = (planner.plan(problem(world, policy=policy)) for policy in (None, straight))
    assert (gains_of(given, world, (0, 1)) > 0.99).all()
    assert (gains_of(without, world, (0, 1)) < 0.9).all()


def test_a_prior_that_says_nonsense_does_no_harm() -> None:
    world = Plane()

    def nonsense(belief: State, noise: Noise) -> Tensor:
        return torch.tensor([torch.nan, 1e9]).expand(len(belief.features), 2)

    plan = CASES["mppi"].planner.plan(problem(world, policy=nonsense))
    assert world.largest_action <= 1
    assert (gains_of(plan, world, (0, 1)) > 0.9).all()


def test_a_prior_of_choices_is_taken_at_its_likeliest() -> None:
    world = Plane(discrete=True)

    def right(belief: State, noise: Noise) -> Tensor:
        return torch.tensor([0.1, 0.6, 0.1, 0.1, 0.1]).expand(len(belief.features), 5)

    asked = replace(problem(world, policy=right), objective=Decoded(lambda seen: seen["state"][..., 0], ("state",)))
    plan = CategoricalCEM(6, samples=8, elites=4, iterations=1, policy_samples=1).plan(asked)
    assert (plan.actions[..., 1] == 1).all()


def test_the_gradient_planner_is_exact_where_the_optimum_is_inside() -> None:
    world = Plane()
    plan = Gradient(8, iterations=60).plan(problem(world))
    assert (gains_of(plan, world, (0, 1)) > 0.995).all()


def test_gradients_never_reach_the_models_parameters() -> None:
    world = Plane()
    world.gain = torch.nn.Parameter(torch.ones(()))
    asked = replace(
        problem(world), objective=Decoded(lambda seen: -(world.gain * seen["state"]).square().sum(-1), ("state",))
    )
    Gradient(3, iterations=4).plan(asked)
    assert world.gain.grad is None


def test_an_objective_without_a_gradient_is_refused() -> None:
    stepped = Decoded(lambda seen: seen["state"].sum(-1).round().detach(), ("state",))
    with pytest.raises(UserError, match="no gradient leads"):
        Gradient(3).plan(replace(problem(Plane()), objective=stepped))


def test_a_gradient_that_explodes_in_one_row_stays_there() -> None:
    starts = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    root = Decoded(lambda seen: -seen["state"].square().sum(-1).sqrt(), ("state",))  # no slope at the origin: nan
    plan = Gradient(4).plan(replace(problem(Plane(), starts=starts), objective=root))
    assert plan.found.all()
    assert plan.actions.isfinite().all()
    assert plan.score[1] > -0.05


def test_climbing_comes_back_within_a_limit_it_passed() -> None:
    limit = Constraint(Decoded(lambda seen: -seen["state"][..., 0].amin(1), ("state",)), -0.5)
    starts = torch.tensor([[1.0, 0.0]])
    plan = Gradient(4).plan(problem(Plane(), starts=starts, constraints=(limit,)))
    assert 0.5 <= plan.states.features[..., 0].min() < 0.6


def test_a_limit_that_cannot_be_kept_is_exceeded_as_little_as_can_be() -> None:
    limit = Constraint(Decoded(lambda seen: seen["state"][:, -1, 0], ("state",)), -2.0)
    starts = torch.tensor([[1.0, 0.0]])
    for planner in (CEM(4, samples=256, elites=24, iterations=8), Gradient(4)):
        plan = planner.plan(problem(Plane(), starts=starts, constraints=(limit,)))
        assert plan.states.features[0, -1, 0] < 0.05, "four steps left is the farthest"


def test_a_warm_start_of_choices_is_even_where_it_ends() -> None:
    warm = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    assert to_probs(warm).tolist() == [[[0.0, 1.0], [0.5, 0.5]]]


def test_no_choice_ever_dies_out() -> None:
    with pytest.raises(UserError, match="floor"):
        CategoricalCEM(floor=0.0)


def test_where_the_time_goes_is_counted() -> None:
    clock = Clock()
    CASES["mppi"].planner.plan(problem(Plane(), clock=clock, policy=straight))
    assert {"policy", "sample", "imagine", "objective", "refit"} <= set(clock.sections)
    assert sum(clock.sections.values()) <= clock.elapsed
