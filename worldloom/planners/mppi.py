"""Model-predictive path integral control with a policy prior, as TD-MPC2 plans (Hansen et al., 2024, algorithm 1).

B beliefs, N candidates, P of them from the prior, K elites, H horizon, A action size.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from worldloom.limits import at_least
from worldloom.planners.elites import choose, settle
from worldloom.planners.planner import Plan, Planner, Problem, check_pool, check_widths


@dataclass(frozen=True)
class MPPI(Planner):
    """Candidates are sampled around a mean; mean and width are refitted to the elites, and again.

    The weight of an elite is `exp(temperature * score)`.

    The defaults are TD-MPC2's. `policy_samples` of the `samples` candidates are the prior's own trajectories, two more
    are the mean and the best candidate so far, which is the plan in the end. `low` and `high` narrow the bounds.
    """

    horizon: Annotated[int, at_least(1)] = 3
    samples: Annotated[int, at_least(1)] = 512
    elites: Annotated[int, at_least(1)] = 64
    iterations: Annotated[int, at_least(1)] = 6
    policy_samples: Annotated[int, at_least(0)] = 24
    temperature: Annotated[float, at_least(0)] = 0.5
    min_std: Annotated[float, at_least(0)] = 0.05
    max_std: Annotated[float, at_least(0)] = 2.0
    low: tuple[float, ...] | float | None = None
    high: tuple[float, ...] | float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pool(self, "elites", given=2 + self.policy_samples)
        check_widths(self.min_std, self.max_std)

    def plan(self, problem: Problem) -> Plan:
        bounds = problem.bounds(self.low, self.high)
        with problem.search(self.horizon) as problem:
            mean = bounds.clip(problem.warm_start(self.horizon))
            best, std = torch.zeros_like(mean)[:, None], torch.full_like(mean, self.max_std)
            given = problem.prior(self.policy_samples, self.horizon, bounds.clip)
            drawn = self.samples - 2 - given.shape[1]
            for number in problem.rounds(self.iterations):
                with problem.clock.section("sample"):
                    noise = problem.noise.normal((len(mean), drawn, *mean.shape[1:]), mean)
                    around = torch.addcmul(mean[:, None], noise, std[:, None])
                    actions = bounds.clip(torch.cat([mean[:, None], best, given, around], 1))
                elites = choose(problem, actions, self.elites, self.iterations - number)
                with problem.clock.section("refit"):
                    weights, best = weigh(elites.scores, self.temperature)[..., None, None], elites.best
                    mean = (weights * elites.actions).sum(1)
                    std = (weights * (elites.actions - mean[:, None]).square()).sum(1).sqrt()
                    std = std.clamp(self.min_std, self.max_std)
            return settle(problem, elites, std, number + 1, bounds.fallback(self.horizon))


def weigh(values: Tensor, temperature: float) -> Tensor:
    """Softmax weights `[B, K]` of elite scores, zero where a score is not finite, uniform where none is."""
    weights = (temperature * (values - values[:, :1])).nan_to_num(-math.inf).softmax(1)
    return weights.nan_to_num(1 / values.shape[1])
