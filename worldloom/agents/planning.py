"""An agent of a planner and a world model: observe, track the belief, plan, act.

B environments, H horizon, A action size, N beliefs of any kind.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from worldloom.agents.agent import Agent, next_seed
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.model import Obs, Policy, State, WorldModel, state
from worldloom.nets.latent import draw
from worldloom.noise import Noise, TorchNoise
from worldloom.planners.objectives import Constraint, Objective, Return
from worldloom.planners.planner import Bounds, Clock, Plan, Planner, Problem
from worldloom.runs.precision import autocast, choose_precision

# How often an exploring agent takes a uniform discrete action: the width of a converged search is zero.
ANY_CHOICE = 0.05
SMALL = 7e7  # parameters times candidates: for fewer products than that casting to bf16 takes as long as it saves


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

    The model's own policy prior, where it decodes "action", seeds the search (`use_prior`): its action plus normal
    noise of `prior_noise`, or with discrete actions any choice with that probability. `explore` adds noise as wide as
    the last search distribution, for collecting data. `deadline` is in milliseconds per decision, from the
    observation on. `precision` is that of the model's matrix products during the search: "bf16", "fp32", or "auto",
    which is bf16 where the processor has it and there is much to multiply. Beliefs and scores are fp32.

    All that model and planner sample follows from the seed of the episode, and torch's generators are left unchanged;
    rows decided together use the first row's seed. Raises `UserError` when the parts do not fit together.
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
    make_clock: Callable[[float | None], Clock] = Clock

    def __post_init__(self) -> None:
        if not 1 <= self.replan_every <= self.planner.horizon:
            raise UserError(
                f"a plan of {self.planner.horizon} steps cannot be followed for {self.replan_every}: "
                f"replan every 1 to {self.planner.horizon} steps, or plan further"
            )
        if self.precision not in ("auto", "fp32", "bf16"):
            raise UserError(f"the precision is {self.precision!r}, but it must be 'auto', 'fp32' or 'bf16'")
        Clock(self.deadline)
        self.objective.check(self.model)
        for constraint in self.constraints:
            constraint.cost.check(self.model)

    @property
    def spec(self) -> DataSpec:  # type: ignore[override]
        return self.model.spec

    @property
    def device(self) -> torch.device:
        weight = next(self.model.parameters(), None)
        return torch.device("cpu") if weight is None else weight.device

    @torch.no_grad()
    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, PlanningMemory]:
        clock = self.make_clock(self.deadline)
        batch = next(iter(obs.values())).shape[0]
        seeds = next_seed(torch.full((batch,), seed, device=self.device))
        noise = TorchNoise.seeded(int(seeds[0]), self.device)
        with clock.section("observe"):
            belief = self.model.start(obs, noise)
        return self._decide(belief, None, seeds, clock, noise)

    @torch.no_grad()
    def act(self, memory: State, obs: Obs) -> tuple[Tensor, PlanningMemory]:
        assert isinstance(memory, PlanningMemory), f"this is the memory of another agent: {type(memory).__name__}"
        clock = self.make_clock(self.deadline)
        seeds, age = next_seed(memory.seed), memory.age + 1
        noise = TorchNoise.seeded(int(seeds[0]), self.device)
        with clock.section("observe"):
            belief = self.model.observe(memory.belief, memory.action, obs, noise)
        if int(age.max()) < self.replan_every:
            action = self._explored(at(memory.plan.actions, age), at(memory.plan.std, age), noise)
            return action, replace(memory, belief=belief, action=action, age=age, seed=seeds)
        return self._decide(belief, shift(memory.plan.actions, age), seeds, clock, noise)

    def _decide(
        self, belief: State, warm: Tensor | None, seed: Tensor, clock: Clock, noise: Noise
    ) -> tuple[Tensor, PlanningMemory]:
        prior = self._prior()
        # Another random stream than the one the belief was sampled from.
        problem = Problem(self.model, belief, self.objective, self.constraints, warm, prior, int(seed[0]) ^ 1, clock)
        with autocast(self.precision_for(problem.batch), self.device):
            plan = self.planner.plan(problem)
        action = self._explored(plan.actions[:, 0], plan.std[:, 0], noise)
        return action, PlanningMemory(belief, action, plan, torch.zeros_like(seed), seed)

    def precision_for(self, batch: int) -> str:
        """The precision of matrix products when `batch` environments are planned side by side: "fp32" or "bf16"."""
        if self.precision == "auto" and self._parameters * self.planner.samples * batch < SMALL:
            return "fp32"
        return choose_precision(self.precision, self.device)

    @cached_property
    def _parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def _explored(self, action: Tensor, std: Tensor, noise: Noise) -> Tensor:
        """The action `[B, A]`, plus noise of deviation `std` where the agent explores."""
        if not self.explore:
            return action
        noisy = action + std * noise.normal(action.shape, action)
        if self.spec.action.kind == "discrete":
            return any_choice(F.one_hot(noisy.argmax(-1), noisy.shape[-1]).to(action), ANY_CHOICE, noise)
        low, high = (getattr(self.planner, name, None) for name in ("low", "high"))
        return Bounds.of(self.spec.action, low, high, self.device).clip(noisy)

    def _prior(self) -> Policy | None:
        if not (self.use_prior and "action" in self.model.decodes):
            return None

        def policy(belief: State, noise: Noise) -> Tensor:
            chosen = self.model.decode(belief, "action")
            if self.spec.action.kind == "discrete":
                return any_choice(chosen, self.prior_noise, noise)
            return (chosen + self.prior_noise * noise.normal(chosen.shape, chosen)).clamp(-1, 1)

        return policy


def any_choice(one_hot: Tensor, probability: float, noise: Noise) -> Tensor:
    """One-hot choices `[N, A]`, each replaced by a uniform one with a probability."""
    drawn = draw(torch.full_like(one_hot, 1 / one_hot.shape[-1])[..., None], noise)[..., 0]
    return torch.where(noise.uniform((*one_hot.shape[:-1], 1), one_hot) < probability, drawn, one_hot)


def at(actions: Tensor, age: Tensor) -> Tensor:
    """The action `age` `[B]` steps into each plan `[B, H, A]`: `[B, A]`."""
    return actions[torch.arange(len(age), device=age.device), age.clamp(max=actions.shape[1] - 1)]


def shift(actions: Tensor, age: Tensor) -> Tensor:
    """Plans `[B, H, A]` shifted by `age` `[B]` steps, zeros after their end."""
    horizon = actions.shape[1]
    index = torch.arange(horizon, device=age.device) + age[:, None]
    moved = actions.gather(1, index.clamp(max=horizon - 1)[..., None].expand_as(actions))
    return torch.where((index < horizon)[..., None], moved, 0.0)
