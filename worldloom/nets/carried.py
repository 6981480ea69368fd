"""Vectors that a belief carries as they were last observed or predicted, and how they change from row to row.

D sizes of all of them together, C context features, A action size.

A latent that is drawn forgets digits: what it lets through has to be learned, and early in a training it is less than
what changes in a step. A vector that is carried is exact from the first update on, and only its change is predicted.
Beside it stands its last change: a position alone does not tell where a thing is going.
"""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from worldloom.data.spec import DataSpec
from worldloom.nets.dense import plain_mlp
from worldloom.nets.observation import VectorScale, flat

CHANGES = 10.0  # in a row a vector changes by about a tenth of what it does in an episode


class CarriedVectors(nn.Module):
    """The observed vectors of `spec` that no row lacks at unit scale, and their last change: `[..., 2D]`."""

    def __init__(self, spec: DataSpec, context: int, *, units: int, layers: int):
        super().__init__()
        self.spec = spec
        self.sizes = {k: prod(spec.keys[k].shape) for k in carried_keys(spec)}
        self.scale, self.values = VectorScale(spec, tuple(self.sizes)), sum(self.sizes.values())
        self.size = 2 * self.values
        self.body = plain_mlp(context + self.size + spec.action.size, units, layers)
        # Most of a short step is linear, so that part need not go through the network.
        self.change = nn.Linear(units, self.values)
        self.linear = nn.Linear(self.size + spec.action.size, self.values, bias=False)

    def begin(self) -> None:
        """As at first: nothing changes."""
        for weight in (self.change.weight, self.change.bias, self.linear.weight):
            nn.init.zeros_(weight)

    def observed(self, obs: Mapping[str, Tensor], before: Tensor | None = None) -> Tensor:
        """`[..., 2D]` of an observation and what was carried `before` it `[..., 2D]`, without which nothing changed."""
        now = self.scale(torch.cat([flat(self.spec.keys[k], obs[k]) for k in self.sizes], -1).float())
        return torch.cat([now, torch.zeros_like(now) if before is None else self._change(now, before)], -1)

    def observed_rows(self, obs: Mapping[str, Tensor]) -> Tensor:
        """`[B, T, 2D]` of the observations of whole windows."""
        first = self.observed({key: obs[key][:, :1] for key in self.sizes})
        if obs[next(iter(self.sizes))].shape[1] == 1:
            return first
        before = self.observed({key: obs[key][:, :-1] for key in self.sizes})
        later = self.observed({key: obs[key][:, 1:] for key in self.sizes}, before)
        return torch.cat([first, later], 1)

    def following(self, carried: Tensor, context: Tensor, action: Tensor) -> Tensor:
        """One row later, after `action` `[..., A]` and by what `context` `[..., C]` knows: `[..., 2D]`."""
        moved = self.body(torch.cat([context, carried, action], -1))
        change = self.change(moved) + self.linear(torch.cat([carried, action], -1))
        return torch.cat([carried[..., : self.values] + change / CHANGES, change], -1)

    def loss(self, following: Tensor, observed: Tensor) -> dict[str, Tensor]:
        """Squared error of every key's change, summed over its dimensions: `{key: [...]}`."""
        difference = (following - observed)[..., self.values :]
        errors = difference.square().split(list(self.sizes.values()), -1)
        return {key: error.sum(-1) for key, error in zip(self.sizes, errors, strict=True)}

    def decode(self, carried: Tensor, key: str) -> Tensor:
        """One key in its own units."""
        parts = self.scale.undo(carried[..., : self.values]).split(list(self.sizes.values()), -1)
        return parts[list(self.sizes).index(key)].unflatten(-1, self.spec.keys[key].shape)

    def _change(self, now: Tensor, before: Tensor) -> Tensor:
        return CHANGES * (now - before[..., : self.values])


def carried_keys(spec: DataSpec) -> tuple[str, ...]:
    """Observed vectors that no row lacks."""
    found = ((k, spec.obs[k]) for k in spec.of_kind("vector", "window"))
    return tuple(k for k, entry in found if entry.role == "observed" and not entry.masked and entry.shape)
