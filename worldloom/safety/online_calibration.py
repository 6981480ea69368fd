"""How forecasts turned out in the very episode that is being played, and what that does to the bounds.

B environments, H horizon, R rules, A action size. Calibration promises for worlds like the one it saw. In another one
(heavier, more slippery) residuals are larger from the first moves on, and that can be seen: from an anchor belief the
model foresees the actions that were really sent, and its margins are compared with what happened. Where one was worse
than promised by a factor, all bounds are widened by that factor, and the factor is forgotten slowly. A world like the
calibration's exceeds 1 with probability about alpha a horizon, so there it costs next to nothing.
"""

from dataclasses import replace

import torch
from torch import Tensor

from worldloom.model import State, state
from worldloom.noise import Noise
from worldloom.safety.calibration import Calibration
from worldloom.safety.forecast import Forecaster

FORGET = 0.98
WIDEST = 1000.0


@state
class OnlineCalibration(State):
    """anchor `[B]`: a past belief. actions `[B, H, A]` and margins `[B, H, R]`: what followed it, `count` `[B]` steps.

    A count of -1 says that there is no anchor yet: no look so far was all numbers. What is not a number in margins is
    not known and does not count.

    inflation `[B]`, at least 1: by how much the bounds are pushed down at present.
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
    def none(cls, belief: State, action: Tensor, bounds: Tensor, sound: Tensor) -> "OnlineCalibration":
        """At the beginning of an episode; shapes are taken from an action `[B, A]` and bounds `[B, H, R]`.

        `sound` `[B]`: whether the first look was all numbers.
        """
        batch, horizon, _ = bounds.shape
        actions = action.new_zeros(batch, horizon, action.shape[1])
        return cls(belief, actions, torch.zeros_like(bounds), sound.long() - 1, torch.ones_like(bounds[:, 0, 0]))

    def compare(
        self,
        forecaster: Forecaster,
        calibration: Calibration,
        action: Tensor,
        happened: Tensor,
        belief: State,
        noise: Noise,
    ) -> "OnlineCalibration":
        """After `action` `[B, A]` was sent, margins `[B, R]` `happened` and the belief became `belief`.

        After H steps the anchor moves here, so that each step is compared once. Where margins are not numbers, nothing
        is known, and no anchor is put.
        """
        horizon = self.actions.shape[1]
        newest = torch.arange(horizon, device=action.device) == self.count[:, None]
        actions = torch.where(newest[..., None], action[:, None], self.actions)
        seen = torch.where(newest[..., None], happened[:, None], self.margins)
        count = self.count + 1
        predicted = forecaster.predict(self.anchor, actions, noise=noise)
        slack = calibration.slack(predicted.spread)
        # At least a thousandth of a scale: a bound that is already tight needs no division by nothing.
        ratio = (predicted.margin - seen) / slack.clamp(min=1e-3 * float(slack.abs().mean()) + 1e-9)
        past = torch.arange(horizon, device=action.device) < count[:, None]
        counted = past[..., None] & seen.isfinite() & (slack != 0)
        ratio = ratio.masked_fill(~counted, 0.0).nan_to_num(WIDEST).flatten(1).amax(1)
        inflation = torch.maximum(1 + FORGET * (self.inflation - 1), ratio).clamp(1, WIDEST)
        made = replace(self, actions=actions, margins=seen, count=count, inflation=inflation)
        return made._moved((count == horizon) | (count == 0), belief, ~happened.isnan().all(1))

    def _moved(self, full: Tensor, belief: State, sound: Tensor) -> "OnlineCalibration":
        """Anchored at `belief` in the rows that are `full`, for good in those that are `sound`."""
        anchor = belief.where(full, self.anchor)
        return replace(self, anchor=anchor, count=torch.where(full, sound.long() - 1, self.count))
