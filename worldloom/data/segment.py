"""A batch of equally long windows cut from episodes: what a world model is trained on.

B batch, T time, A action size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from worldloom.data.spec import mask_name

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Segment:
    """Windows `[B, T, ...]` that never cross an episode. Row t is what was known at t, then the action taken at t.

    obs: `{key: [B, T, ...]}` of every observed and given key; images uint8 channels first, texts int64 indices, masks
    bool under `KEY.mask`, all else float32.
    action: float32 `[B, T, A]`, discrete slices one-hot, continuous ones in [-1, 1].
    signals: what is only to be predicted, `{key: [B, T, ...]}`: always reward (float32), terminated and truncated
    (bool), and the data's other targets; masks under `KEY.mask`, that of unlabelled actions under `action.mask`.
    mask: bool `[B, T]`, false on the padded tail of an episode shorter than T.
    """

    obs: Tensors
    action: Tensor
    signals: Tensors
    mask: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(B, T)"""
        return self.action.shape[0], self.action.shape[1]

    @property
    def reward(self) -> Tensor:
        return self.signals["reward"]

    @property
    def terminated(self) -> Tensor:
        return self.signals["terminated"]

    @property
    def truncated(self) -> Tensor:
        return self.signals["truncated"]

    @property
    def targets(self) -> Tensors:
        """Everything that a model may predict: observations and signals, with their masks."""
        return {**self.obs, **self.signals}

    def known(self, key: str) -> Tensor | None:
        """Where `key`, or "action", was recorded, bool `[B, T]`; of a set, where it has members. None: everywhere."""
        name = mask_name(key)
        found = self.signals.get(name, self.obs.get(name))
        return found if found is None or found.ndim == 2 else found.any(-1)

    def __getitem__(self, index: Any) -> Self:
        """Index batch and time alike on every field: `segment[:, :5]`, `segment[2:4]`."""
        obs, signals = ({k: v[index] for k, v in part.items()} for part in (self.obs, self.signals))
        return replace(self, obs=obs, action=self.action[index], signals=signals, mask=self.mask[index])

    def to(self, device: torch.device | str) -> Self:
        obs, signals = ({k: v.to(device) for k, v in part.items()} for part in (self.obs, self.signals))
        return replace(self, obs=obs, action=self.action.to(device), signals=signals, mask=self.mask.to(device))

    def with_action(self, action: Tensor) -> Self:
        """The same observations with other actions: the question behind every controllability figure."""
        return replace(self, action=action)

    @classmethod
    def cat(cls, parts: Sequence["Segment"]) -> "Segment":
        """Batches of windows of one length and one kind of data as one batch."""
        obs, signals = (
            {key: torch.cat([getattr(part, name)[key] for part in parts]) for key in getattr(parts[0], name)}
            for name in ("obs", "signals")
        )
        return cls(obs, torch.cat([p.action for p in parts]), signals, torch.cat([p.mask for p in parts]))


def outcome(reward: Tensor, terminated: Tensor, truncated: Tensor, **further: Tensor) -> Tensors:
    """The `signals` of a segment."""
    return {"reward": reward, "terminated": terminated, "truncated": truncated, **further}
