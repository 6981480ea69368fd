"""Is a plan safe, and which safe plan is nearest? Both are answered for plans that end in the user's fallback.

B beliefs, N candidates, F prefix steps, H horizon, R rules, A action size. A plan is F actions of its own and then the
fallback, in closed loop, up to the horizon of the calibration. To accept an action is to have seen a safe way on from
it: if nothing better turns up, the fallback is taken from the next step on. This is model predictive shielding
(Bastani, 2021) and the backup trajectory of predictive safety filters (Wabersich and Zeilinger, 2021), with bounds that
were calibrated.
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
    """Plans as the judge sees them: the forecast and its lower bounds `[N, H, R]`."""

    forecast: Forecast
    lower: Tensor

    @property
    def safe(self) -> Tensor:
        """Whether no bound of any rule at any step is below 0: bool `[N]`."""
        return (self.lower >= 0).flatten(1).all(1)

    @property
    def harm(self) -> Tensor:
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
    """Foresees plans and bounds them."""

    forecaster: Forecaster
    calibration: Calibration
    fallback: Fallback

    def evaluate(
        self, state: State, prefix: Tensor, inflation: Tensor, imagined: State | None = None, noise: Noise = NOISE
    ) -> SafetyEvaluation:
        """Beliefs `[N]`, then actions `[N, F, A]`, then the fallback; bounds widened by `inflation` `[N]`."""
        forecast = self.forecaster.predict(state, prefix, self.fallback, self.calibration.horizon, imagined, noise)
        return SafetyEvaluation(forecast, self.calibration.lower(forecast, inflation))

    def evaluate_each(
        self, state: State, plans: Tensor, steps: Tensor, inflation: Tensor, noise: Noise
    ) -> SafetyEvaluation:
        """As `evaluate`, but of plans `[N, F, A]` only the first `steps` `[N]`, 1 to F, come before the fallback."""
        judged = self.evaluate(state, plans[:, :1], inflation, noise=noise)
        for count in steps[steps > 1].unique().tolist():
            longer = self.evaluate(state, plans[:, :count], inflation, noise=noise)
            judged = longer.where(steps == count, judged)
        return judged

    def repair(
        self, planner: Planner, state: State, wanted: Tensor, inflation: Tensor, seed: int, noise: Noise
    ) -> tuple[Plan, SafetyEvaluation]:
        """For beliefs `[B]` the safe plan that leads nearest to where `wanted` `[B, F, A]` does, or that of least harm.

        The plan is judged once more, as a stochastic model never foresees quite the same twice.
        """
        harmless = Constraint(BoundViolation(self, state, inflation, noise), 0.0)
        model = self.forecaster.model
        nearest = Nearest(model.imagine(state, wanted, noise).features)
        problem = Problem(model, state, nearest, (harmless,), warm=wanted, seed=seed)
        plan = planner.plan(problem)
        return plan, self.evaluate(state, plan.actions, inflation, noise=noise)


@dataclass(frozen=True)
class Nearest(Objective):
    """Minus the squared distance from the beliefs that what was wanted leads to, features `[B, F, D]`.

    Later steps count more: a plan that ends where the agent wanted to be loses it less than one that begins as it
    wanted and then has to brake.
    """

    wanted: Tensor
    discount: float = 0.7

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        steps = actions.shape[1]
        apart = states.features.unflatten(0, (len(self.wanted), -1)) - self.wanted[:, None]
        weights = self.discount ** torch.arange(steps - 1, -1, -1).to(actions)
        return -(apart.square().mean(-1) * weights).sum(-1).flatten()


@dataclass(frozen=True)
class BoundViolation(Objective):
    """What `SafetyEvaluation.harm` makes of candidates from the beliefs `state` `[B]`, fallback included; 0 is safe."""

    judge: SafetyEvaluator
    state: State
    inflation: Tensor
    noise: Noise

    def __call__(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        count = len(actions) // len(self.inflation)
        inflation = self.inflation.repeat_interleave(count)
        return self.judge.evaluate(self.state.repeat(count), actions, inflation, states, self.noise).harm
