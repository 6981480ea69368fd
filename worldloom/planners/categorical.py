"""The cross-entropy method for discrete actions: a categorical distribution per step (Rubinstein & Kroese, 2004).

B beliefs, N candidates, K elites, H horizon, A choices.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from worldloom.errors import UserError
from worldloom.limits import Bound, at_least, between
from worldloom.nets.latent import draw
from worldloom.planners.elites import choose, settle
from worldloom.planners.planner import Plan, Planner, Problem, check_pool


@dataclass(frozen=True)
class CategoricalCEM(Planner):
    """Choices are sampled by their probabilities, which are then refitted to the elites' frequencies, and again.

    Two of the `samples` candidates are the most likely choices and the best candidate so far, which is the plan in the
    end; `policy_samples` are the prior's own trajectories. `momentum` is the share of the old probabilities that stays,
    and `floor` the share of uniform probabilities that is always mixed in, also to the warm start. The fallback is the
    first choice.
    """

    horizon: Annotated[int, at_least(1)] = 8
    samples: Annotated[int, at_least(1)] = 256
    elites: Annotated[int, at_least(1)] = 32
    iterations: Annotated[int, at_least(1)] = 5
    policy_samples: Annotated[int, at_least(0)] = 0
    momentum: Annotated[float, between(0, 1)] = 0.1
    floor: Annotated[float, Bound(above=0, high=1)] = 0.1  # keeps every probability above 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pool(self, "elites", given=2 + self.policy_samples)

    def plan(self, problem: Problem) -> Plan:
        check_discrete(problem)
        with problem.search(self.horizon) as problem:
            probs = self.mixed(to_probs(problem.warm_start(self.horizon)))
            best = most_likely(torch.zeros_like(probs))[:, None]
            given = problem.prior(self.policy_samples, self.horizon, most_likely)
            drawn = self.samples - 2 - given.shape[1]
            for number in problem.rounds(self.iterations):
                with problem.clock.section("sample"):
                    expanded = probs[:, None, ..., None].expand(-1, drawn, -1, -1, -1)
                    around = draw(expanded, problem.noise)[..., 0]
                    actions = torch.cat([most_likely(probs)[:, None], best, given, around], 1)
                elites = choose(problem, actions, self.elites, self.iterations - number)
                with problem.clock.section("refit"):
                    frequencies = torch.lerp(elites.actions.mean(1), probs, self.momentum)
                    probs, best = self.mixed(frequencies), elites.best
            std = (probs * (1 - probs)).sqrt()
            fallback = most_likely(torch.zeros_like(probs[0]))
            return settle(problem, elites, std, number + 1, fallback)

    def mixed(self, probs: Tensor) -> Tensor:
        return probs * (1 - self.floor) + self.floor / probs.shape[-1]


def check_discrete(problem: Problem) -> None:
    """Raise `UserError` unless the action is one choice."""
    if problem.action.kind != "discrete":
        raise UserError(
            "the action is continuous, and this planner searches discrete ones: use 'cem', 'icem' or 'mppi'"
        )
    if problem.others is not None:
        raise UserError("a discrete action is one choice and has no part that belongs to others")


def most_likely(probs: Tensor) -> Tensor:
    """The most likely choice as one-hot `[..., A]`; the first one where all are equal."""
    return one_hot(probs.argmax(-1), probs.shape[-1]).to(probs)


def to_probs(warm: Tensor) -> Tensor:
    """A warm start as probabilities; rows without any choice, past the end of the last plan, are uniform."""
    weights = warm.clamp(min=0)
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights / total.clamp(min=1e-6), 1 / warm.shape[-1])
