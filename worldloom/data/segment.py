"""A batch of equally long windows cut from episodes: what a world model is trained on.

B batch, T time, A action size.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """Windows `[B, T, ...]` that never cross an episode. Row t is what was known at t, then the action taken at t.

    obs: `{key: [B, T, ...]}`, images uint8 channels first, vectors and categories float32.
    action: float32 `[B, T, A]`, discrete one-hot, continuous in [-1, 1].
    reward: float32 `[B, T]`. terminated, truncated: bool `[B, T]`.
    mask: bool `[B, T]`, false on the padded tail of an episode shorter than T.
    """

    obs: dict[str, Tensor]
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)"""
        return self.action.shape[0], self.action.shape[1]

    def __getitem__(self, index: object) -> Self:
        """Index batch and time alike on every field: `segment[:, :5]`, `segment[2:4]`."""
        rest = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "obs"}
        return replace(self, obs={k: v[index] for k, v in self.obs.items()}, **rest)  # type: ignore[index]

    def to(self, device: torch.device | str) -> Self:
        rest = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "obs"}
        return replace(self, obs={k: v.to(device) for k, v in self.obs.items()}, **rest)

    def with_action(self, action: Tensor) -> Self:
        """The same observations with other actions: the question behind every controllability figure."""
        return replace(self, action=action)
