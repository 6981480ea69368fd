"""Is a plan safe, and which safe plan is nearest? Both are answered for plans that end in the user's fallback.

B beliefs, N candidates, F prefix steps, H horizon, R rules, A action size. A plan is F actions of its own and then the
fallback, in closed loop, up to the horizon of the calibration. An action is accepted only together with a safe
continuation: if nothing better is found, the fallback is taken from the next step on. This is model predictive
shielding (Bastani, 2021) and the backup trajectory of predictive safety filters (Wabersich and Zeilinger, 2021), with
calibrated bounds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.model import State, WorldModel
from worldloom.noise import NOISE, Noise
from worldloom.planners.objectives import Constraint, Objective
from worldloom.planners.planner import Plan, Planner, Problem
from worldloom.safety.calibration import Calibration
from worldloom.safety.forecast import Fallback, Forecast, Forecaster


@dataclass(frozen=True)
class SafetyEvaluation:
    """The forecast of plans and its lower bounds `[N, H, R]`."""

    forecast: Forecast
    lower: Tensor

    @property
    def safe(self) -> Tensor:
        """Whether no bound of any rule at any step is below 0: bool `[N]`."""
        return (self.lower >= 0).flatten(1).all(1)

    @property
    def violation(self) -> Tensor:
        """How far the worst rule's bound is below 0, on average over the steps: `[N]`, 0 for a safe plan."""
        return (-self.lower).amax(-1).clamp(min=0).mean(1)

    def where(self, mask: Tensor, other: "SafetyEvaluation") -> "SafetyEvaluation":
        """These where `mask` `[N]`, the `other` ones elsewhere."""

        def pick(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(mask.view(-1, *[1] * (mine.ndim - 1)), mine, theirs)

        mine, theirs = self.forecast, other.forecast
        forecast = Forecast(
            margin=pick(mine.margin, theirs.margin),
            spread=pick(mine.spread, theirs.spread),
            actions=pick(mine.actions, theirs.actions),
            values={key: pick(mine.values[key], theirs.values[key]) for key in mine.values},
        )
        return SafetyEvaluation(forecast, pick(self.lower, other.lower))


@dataclass(frozen=True)
class SafetyEvaluator:
    """Predicts the outcome of plans and bounds their margins."""

    forecaster: Forecaster
    calibration: Calibration
    fallback: Fallback

    def evaluate(
        self, state: State, prefix: Tensor, inflation: Tensor, imagined: State | None = None, noise: Noise = NOISE
    ) -> SafetyEvaluation:
        """Beliefs `[N]`, then actions `[N, F, A]`, then the fallback; bounds inflated by `inflation` `[N]`."""
        forecast = self.forecaster.predict(state, prefix, self.fallback, self.calibration.horizon, imagined, noise)
        return SafetyEvaluation(forecast, self.calibration.lower(forecast, inflation))

    def evaluate_each(
        self, state: State, plans: Tensor, steps: Tensor, inflation: Tensor, noise: Noise
    ) -> SafetyEvaluation:
        """As `evaluate`, but of plans `[N, F, A]` only the first `steps` `[N]`, 1 to F, come before the fallback."""
        evaluated = self.evaluate(state, plans[:, :1], inflation, noise=noise)
        for count in steps[steps > 1].unique().tolist():
            longer = self.evaluate(state, plans[:, :count], inflation, noise=noise)
            evaluated = longer.where(steps == count, evaluated)
        return evaluated

    def repair(
        self, planner: Planner, state: State, wanted: Tensor, inflation: Tensor, seed: int, noise: Noise
    ) -> tuple[Plan, SafetyEvaluation]:
        """For beliefs `[B]` the safe plan whose outcome is nearest to that of `wanted` `[B, F, A]`.

        Where no plan is safe it is the one with the least violation. The plan is evaluated once more, as a stochastic
        model predicts something else each time.
        """
        safe = Constraint(BoundViolation(self, state, inflation, noise), 0.0)
        model = self.forecaster.model
        nearest = Nearest(model.imagine(state, wanted, noise).features)
        problem = Problem(model, state, nearest, (safe,), warm=wanted, seed=seed)
        plan = planner.plan(problem)
        return plan, self.evaluate(state, plan.actions, inflation, noise=noise)


@dataclass(frozen=True)
class Nearest(Objective):
    """Minus the squared distance from the beliefs that the agent's own plan leads to, features `wanted` `[B, F, D]`.

    Later steps count more: a plan that ends in the wanted state costs the agent less return than one that begins as
    wanted and then has to brake.
    """

    wanted: Tensor
    discount: float = 0.7

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        steps = actions.shape[1]
        difference = states.features.unflatten(0, (len(self.wanted), -1)) - self.wanted[:, None]
        weights = self.discount ** torch.arange(steps - 1, -1, -1).to(actions)
        return -(difference.square().mean(-1) * weights).sum(-1).flatten()


@dataclass(frozen=True)
class BoundViolation(Objective):
    """`SafetyEvaluation.violation` of candidates from the beliefs `state` `[B]`, fallback included; 0 is safe."""

    evaluator: SafetyEvaluator
    state: State
    inflation: Tensor
    noise: Noise

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        count = len(actions) // len(self.inflation)
        inflation = self.inflation.repeat_interleave(count)
        return self.evaluator.evaluate(self.state.repeat(count), actions, inflation, states, self.noise).violation
