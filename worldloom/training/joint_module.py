"""A world model and what is trained along with it in one update, such as a policy that learns in its dreams."""

from typing import Protocol

import torch
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.model import State, WorldModel


class AuxiliaryModule(Protocol):
    """An `nn.Module` that, called on a model's beliefs `[B, T]` of a segment, returns named loss terms."""

    loss_weights: dict[str, float]

    def __call__(self, model: WorldModel, belief: State, segment: Segment) -> dict[str, Tensor]: ...
    def after_update(self) -> None: ...


class JointModule(nn.Module):
    """One update of a model and an auxiliary module: beliefs are tracked once. A `frozen` model does not learn."""

    def __init__(self, model: WorldModel, auxiliary: AuxiliaryModule, frozen: bool = False):
        super().__init__()
        assert isinstance(auxiliary, nn.Module), f"the auxiliary must be a module: {type(auxiliary).__name__}"
        self.model, self.auxiliary, self.frozen = model, auxiliary, frozen
        if frozen:
            model.requires_grad_(False)
        self.loss_weights = auxiliary.loss_weights | ({} if frozen else model.loss_weights)

    def loss(self, segment: Segment) -> dict[str, Tensor]:
        """The terms of both, each `[B, T]` or a scalar."""
        with torch.set_grad_enabled(not self.frozen and torch.is_grad_enabled()):
            belief = self.model.track(segment.obs, segment.action)
            terms = {} if self.frozen else self.model.loss(segment, belief)
        return terms | self.auxiliary(self.model, belief, segment)

    def train(self, mode: bool = True) -> "JointModule":
        super().train(mode)
        self.model.train(mode and not self.frozen)
        return self

    def after_update(self) -> None:
        if not self.frozen:
            self.model.after_update()
        self.auxiliary.after_update()
