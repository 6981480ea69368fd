"""Planning by gradient: Adam on the actions, through the imagined future (Henaff et al., 2017; Kingma & Ba, 2015).

B beliefs, N candidates, R restarts, H horizon, A action size.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from worldloom.errors import UserError
from worldloom.limits import at_least
from worldloom.model import State
from worldloom.planners.bounds import Bounds
from worldloom.planners.elites import Elites, choose, spread_of
from worldloom.planners.planner import Plan, Planner, Problem, check_pool, conclude, rank

DECAYS = (0.9, 0.999)
BACKWARD = 4.0  # how many times as long as the evaluation of a pool a step with its gradient may take


@dataclass(frozen=True)
class Gradient(Planner):
    """Gradient ascent from the best `restarts` of a random pool, clipped to the bounds; the best point is the plan.

    The first iteration scores a pool of `samples`: the warm start, zeros, `policy_samples` trajectories of the prior,
    and uniform samples within the bounds. Every later one is a step of about `learning_rate / sqrt(step)` in each
    number. A broken constraint costs `penalty` per unit during the ascent; points that keep the constraints win in the
    end. The model's parameters get no gradient. Raises `UserError` when no gradient leads from the objective to the
    actions.
    """

    horizon: Annotated[int, at_least(1)] = 12
    samples: Annotated[int, at_least(1)] = 64
    restarts: Annotated[int, at_least(1)] = 8
    iterations: Annotated[int, at_least(1)] = 30
    policy_samples: Annotated[int, at_least(0)] = 4
    learning_rate: Annotated[float, at_least(0)] = 0.2
    penalty: Annotated[float, at_least(0)] = 10.0
    low: tuple[float, ...] | float | None = None
    high: tuple[float, ...] | float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pool(self, "restarts", given=1 + self.policy_samples)

    @torch.inference_mode(False)
    def plan(self, problem: Problem) -> Plan:
        bounds = problem.bounds(self.low, self.high)
        # A belief made in inference mode cannot be differentiated through; a copy made outside of it can.
        problem = replace(problem, state=problem.state.clone())
        with problem.search(self.horizon) as problem:
            for number in problem.rounds(self.iterations, growth=BACKWARD):
                if number == 0:
                    elites = choose(problem, self._pool(problem, bounds), self.restarts)
                    points, scores, best = elites.actions, elites.scores, Best.of(elites)
                    moment, square = torch.zeros_like(points), torch.zeros_like(points)
                    continue
                pool, slope = self._climb(problem, points)
                scores, best = rank(pool[0], pool[1]), best.or_one_of(points, *pool)
                moment, square = torch.lerp(slope, moment, DECAYS[0]), torch.lerp(slope.square(), square, DECAYS[1])
                step = moment / (1 - DECAYS[0] ** number) / ((square / (1 - DECAYS[1] ** number)).sqrt() + 1e-8)
                points = bounds.clip(points + self.learning_rate / number**0.5 * step)
            spread, std = spread_of(scores.sort(1, descending=True)[0]), points.std(1, correction=0)
            fallback = bounds.fallback(self.horizon)
            return conclude(problem, best.actions, best.states, best.value, spread, std, number + 1, fallback)

    def _pool(self, problem: Problem, bounds: Bounds) -> Tensor:
        """Where to start from: `[B, N, H, A]`."""
        warm = bounds.clip(problem.warm_start(self.horizon))[:, None]
        given = problem.prior(self.policy_samples, self.horizon, bounds.clip)
        drawn = self.samples - 2 - given.shape[1]
        even = problem.noise.uniform((len(warm), drawn, *warm.shape[2:]), warm)
        fallback = bounds.fallback(self.horizon).expand_as(warm)
        return torch.cat([warm, fallback, given, bounds.low + (bounds.high - bounds.low) * even], 1)

    def _climb(self, problem: Problem, points: Tensor) -> tuple[tuple[Tensor, Tensor, State], Tensor]:
        """The points `[B, R, H, A]` scored, and their gradients, zero where not finite."""
        with torch.enable_grad():
            points = points.clone().requires_grad_()
            values, excess, states = problem.evaluate(points)
            good = values if excess is None else values - self.penalty * excess
            total = torch.where(good.isfinite(), good, 0.0).sum()
            with problem.clock.section("gradient"):
                slope = torch.autograd.grad(total, points, allow_unused=True)[0] if total.requires_grad else None
        if slope is None:
            raise UserError("no gradient leads from the objective to the actions: use 'cem' or 'icem' for this model")
        excess = torch.zeros_like(values) if excess is None else excess
        return (values.detach(), excess.detach(), states.detach()), slope.nan_to_num(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Best:
    """The best points so far: actions `[B, H, A]`, excess over the limits `[B]`, value `[B]`, states `[B, H]`."""

    actions: Tensor
    excess: Tensor
    value: Tensor
    states: State

    @classmethod
    def of(cls, elites: Elites) -> "Best":
        """The best of a pool that was only ranked; any finite point that is scored later replaces it."""
        excess = torch.full_like(elites.value, torch.inf)
        return cls(elites.actions[:, 0], excess, elites.value, elites.trajectory)

    def or_one_of(self, points: Tensor, values: Tensor, excess: Tensor, states: State) -> "Best":
        """These, or in rows where it is better the best of `points` `[B, R, H, A]`: less excess, then more value."""
        rows, chosen = torch.arange(len(points), device=points.device), rank(values, excess).argmax(1)
        value, over = values[rows, chosen], excess[rows, chosen]
        better = value.isfinite() & ((over < self.excess) | ((over == self.excess) & (value > self.value)))

        def pick(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(better.view(-1, *[1] * (new.dim() - 1)), new, old)

        kept = states[rows * points.shape[1] + chosen].where(better, self.states).clone()  # the others may go
        return Best(pick(points[rows, chosen], self.actions), pick(over, self.excess), pick(value, self.value), kept)
