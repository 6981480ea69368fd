"""A world model and what is trained along with it in one update, such as a policy that learns in its dreams."""

from typing import Protocol

import torch
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.model import State, WorldModel


class Companion(Protocol):
    """An `nn.Module` that, called on a model's beliefs `[B, T]` of a segment, returns named loss terms."""

    loss_weights: dict[str, float]

    def __call__(self, model: WorldModel, belief: State, segment: Segment) -> dict[str, Tensor]: ...
    def after_update(self) -> None: ...


class Joint(nn.Module):
    """One update of both: beliefs are tracked once. A `frozen` model is looked through, but does not learn."""

    def __init__(self, model: WorldModel, companion: Companion, frozen: bool = False):
        super().__init__()
        assert isinstance(companion, nn.Module), f"a companion must be a module: {type(companion).__name__}"
        self.model, self.companion, self.frozen = model, companion, frozen
        model.requires_grad_(not frozen)
        self.loss_weights = companion.loss_weights | ({} if frozen else model.loss_weights)

    def forward(self, segment: Segment) -> dict[str, Tensor]:
        with torch.set_grad_enabled(not self.frozen and torch.is_grad_enabled()):
            belief = self.model.track(segment.obs, segment.action)
            terms = {} if self.frozen else self.model(segment, belief)
        return terms | self.companion(self.model, belief, segment)

    def train(self, mode: bool = True) -> "Joint":
        super().train(mode)
        self.model.train(mode and not self.frozen)
        return self

    def after_update(self) -> None:
        if not self.frozen:
            self.model.after_update()
        self.companion.after_update()
