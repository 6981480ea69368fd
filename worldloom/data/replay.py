"""Episodes in memory, to which a learner adds while it draws windows from them.

N rows held, B batch, L window length, A action size.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from worldloom.data.episode import Episode
from worldloom.data.sampler import window_slots, window_start
from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError

FIRST_ROWS = 4096
SAMPLED_FRAMES = 1000


class Replay:
    """An iterator of random `Segment`s `[B, L]`, drawn with replacement from all rows added so far.

    Windows begin as `window_start` says, so that the end of an episode is seen at every age of a memory alike.
    Beyond `capacity` rows the oldest episodes are forgotten. Order and randomness follow from `seed` and `state_dict`.
    """

    def __init__(self, spec: DataSpec, *, batch_size: int, length: int, capacity: int = 1_000_000, seed: int = 0):
        self.spec, self.batch_size, self.length, self.capacity = spec, batch_size, length, capacity
        self.rng = np.random.default_rng(seed)
        self.lengths: list[int] = []
        self.rows = 0
        self.columns: dict[str, np.ndarray] = {}
        self._index()

    def add(self, episode: Episode) -> None:
        """Take in one finished episode, its actions in own units. Raises `UserError` for other data than `spec`'s."""
        count = len(episode)
        self._check(episode)
        if count > self.capacity:
            raise UserError(f"an episode of {count} rows does not fit into a replay of {self.capacity}: enlarge it")
        while self.rows + count > self.capacity:
            self._forget_oldest()
        for name, values in self._columns_of(episode).items():
            self._reserve(name, values, self.rows + count)
            self.columns[name][self.rows : self.rows + count] = values
        self.lengths.append(count)
        self.rows += count
        self._index()

    def __next__(self) -> Segment:
        slot = self.rng.integers(self.ends[-1], size=self.batch_size)
        episode = np.searchsorted(self.ends, slot, side="right")
        start = window_start(slot - (self.ends[episode] - self.slots[episode]), self.length)
        time = start[:, None] + np.arange(self.length)
        last = self.held[episode][:, None] - 1
        rows = self.offsets[episode][:, None] + np.minimum(time, last)
        taken = {name: torch.from_numpy(column.take(rows, 0)) for name, column in self.columns.items()}
        mask = torch.from_numpy(time <= last)
        action = taken.pop("action").masked_fill_(torch.from_numpy(time >= last)[..., None], 0.0)
        signals = {name: taken.pop(name) * mask for name in ("reward", "terminated", "truncated")}
        return Segment(obs=taken, action=action, mask=mask, **signals)

    def fit(self) -> DataSpec:
        """The spec with the mean and std of the vectors and images that are held, as a model scales them.

        What does not change gets std 1, as in `CachedDataset.fit`.
        """
        obs = dict(self.spec.obs)
        for key in (*self.spec.vector_keys, *self.spec.image_keys):
            rows = self.columns[key][: self.rows]
            if obs[key].kind == "image":
                frames = rows[np.linspace(0, self.rows - 1, min(self.rows, SAMPLED_FRAMES)).astype(int)]
                rows = frames.astype(np.float32).transpose(0, 2, 3, 1).reshape(-1, frames.shape[1]) / 255
            mean, std = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
            std = np.where(std > 1e-6 * np.abs(rows).max(0), std, 1.0)
            obs[key] = replace(obs[key], mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        return replace(self.spec, obs=obs)

    def state_dict(self) -> dict[str, Any]:
        """The position of the random draws, as JSON. The episodes themselves are the learner's to keep."""
        return {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]

    def _columns_of(self, episode: Episode) -> dict[str, np.ndarray]:
        signals = {"reward": episode.reward, "terminated": episode.terminated, "truncated": episode.truncated}
        return {**episode.obs, "action": self.spec.action.scale(episode.action), **signals}

    def _check(self, episode: Episode) -> None:
        """Whatever does not fit would leave rows of the columns unwritten."""
        signals = {name: getattr(episode, name) for name in ("action", "reward", "terminated", "truncated")}
        found = {name: value.shape for name, value in signals.items()}
        found |= {name: (*value.shape, str(value.dtype)) for name, value in episode.obs.items()}
        rows = (len(episode),)
        wanted: dict[str, tuple[str | int, ...]] = dict.fromkeys(signals, rows)
        wanted["action"] = (*rows, self.spec.action.size)
        for key, spec in self.spec.obs.items():
            wanted[key] = (*rows, *spec.shape, "uint8" if spec.kind == "image" else "float32")
        for name in sorted({*found, *wanted}):
            if found.get(name) != wanted.get(name):
                raise UserError(
                    f"{name!r} of an episode is {found.get(name)}, but this replay holds {wanted.get(name)}: "
                    "it is of other data"
                )

    def _reserve(self, name: str, values: np.ndarray, rows: int) -> None:
        """Room for `rows` rows, doubled when it runs out, so that adding costs the same however much is held."""
        column = self.columns.get(name)
        if column is not None and len(column) >= rows:
            return
        room = np.empty((min(max(FIRST_ROWS, 2 * rows), self.capacity), *values.shape[1:]), values.dtype)
        if column is not None:
            room[: self.rows] = column[: self.rows]
        self.columns[name] = room

    def _forget_oldest(self) -> None:
        count = self.lengths.pop(0)
        for column in self.columns.values():
            column[: self.rows - count] = column[count : self.rows]
        self.rows -= count

    def _index(self) -> None:
        self.held = np.asarray(self.lengths, np.int64)
        self.slots = window_slots(self.held, self.length)
        self.ends = np.cumsum(self.slots)
        self.offsets = np.cumsum(self.held) - self.held
