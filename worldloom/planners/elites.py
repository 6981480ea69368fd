"""The steps that sampling planners share: candidates of a pool, its best ones, and the plan of the best one.

B beliefs, N candidates per belief, K elites, H horizon, A action size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.model import State
from worldloom.planners.planner import Plan, Problem, conclude, rank


@dataclass(frozen=True)
class Elites:
    """The best K of a pool, best first: actions `[B, K, H, A]` and scores `[B, K]`.

    Of the best one of each belief, `trajectory` `[B, H]` are the states and `value` `[B]` is the objective's value;
    with constraints its score is only a rank.
    """

    actions: Tensor
    scores: Tensor
    value: Tensor
    trajectory: State

    @property
    def best(self) -> Tensor:
        """`[B, 1, H, A]`: a candidate of the next pool too, so that more iterations never lose it."""
        return self.actions[:, :1]


def choose(problem: Problem, actions: Tensor, count: int, left: int = 1) -> Elites:
    """Evaluate a pool `[B, N, H, A]` and keep its best `count`.

    Both shrink by the same factor under a deadline, which `left` pools share, this one among them.
    """
    values, excess, states = problem.evaluate_in_time(actions, left)
    count = -(-count * values.shape[1] // actions.shape[1])
    with problem.clock.section("refit"):
        scores = values if excess is None else rank(values, excess)
        scores, order = scores.topk(min(count, scores.shape[1]), 1)
        chosen = actions.gather(1, order[..., None, None].expand(-1, -1, *actions.shape[2:]))
        value = scores[:, 0] if excess is None else values.gather(1, order[:, :1])[:, 0]
        first = torch.arange(0, values.numel(), values.shape[1], device=order.device)
        # A copy: the pool's states are the largest tensors of a search, and must be freed before the next pool's.
        return Elites(chosen, scores, value, states[first + order[:, 0]].clone())


def settle(problem: Problem, elites: Elites, std: Tensor, iterations: int, fallback: Tensor) -> Plan:
    """The plan of the best elite, or of `fallback` `[H, A]`."""
    return conclude(
        problem,
        actions=elites.actions[:, 0],
        states=elites.trajectory,
        score=elites.value,
        spread=spread_of(elites.scores),
        std=std,
        iterations=iterations,
        fallback=fallback,
    )


def spread_of(scores: Tensor) -> Tensor:
    """The standard deviation `[B]` of the finite scores of `[B, K]`, best first; not finite where none is."""
    return torch.where(scores.isfinite(), scores, scores[:, :1]).std(1, correction=0)
