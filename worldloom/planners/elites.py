"""The steps that sampling planners share: candidates of a pool, its best ones, and the plan of the best one.

B beliefs, N candidates per belief, K elites, H horizon, A action size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.model import State
from worldloom.planners.planner import Plan, Problem, conclude


@dataclass(frozen=True)
class Elites:
    """The best K of a pool, best first: actions `[B, K, H, A]` and scores `[B, K]`; states `[B * N, H]` of the pool.

    `index` `[B]` is where in the pool's states the best one of each belief is.
    """

    actions: Tensor
    scores: Tensor
    states: State
    index: Tensor

    @property
    def best(self) -> Tensor:
        """`[B, 1, H, A]`: a candidate of the next pool too, so that more iterations never lose it."""
        return self.actions[:, :1]


def choose(problem: Problem, actions: Tensor, count: int, first: bool) -> Elites:
    """Score a pool `[B, N, H, A]` and keep its best `count`. The `first` pool shrinks if the deadline asks for it."""
    scores, states = problem.score_in_time(actions) if first else problem.score(actions)
    with problem.clock.section("refit"):
        batch, pool = scores.shape
        values, order = scores.topk(min(count, pool), 1)
        chosen = actions.gather(1, order[..., None, None].expand(-1, -1, *actions.shape[2:]))
        index = torch.arange(0, batch * pool, pool, device=order.device) + order[:, 0]
        return Elites(chosen, values, states, index)


def settle(problem: Problem, elites: Elites, std: Tensor, iterations: int, rest: Tensor) -> Plan:
    """The plan of the best elite; `rest` `[H, A]` is the fallback."""
    finite = torch.where(elites.scores.isfinite(), elites.scores, elites.scores[:, :1])
    return conclude(
        problem,
        actions=elites.actions[:, 0],
        states=elites.states[elites.index],
        score=elites.scores[:, 0],
        spread=finite.std(1, correction=0),
        std=std,
        iterations=iterations,
        rest=rest,
    )
