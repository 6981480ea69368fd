"""Online calibration: bounds are inflated where the forecasts of the current episode are worse than guaranteed.

B environments, H horizon, R rules, A action size. The guarantee of a calibration is for environments like its own. In
another one (heavier, more slippery) residuals are larger from the first steps on, and this can be measured: from an
anchor belief the model predicts the outcome of the actions that were really sent, and its margins are compared with the
observed ones. Where a margin was below its bound by a factor, all bounds are inflated by that factor, which then decays
slowly. In an environment like the calibration's the factor exceeds 1 with probability about alpha a horizon, so there
the cost is small.
"""

from dataclasses import replace

import torch
from torch import Tensor

from worldloom.model import State, state
from worldloom.noise import Noise
from worldloom.safety.calibration import Calibration
from worldloom.safety.forecast import Forecaster
from worldloom.safety.rules import shortfalls

DECAY = 0.98
MAX_INFLATION = 1000.0


@state
class OnlineCalibration(State):
    """anchor `[B]`: a past belief. actions `[B, H, A]` and margins `[B, H, R]`: the `count` `[B]` steps after it.

    A count of -1 means that there is no anchor yet, as no observation so far was finite. Margins that are not finite
    are unknown and do not count.

    inflation `[B]`, at least 1: the factor by which bounds are moved down now.
    """

    anchor: State
    actions: Tensor
    margins: Tensor
    count: Tensor
    inflation: Tensor

    @property
    def features(self) -> Tensor:
        return self.anchor.features

    @classmethod
    def initial(cls, belief: State, action: Tensor, bounds: Tensor, valid: Tensor) -> "OnlineCalibration":
        """At the start of an episode; shapes are taken from an action `[B, A]` and bounds `[B, H, R]`.

        `valid` `[B]`: whether the first observation was finite.
        """
        batch, horizon, _ = bounds.shape
        actions = action.new_zeros(batch, horizon, action.shape[1])
        return cls(belief, actions, torch.zeros_like(bounds), valid.long() - 1, torch.ones_like(bounds[:, 0, 0]))

    def update(
        self,
        forecaster: Forecaster,
        calibration: Calibration,
        action: Tensor,
        observed: Tensor,
        belief: State,
        noise: Noise,
    ) -> "OnlineCalibration":
        """After `action` `[B, A]` was sent, margins `observed` `[B, R]` were measured and the belief became `belief`.

        After H steps the anchor moves to `belief`, so that each step is compared once. Where margins are not finite,
        nothing is known and no anchor is set.
        """
        horizon = self.actions.shape[1]
        newest = torch.arange(horizon, device=action.device) == self.count[:, None]
        actions = torch.where(newest[..., None], action[:, None], self.actions)
        margins = torch.where(newest[..., None], observed[:, None], self.margins)
        count = self.count + 1
        predicted = forecaster.predict(self.anchor, actions, noise=noise)
        slack = calibration.slack(predicted.spread)
        # At least a thousandth of the mean slack: a tight bound must not lead to a division by zero.
        error = shortfalls(forecaster.rules, predicted.margin, margins)
        ratio = error / slack.clamp(min=1e-3 * float(slack.abs().mean()) + 1e-9)
        past = torch.arange(horizon, device=action.device) < count[:, None]
        counted = past[..., None] & margins.isfinite() & (slack != 0)
        ratio = ratio.masked_fill(~counted, 0.0).nan_to_num(MAX_INFLATION).flatten(1).amax(1)
        inflation = torch.maximum(1 + DECAY * (self.inflation - 1), ratio).clamp(1, MAX_INFLATION)
        updated = replace(self, actions=actions, margins=margins, count=count, inflation=inflation)
        return updated._anchored((count == horizon) | (count == 0), belief, ~observed.isnan().all(1))

    def _anchored(self, full: Tensor, belief: State, valid: Tensor) -> "OnlineCalibration":
        """Anchored at `belief` in the rows that are `full`, until H more steps in those that are `valid`."""
        anchor = belief.where(full, self.anchor)
        return replace(self, anchor=anchor, count=torch.where(full, valid.long() - 1, self.count))
