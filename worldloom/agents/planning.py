"""A planner and a world model make an agent: look, track the belief, search, act, look again.

B environments, H horizon, A action size.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.data.spec import DataSpec
from worldloom.model import Obs, State, WorldModel, state
from worldloom.planners.objectives import Constraint, Objective, Return
from worldloom.planners.planner import Clock, Plan, Planner, Problem
from worldloom.training.precision import autocast, choose_precision


@state
class PlanningMemory(State):
    """The belief `[B]`, the action just taken `[B, A]`, the plan it came from, its age in steps and the seed, `[B]`."""

    belief: State
    action: Tensor
    plan: Plan
    age: Tensor
    seed: Tensor

    @property
    def features(self) -> Tensor:
        return self.belief.features


@dataclass(frozen=True)
class PlanningAgent(Agent):
    """Model-predictive control. Each plan is followed for `replan_every` steps, then shifted and searched again.

    The model's own policy prior, where it decodes "action", seeds the search (`use_prior`). `explore` adds noise as
    wide as the last search distribution, for collecting data. `deadline` is in milliseconds per decision. `precision`
    is that of the model's matrix products during the search, "auto", "bf16" or "fp32"; beliefs and scores are fp32.
    """

    model: WorldModel
    planner: Planner
    objective: Objective = field(default_factory=Return)
    constraints: tuple[Constraint, ...] = ()
    replan_every: int = 1
    deadline: float | None = None
    use_prior: bool = True
    prior_noise: float = 0.3
    explore: bool = False
    precision: str = "auto"

    def __post_init__(self) -> None:
        self.objective.check(self.model)
        for constraint in self.constraints:
            constraint.cost.check(self.model)

    @property
    def spec(self) -> DataSpec:  # type: ignore[override]
        return self.model.spec

    @torch.no_grad()
    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, PlanningMemory]:
        belief = self.model.start(obs)
        seeds = torch.full((belief.features.shape[0],), seed)
        return self._decide(belief, None, seeds)

    @torch.no_grad()
    def act(self, memory: State, obs: Obs) -> tuple[Tensor, PlanningMemory]:
        assert isinstance(memory, PlanningMemory), f"this is the memory of another agent: {type(memory).__name__}"
        belief = self.model.observe(memory.belief, memory.action, obs)
        age = memory.age + 1
        if int(age.max()) < self.replan_every:
            action = at(memory.plan.actions, age)
            return action, replace(memory, belief=belief, action=action, age=age)
        return self._decide(belief, shift(memory.plan.actions, age), memory.seed + 1)

    def _decide(self, belief: State, warm: Tensor | None, seed: Tensor) -> tuple[Tensor, PlanningMemory]:
        clock = Clock(self.deadline)
        problem = Problem(
            self.model, belief, self.objective, self.constraints, warm, self._prior(), int(seed[0]), clock
        )
        with autocast(choose_precision(self.precision, problem.device), problem.device):
            plan = self.planner.plan(problem)
        action = plan.actions[:, 0]
        if self.explore:
            action = (action + plan.std[:, 0] * torch.randn_like(action)).clamp(-1, 1)
        return action, PlanningMemory(belief, action, plan, torch.zeros_like(seed), seed)

    def _prior(self):
        if not (self.use_prior and "action" in self.model.decodes):
            return None

        def policy(belief: State) -> Tensor:
            mean = self.model.decode(belief, "action")
            return (mean + self.prior_noise * torch.randn_like(mean)).clamp(-1, 1)

        return policy


def at(actions: Tensor, age: Tensor) -> Tensor:
    """The action that is `age` `[B]` steps into each plan `[B, H, A]`: `[B, A]`."""
    return actions[torch.arange(len(age)), age.clamp(max=actions.shape[1] - 1)]


def shift(actions: Tensor, age: Tensor) -> Tensor:
    """Plans `[B, H, A]` moved on by `age` `[B]` steps; what comes after their end is zero."""
    horizon = actions.shape[1]
    index = torch.arange(horizon) + age[:, None]
    moved = actions.gather(1, index.clamp(max=horizon - 1)[..., None].expand_as(actions))
    return torch.where((index < horizon)[..., None], moved, 0.0)
