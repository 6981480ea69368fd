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
        raise UserError(f"{dataset.path} has {count} episode; it takes 2 to train on one and judge on another.")
    chosen = min(max(round(count * held_out), 1), count - 1)
    order = np.random.default_rng(seed).permutation(count).tolist()
    return sorted(order[chosen:]), sorted(order[:chosen])


class WindowSampler:
    """Draws windows of T rows from the episodes of one dataset, every window slot once per epoch.

    Were start positions uniform in [0, L - T], the first and the last row of an episode would be in one window and a
    row in the middle in T. The last row is the terminal observation, the only one that shows an end, so that would
    starve exactly what is rarest. Positions are therefore drawn from [-(T - 1), L - 1] and clamped to [0, L - T]: of
    the L + T - 1 slots of an episode every row is in at least T. A shorter episode has as many slots, all alike.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, length: int, seed: int | Sequence[int]):
        rows = np.asarray(lengths, np.int64)
        self.length = length
        self.seed = [int(s) for s in np.atleast_1d(seed)]
        self.largest_start = np.maximum(rows - length, 0)
        self.ends = np.cumsum(rows + length - 1)
        self.begins = self.ends - (rows + length - 1)
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
        position = slot - self.begins[episode] - (self.length - 1)
        return episode, np.clip(position, 0, self.largest_start[episode])

    def seek(self, epoch: int, position: int) -> None:
        """Continue at `position` of `epoch`."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.order = self._shuffle()
        self.position = position

    def _shuffle(self) -> np.ndarray:
        return np.random.default_rng([*self.seed, self.epoch]).permutation(self.slots)
