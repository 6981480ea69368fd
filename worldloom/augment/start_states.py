"""Start states of branches: real rows, the model's beliefs in them, and the recorded actions after them.

B branches, H horizon (steps of a branch), C context rows, A action size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from worldloom.data.cache import CachedDataset, WindowBuffers
from worldloom.data.segment import Segment
from worldloom.errors import UserError
from worldloom.model import State, WorldModel
from worldloom.noise import TorchNoise


@dataclass(frozen=True)
class BranchWindow:
    """How many real rows the model observes, the start row included, and how many steps it then imagines."""

    context: int
    horizon: int


@dataclass(frozen=True)
class StartStates:
    """B real rows to branch from, rows `frame` `[B]` of episodes `episode` `[B]` in `dataset`.

    obs: the rows as recorded `[B, ...]`. belief: the model's beliefs in them `[B]`.
    """

    dataset: CachedDataset
    episode: np.ndarray
    frame: np.ndarray
    obs: dict[str, Tensor]
    belief: State

    @classmethod
    def draw(
        cls,
        model: WorldModel,
        dataset: CachedDataset,
        episodes: Sequence[int],
        window: BranchWindow,
        count: int,
        rng: np.random.Generator,
    ) -> Self:
        """`count` rows of `episodes`, each equally likely except the last of an episode, which has no next row."""
        episode, frame = draw_rows(dataset, episodes, count, rng)
        first = np.maximum(frame - window.context + 1, 0)
        device = next(model.parameters()).device
        rows = windows(dataset, episode, first, window.context).to(device)
        branch, start = torch.arange(count, device=device), torch.from_numpy(frame - first).to(device)
        noise = TorchNoise.seeded(int(rng.integers(2**31)), device)
        belief = model.track(rows.obs, rows.action, noise)[branch, start]
        return cls(dataset, episode, frame, {k: v[branch, start] for k, v in rows.obs.items()}, belief)

    def __len__(self) -> int:
        return len(self.episode)


def draw_rows(
    dataset: CachedDataset, episodes: Sequence[int], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Episode and frame `[count]` of rows with a next row. Raises `UserError` when there is none."""
    chosen = np.asarray(episodes)
    ends = np.cumsum(dataset.lengths[chosen] - 1)
    if not ends[-1]:
        raise UserError(f"{dataset.path}: its episodes have one row each, so there is nothing to branch from.")
    drawn = rng.integers(ends[-1], size=count)
    number = np.searchsorted(ends, drawn, side="right")
    return chosen[number], drawn - np.concatenate([[0], ends])[number]


def windows(dataset: CachedDataset, episodes: np.ndarray, starts: np.ndarray, length: int) -> Segment:
    """Rows from `starts` on of `episodes`, `[B, length]`, padded past an end."""
    buffers = WindowBuffers(dataset.spec, len(episodes), length)
    buffers.fill(dataset, slice(0, len(episodes)), episodes, starts)
    return buffers.segment()


def recorded_actions(
    dataset: CachedDataset, episodes: np.ndarray, frames: np.ndarray, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """The recorded actions from these rows on, `[B, H, A]` in model units, and their number before the end, `[B]`."""
    actions = np.zeros((len(episodes), horizon, dataset.spec.action.size), np.float32)
    steps = np.minimum(dataset.lengths[episodes] - 1 - frames, horizon)
    for row, (episode, frame, known) in enumerate(zip(episodes, frames, steps, strict=True)):
        own = dataset.column("action", int(episode))[frame : frame + known]
        actions[row, :known] = dataset.spec.action.scale(own)
    return actions, steps
