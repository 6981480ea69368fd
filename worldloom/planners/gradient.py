"""Planning by gradient: Adam on the actions, through the imagined future (Henaff et al., 2017; Kingma & Ba, 2015).

B beliefs, N candidates, R restarts, H horizon, A action size.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from worldloom.errors import UserError
from worldloom.planners.elites import choose
from worldloom.planners.planner import Plan, Planner, Problem, check_search, conclude, rank

DECAYS = (0.9, 0.999)
BACKWARD = 4.0  # how many times as long as a look at a pool a step with its gradient may take


@dataclass(frozen=True)
class Gradient(Planner):
    """The best `restarts` of a random pool climb side by side, held within the bounds; the best point ever is the plan.

    The first iteration scores a pool of `samples`: the warm start, zeros, `policy_samples` trajectories of the prior,
    and even draws from the bounds. Every later one is a step of about `learning_rate / sqrt(step)` in each number. A
    broken constraint costs `penalty` per unit on the way; in the end what keeps the constraints wins. The model's
    parameters get no gradient. Raises `UserError` when no gradient leads from the objective to the actions.
    """

    horizon: int = 12
    samples: int = 64
    restarts: int = 8
    iterations: int = 30
    policy_samples: int = 4
    learning_rate: float = 0.2
    penalty: float = 10.0
    low: tuple[float, ...] | float | None = None
    high: tuple[float, ...] | float | None = None

    def __post_init__(self) -> None:
        check_search(self.horizon, self.samples, self.restarts, self.iterations, self.policy_samples + 2)

    @torch.inference_mode(False)
    def plan(self, problem: Problem) -> Plan:
        bounds = problem.bounds(self.low, self.high)
        # A belief made in inference mode cannot be differentiated through; a copy made outside of it can.
        problem = replace(problem, state=tree_map(lambda x: x.clone() if x.is_inference() else x, problem.state))
        with problem.search(self.horizon):
            for number in problem.rounds(self.iterations, growth=BACKWARD):
                if number == 0:
                    elites = choose(problem, self._pool(problem), self.restarts, first=True)
                    points, scores, best = elites.actions, elites.scores, Best.of(elites.actions, elites.scores)
                    moment, square = torch.zeros_like(points), torch.zeros_like(points)
                    continue
                values, excess, slope = self._climb(problem, points)
                scores = rank(values, excess)
                best = best.or_one_of(points, values, excess, scores)
                moment, square = torch.lerp(slope, moment, DECAYS[0]), torch.lerp(slope.square(), square, DECAYS[1])
                step = moment / (1 - DECAYS[0] ** number) / ((square / (1 - DECAYS[1] ** number)).sqrt() + 1e-8)
                points = bounds.clip(points + self.learning_rate / number**0.5 * step)
            finite = torch.where(scores.isfinite(), scores, scores.amax(1, keepdim=True))
            spread, std = finite.std(1, correction=0), points.std(1, correction=0)
            rest = bounds.rest(self.horizon)
            return conclude(problem, best.actions, None, best.scores, spread, std, number + 1, rest)

    def _pool(self, problem: Problem) -> Tensor:
        """Where to start from: `[B, N, H, A]`."""
        bounds = problem.bounds(self.low, self.high)
        warm = bounds.clip(problem.warm_start(self.horizon))[:, None]
        given = problem.prior(self.policy_samples, self.horizon, bounds.clip)
        drawn = self.samples - 2 - given.shape[1]
        even = torch.rand(len(warm), drawn, *warm.shape[2:], device=warm.device)
        rest = bounds.rest(self.horizon).expand_as(warm)
        return torch.cat([warm, rest, given, bounds.low + (bounds.high - bounds.low) * even], 1)

    def _climb(self, problem: Problem, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values and excess `[B, R]` of the points `[B, R, H, A]`, and the way up from them, zero where it is lost."""
        with torch.enable_grad():
            points = points.clone().requires_grad_()
            values, excess, _ = problem.judge(points)
            good = values if excess is None else values - self.penalty * excess
            total = torch.where(good.isfinite(), good, 0.0).sum()
            slope = torch.autograd.grad(total, points, allow_unused=True)[0] if total.requires_grad else None
        if slope is None:
            raise UserError("no gradient leads from the objective to the actions: use 'cem' or 'icem' for this model")
        excess = torch.zeros_like(values) if excess is None else excess
        return values.detach(), excess.detach(), slope.nan_to_num(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Best:
    """The best points so far: actions `[B, H, A]`, by how much they exceed the limits `[B]`, scores `[B]`."""

    actions: Tensor
    excess: Tensor
    scores: Tensor

    @classmethod
    def of(cls, actions: Tensor, scores: Tensor) -> "Best":
        """The first of a pool that was only ranked; any finite point that is judged later takes its place."""
        return cls(actions[:, 0], torch.full_like(scores[:, 0], torch.inf), scores[:, 0])

    def or_one_of(self, points: Tensor, values: Tensor, excess: Tensor, scores: Tensor) -> "Best":
        """These, or the best of `points` `[B, R, H, A]` in the rows where it exceeds less or, as little, has more."""
        index = scores.argmax(1, keepdim=True)
        value, over = values.gather(1, index)[:, 0], excess.gather(1, index)[:, 0]
        better = value.isfinite() & ((over < self.excess) | ((over == self.excess) & (value > self.scores)))
        actions = points.gather(1, index[..., None, None].expand(-1, -1, *points.shape[2:]))[:, 0]
        return Best(
            torch.where(better[:, None, None], actions, self.actions),
            torch.where(better, over, self.excess),
            torch.where(better, value, self.scores),
        )
