"""Which windows to train on, and in which order: seeded, without replacement, resumable, the same for any world size.

B batch, T time, L rows of an episode.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from worldloom.errors import UserError

if TYPE_CHECKING:
    from worldloom.data.cache import CachedDataset


def split_episodes(dataset: "CachedDataset", held_out: float = 0.1, seed: int = 0) -> tuple[list[int], list[int]]:
    """(training, held-out) episodes, both sorted and not empty. By episode, because overlapping windows leak.

    Raises `UserError` for a share outside (0, 1) and for fewer than two episodes.
    """
    if not 0 < held_out < 1:
        raise UserError(f"the held-out share must be between 0 and 1 (both excluded), not {held_out}. Try 0.1.")
    count = len(dataset)
    if count < 2:
        raise UserError(f"{dataset.path} has {count} episode; it takes 2 to train on one and evaluate on another.")
    chosen = min(max(round(count * held_out), 1), count - 1)
    order = np.random.default_rng(seed).permutation(count).tolist()
    return sorted(order[chosen:]), sorted(order[:chosen])


def window_slots(rows: np.ndarray, length: int) -> np.ndarray:
    """How many windows of T rows episodes of L rows have to offer: L + T - 2 each, `[E]`."""
    return rows + length - 2


def window_start(slot: np.ndarray, length: int) -> np.ndarray:
    """The first row of a window, from its number among the slots of its episode. The window may outlast the episode.

    A start must not depend on where the episode ends: were late windows pushed back to fit into it, ends would come in
    their last row alone, and a model with a memory would predict them from the age of its hidden state. So windows
    begin in every row but the last, and the end is seen at every age alike. Those from row 0 come T times as often,
    because that is where a belief begins in use, and so every row is in at least T - 1 windows.
    """
    return np.maximum(slot - (length - 1), 0)


class WindowSampler:
    """Draws windows of T rows from the episodes of one dataset, every slot (see `window_start`) once per epoch."""

    def __init__(self, lengths: Sequence[int] | np.ndarray, length: int, seed: int | Sequence[int]):
        self.length = length
        self.seed = [int(s) for s in np.atleast_1d(seed)]
        slots = window_slots(np.asarray(lengths, np.int64), length)
        self.ends = np.cumsum(slots)
        self.begins = self.ends - slots
        self.epoch = 0
        self.position = 0
        self.order = self._shuffle()

    @property
    def slots(self) -> int:
        """Windows per epoch."""
        return int(self.ends[-1])

    def draw(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The next `count` windows: (which of the episodes, first row), each int64 `[count]`."""
        parts = [self.order[:0]]
        while count > 0:
            if self.position == self.slots:
                self.seek(self.epoch + 1, 0)
            part = self.order[self.position : self.position + count]
            parts.append(part)
            self.position += len(part)
            count -= len(part)
        slot = np.concatenate(parts)
        episode = np.searchsorted(self.ends, slot, side="right")
        return episode, window_start(slot - self.begins[episode], self.length)

    def seek(self, epoch: int, position: int) -> None:
        """Continue at `position` of `epoch`."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.order = self._shuffle()
        self.position = position

    def _shuffle(self) -> np.ndarray:
        return np.random.default_rng([*self.seed, self.epoch]).permutation(self.slots)
