"""Model-predictive path integral control with a policy prior, as TD-MPC2 plans (Hansen et al., 2024, algorithm 1).

B beliefs, N candidates, P of them from the prior, K elites, H horizon, A action size.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.model import Policy, State, WorldModel, dream
from worldloom.planners.planner import Bounds, Plan, Planner, Problem, check_horizon


@dataclass(frozen=True)
class MPPI(Planner):
    """Candidates drawn around a mean, elites weighed by `exp(temperature * score)`, mean and width moved to theirs.

    The defaults are TD-MPC2's. `policy_samples` of the `samples` candidates are the prior's own trajectories. The plan
    is the best candidate of the last iteration, which the current mean is one of. `low` and `high` narrow the bounds.
    """

    horizon: int = 3
    samples: int = 512
    elites: int = 64
    iterations: int = 6
    policy_samples: int = 24
    temperature: float = 0.5
    min_std: float = 0.05
    max_std: float = 2.0
    low: tuple[float, ...] | float | None = None
    high: tuple[float, ...] | float | None = None

    def __post_init__(self) -> None:
        check_horizon(self.horizon)

    def plan(self, problem: Problem) -> Plan:
        spec, clock = problem.model.spec.action, problem.clock
        bounds = Bounds.of(spec, self.low, self.high)
        batch, horizon, size = problem.batch, self.horizon, spec.size
        generator = problem.generator()
        mean = problem.state.features.new_zeros(batch, horizon, size) if problem.warm is None else problem.warm
        std = torch.full_like(mean, self.max_std)
        given = self._from_policy(problem)
        drawn = self.samples - 1 - given.shape[1]
        done, last = 0, 0.0
        while done < self.iterations and (done == 0 or clock.allows(last)):
            began = clock.elapsed
            with clock.section("sample"):
                noise = torch.randn(batch, drawn, horizon, size, generator=generator, device=mean.device)
                around = torch.addcmul(mean[:, None], noise, std[:, None])
                actions = bounds.clip(torch.cat([mean[:, None], given, around], 1))
            scores, states = problem.score(actions)
            with clock.section("refit"):
                values, index = scores.topk(min(self.elites, self.samples), 1)
                elites = actions.gather(1, index[..., None, None].expand(-1, -1, horizon, size))
                weights = weigh(values, self.temperature)[..., None, None]
                mean = (weights * elites).sum(1)
                std = (weights * (elites - mean[:, None]).square()).sum(1).sqrt().clamp(self.min_std, self.max_std)
            done, last = done + 1, clock.elapsed - began
        best = index[:, 0]
        rows = torch.arange(batch, device=best.device)
        found = values[:, 0].isfinite()
        chosen = torch.where(found[:, None, None], elites[:, 0], 0.0)
        finite = torch.where(values.isfinite(), values, values[:, :1])
        return Plan(
            actions=bounds.clip(chosen),
            states=states[rows * self.samples + best],
            score=values[:, 0],
            spread=finite.std(1, correction=0).nan_to_num(0.0),
            std=std,
            found=found,
            iterations=torch.full((batch,), done),
            milliseconds=torch.full((batch,), clock.elapsed),
        )

    def _from_policy(self, problem: Problem) -> Tensor:
        """The prior's own trajectories `[B, P, H, A]`; none when there is no prior."""
        if problem.policy is None or not self.policy_samples:
            return problem.state.features.new_zeros(problem.batch, 0, self.horizon, problem.model.spec.action.size)
        with problem.clock.section("policy"):
            start = problem.state.repeat(self.policy_samples)
            actions = follow(problem.model, start, problem.policy, self.horizon)
        return actions.unflatten(0, (problem.batch, self.policy_samples))


def follow(model: WorldModel, state: State, policy: Policy, horizon: int) -> Tensor:
    """What a policy does inside the model from `state` `[N]`: actions `[N, H, A]`."""
    return dream(model, state, policy, horizon)[1]


def weigh(values: Tensor, temperature: float) -> Tensor:
    """Softmax weights `[B, K]` of elite scores, zero where a score is not finite, even ones where none is."""
    weights = (temperature * (values - values[:, :1])).nan_to_num(-math.inf).softmax(1)
    return weights.nan_to_num(1 / values.shape[1])
