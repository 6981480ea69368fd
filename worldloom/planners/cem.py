"""The cross-entropy method, as PlaNet plans with it (Hafner et al., 2019, algorithm 2; Rubinstein, 1997).

B beliefs, N candidates, K elites, H horizon, A action size.
"""

from dataclasses import dataclass
from typing import Annotated

import torch

from worldloom.limits import at_least, between
from worldloom.planners.elites import choose, settle
from worldloom.planners.planner import Plan, Planner, Problem, check_pool, check_widths


@dataclass(frozen=True)
class CEM(Planner):
    """Candidates are sampled around a mean, mean and width are refitted to the elites, and again.

    Two of the `samples` candidates are the mean and the best one so far, which is the plan in the end. `momentum` is
    the share of the old mean and width that stays. `low` and `high` narrow the bounds. A policy prior is not used.
    """

    horizon: Annotated[int, at_least(1)] = 12
    samples: Annotated[int, at_least(1)] = 512
    elites: Annotated[int, at_least(1)] = 64
    iterations: Annotated[int, at_least(1)] = 6
    momentum: Annotated[float, between(0, 1)] = 0.0
    min_std: Annotated[float, at_least(0)] = 0.05
    max_std: Annotated[float, at_least(0)] = 1.0
    low: tuple[float, ...] | float | None = None
    high: tuple[float, ...] | float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pool(self, "elites", given=2)
        check_widths(self.min_std, self.max_std)

    def plan(self, problem: Problem) -> Plan:
        bounds = problem.bounds(self.low, self.high)
        with problem.search(self.horizon) as problem:
            mean = bounds.clip(problem.warm_start(self.horizon))
            best, std = torch.zeros_like(mean)[:, None], torch.full_like(mean, self.max_std)
            for number in problem.rounds(self.iterations):
                with problem.clock.section("sample"):
                    drawn = problem.noise.normal((len(mean), self.samples - 2, *mean.shape[1:]), mean)
                    around = torch.addcmul(mean[:, None], drawn, std[:, None])
                    actions = bounds.clip(torch.cat([mean[:, None], best, around], 1))
                elites = choose(problem, actions, self.elites, self.iterations - number)
                with problem.clock.section("refit"):
                    spread, centre = torch.std_mean(elites.actions, 1, correction=0)
                    mean = torch.lerp(centre, mean, self.momentum)
                    std = torch.lerp(spread, std, self.momentum).clamp(self.min_std, self.max_std)
                    best = elites.best
            return settle(problem, elites, std, number + 1, bounds.fallback(self.horizon))
