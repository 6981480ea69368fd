"""Episodes in memory, to which a learner adds while it draws windows from them.

N rows held, B batch, L window length, A action size.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from worldloom.data.buffers import WindowBuffers, table_columns
from worldloom.data.episode import Episode
from worldloom.data.sampler import window_slots, window_start
from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec, mask_name
from worldloom.errors import UserError

FIRST_ROWS = 4096
UNKNOWN = ""
SAMPLED_FRAMES = 1000


class Replay:
    """An iterator of random `Segment`s `[B, L]`, drawn with replacement from all rows added so far.

    Windows begin as `window_start` says, so that the end of an episode is seen at every age of a memory alike.
    Beyond `capacity` rows the oldest episodes are forgotten. Order and randomness follow from `seed` and `state_dict`.
    """

    def __init__(self, spec: DataSpec, *, batch_size: int, length: int, capacity: int = 1_000_000, seed: int = 0):
        self.spec, self.batch_size, self.length, self.capacity = spec, batch_size, length, capacity
        self.rng = np.random.default_rng(seed)
        self.held: list[int] = []
        self.rows = 0
        self.columns = table_columns(spec)
        self.table = np.empty((0, max(last for _, last in self.columns.values())), np.float32)
        cameras = {key: entry.shape for key, entry in spec.keys.items() if entry.kind == "image"}
        self.images = {key: np.empty((0, *shape), np.uint8) for key, shape in cameras.items()}
        self._index()

    def add(self, episode: Episode) -> None:
        """Take in one finished episode, its actions in own units. Raises `UserError` for other data than `spec`'s."""
        count = len(episode)
        self._check(episode)
        if count > self.capacity:
            raise UserError(f"an episode of {count} rows does not fit into a replay of {self.capacity}: enlarge it")
        while self.rows + count > self.capacity:
            self._forget_oldest()
        self._reserve(self.rows + count)
        self.table[self.rows : self.rows + count] = self._row(episode)
        for key, frames in self.images.items():
            frames[self.rows : self.rows + count] = episode.obs[key]
        self.held.append(count)
        self.rows += count
        self._index()

    def __next__(self) -> Segment:
        slot = self.rng.integers(self.ends[-1], size=self.batch_size)
        episode = np.searchsorted(self.ends, slot, side="right")
        start = window_start(slot - (self.ends[episode] - self.slots[episode]), self.length)
        buffers = WindowBuffers(self.spec, self.batch_size, self.length)
        buffers.fill(self, slice(0, self.batch_size), episode, start)
        return buffers.segment()

    def fit(self) -> DataSpec:
        """The spec with the mean and std of the vectors and images that are held, as a model scales them.

        What does not change gets std 1, as in `CachedDataset.fit`.
        """
        obs = dict(self.spec.obs)
        for key in (*self.spec.vector_keys, *self.spec.image_keys):
            if obs[key].kind == "image":
                frames = self.images[key][: self.rows]
                frames = frames[np.linspace(0, self.rows - 1, min(self.rows, SAMPLED_FRAMES)).astype(int)]
                rows = frames.astype(np.float32).transpose(0, 2, 3, 1).reshape(-1, frames.shape[1]) / 255
            else:
                rows = self.table[: self.rows, slice(*self.columns[key])]
            mean, std = rows.mean(0, dtype=np.float64), rows.std(0, dtype=np.float64)
            std = np.where(std > 1e-6 * np.abs(rows).max(0), std, 1.0)
            obs[key] = replace(obs[key], mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        return self.spec.with_obs(obs)

    def state_dict(self) -> dict[str, Any]:
        """The position of the random draws, as JSON. The episodes themselves are the learner's to keep."""
        return {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]

    def has(self, name: str) -> bool:
        """Everything that the spec names is recorded."""
        return True

    def words(self, key: str) -> tuple[str, ...]:
        """Of the task those that the spec names, and last the number of any other."""
        return (*(self.spec.keys[key].names or ()), UNKNOWN) if key in self.spec.keys else ()

    def _row(self, episode: Episode) -> np.ndarray:
        """The episode's rows of the table `[n, D]`."""
        rows = np.zeros((len(episode), self.table.shape[1]), np.float32)
        known: dict[str, np.ndarray] = {
            "action": episode.action,
            "reward": episode.reward,
            "terminated": episode.terminated,
        }
        known |= {"truncated": episode.truncated, **episode.obs}
        if "task" in self.columns and "task" in self.spec.keys:
            words = self.words("task")
            number = words.index(episode.task) if episode.task in words else len(words) - 1
            known["task"] = np.full(len(episode), number, np.float32)
        known |= {f"extra.{name}": values for name, values in episode.extra.items()}
        for name, (first, last) in self.columns.items():
            if name in known:
                rows[:, first:last] = known[name].reshape(len(episode), last - first)
        return rows

    def _check(self, episode: Episode) -> None:
        """Whatever does not fit would leave rows of the columns unwritten."""
        signals = {name: getattr(episode, name) for name in ("action", "reward", "terminated", "truncated")}
        found = {name: value.shape for name, value in signals.items()}
        found |= {name: (*value.shape, str(value.dtype)) for name, value in episode.obs.items()}
        rows = (len(episode),)
        wanted: dict[str, tuple[str | int, ...]] = dict.fromkeys(signals, rows)
        wanted["action"] = (*rows, self.spec.action.size)
        for key, spec in self.spec.arrays.items():
            wanted[key] = (*rows, *spec.shape, spec.dtype)
            wanted |= {mask_name(key): (*rows, *spec.mask_shape, "bool")} if spec.has_mask else {}
        for name in self.spec.targets.keys() - signals.keys():
            wanted[name] = rows
            found |= {name: episode.extra[name].shape} if name in episode.extra else {}
        for name in sorted({*found, *wanted}):
            if found.get(name) != wanted.get(name):
                raise UserError(
                    f"{name!r} of an episode is {found.get(name)}, but this replay holds {wanted.get(name)}: "
                    "it is of other data"
                )

    def _reserve(self, rows: int) -> None:
        """Room for `rows` rows, doubled when it runs out, so that adding costs the same however much is held."""
        if len(self.table) >= rows:
            return
        room = min(max(FIRST_ROWS, 2 * rows), self.capacity)
        self.table = enlarged(self.table, room, self.rows)
        self.images = {key: enlarged(frames, room, self.rows) for key, frames in self.images.items()}

    def _forget_oldest(self) -> None:
        count = self.held.pop(0)
        arrays: list[np.ndarray] = [self.table, *self.images.values()]
        for column in arrays:
            column[: self.rows - count] = column[count : self.rows]
        self.rows -= count

    def _index(self) -> None:
        self.lengths = np.asarray(self.held, np.int64)
        self.slots = window_slots(self.lengths, self.length)
        self.ends = np.cumsum(self.slots)
        self.offsets = np.cumsum(self.lengths) - self.lengths


def enlarged(array: np.ndarray, room: int, rows: int) -> np.ndarray:
    """The first `rows` rows of an array in one with `room` for more."""
    made = np.empty((room, *array.shape[1:]), array.dtype)
    made[:rows] = array[:rows]
    return made
