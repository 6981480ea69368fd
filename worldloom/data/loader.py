"""Batches of windows from one or several cached datasets, at memory speed, in an order that can be stopped and resumed.

B batch, T time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from worldloom.data.cache import CachedDataset, WindowBuffers, difference
from worldloom.data.sampler import WindowSampler
from worldloom.data.segment import Segment
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.errors import UserError

POOL = 4  # buffers kept for reuse: the batch at hand, the one before it, and two for a consumer that looks back


class SegmentLoader:
    """An endless iterator of `Segment`s `[batch_size / world_size, T, ...]` drawn from `episodes[i]` of `datasets[i]`.

    `batch_size` counts the windows of all ranks together: rank r yields the r-th of `world_size` equal slices of the
    same global batch, so the sequence does not depend on how many processes train. `weights` are the datasets' shares
    of the windows (default: in proportion to their rows); within a dataset every window slot comes once per epoch.

    A batch's tensors share memory with a buffer that is used again only when nobody holds any of them any more, because
    fresh memory costs as much time as the copying itself. So keeping batches is safe; letting them go is fast.
    """

    def __init__(
        self,
        datasets: Sequence[CachedDataset],
        episodes: Sequence[Sequence[int]],
        *,
        batch_size: int,
        length: int,
        seed: int = 0,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        check_mixture(datasets, episodes, weights)
        if length < 2:
            raise UserError(f"a window of length {length} holds no transition; the length must be at least 2.")
        if batch_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise UserError(
                f"batch size {batch_size} must be positive and divide among {world_size} processes (rank {rank})."
            )
        self.datasets = list(datasets)
        self.episodes = [np.asarray(chosen, np.int64) for chosen in episodes]
        self.batch_size = batch_size
        self.length = length
        self.seed = seed
        self.slice = slice(batch_size // world_size * rank, batch_size // world_size * (rank + 1))
        self.samplers = [
            WindowSampler(d.lengths[chosen], length, (seed, number))
            for number, (d, chosen) in enumerate(zip(datasets, self.episodes, strict=True))
        ]
        share = np.asarray([s.slots for s in self.samplers] if weights is None else weights, np.float64)
        self.share = share / share.sum()
        self.batches = 0
        self.pool: list[WindowBuffers] = []

    def __iter__(self) -> Iterator[Segment]:
        return self

    def __next__(self) -> Segment:
        buffers = self._free_buffers()
        first = 0
        for dataset, entries in zip(self.datasets, self._draw(), strict=True):
            part = slice(first, first + len(entries[0]))
            if len(entries[0]):
                buffers.fill(dataset, part, *entries)
            first = part.stop
        return buffers.segment()

    def state_dict(self) -> dict[str, Any]:
        """Where the sequence stands, as JSON; it holds for any rank and world size."""
        return {
            "seed": self.seed,
            "batches": self.batches,
            "length": self.length,
            "slots": [s.slots for s in self.samplers],
            "epochs": [s.epoch for s in self.samplers],
            "positions": [s.position for s in self.samplers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises `UserError` if the data, seed or window length are others."""
        for name, now in self.state_dict().items():
            if name in ("seed", "length", "slots") and state[name] != now:
                raise UserError(f"cannot resume the data order: its {name} was {state[name]} and is now {now}.")
        self.batches = state["batches"]
        for sampler, epoch, position in zip(self.samplers, state["epochs"], state["positions"], strict=True):
            sampler.seek(epoch, position)

    def _draw(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """This rank's (episodes, starts) of the next batch, per dataset.

        The entries of a batch lie dataset by dataset, so that each dataset fills one contiguous part of it.
        """
        if len(self.datasets) == 1:
            counts = [self.batch_size]
        else:
            counts = np.random.default_rng([self.seed, self.batches]).multinomial(self.batch_size, self.share).tolist()
        self.batches += 1
        drawn, first = [], 0
        for sampler, chosen, count in zip(self.samplers, self.episodes, counts, strict=True):
            episode, start = sampler.draw(count)
            mine = slice(max(self.slice.start - first, 0), max(self.slice.stop - first, 0))
            drawn.append((chosen[episode[mine]], start[mine]))
            first += count
        return drawn

    def _free_buffers(self) -> WindowBuffers:
        for buffers in self.pool:
            if not buffers.in_use():
                return buffers
        made = WindowBuffers(self.datasets[0].spec, self.slice.stop - self.slice.start, self.length)
        self.pool = [made, *self.pool][:POOL]  # a buffer that leaves the pool lives as long as its batch
        return made


def check_mixture(
    datasets: Sequence[CachedDataset], episodes: Sequence[Sequence[int]], weights: Sequence[float] | None
) -> None:
    """Raise `UserError` unless these datasets, episodes and weights can be drawn from together."""
    if not datasets or len(episodes) != len(datasets):
        raise UserError(f"{len(datasets)} datasets with {len(episodes)} lists of episodes; give one list per dataset.")
    for dataset, chosen in zip(datasets, episodes, strict=True):
        dataset.check_episodes(chosen)
        check_same_data(datasets[0].spec, dataset.spec, f"{datasets[0].path} and {dataset.path}")
        if dataset.spec != datasets[0].spec:
            raise UserError(
                f"{datasets[0].path} and {dataset.path} need one spec: dataset.with_spec(merge_specs(specs)) for each."
            )
    if weights is None:
        return
    if len(weights) != len(datasets):
        raise UserError(f"{len(weights)} weights {list(weights)} for {len(datasets)} datasets; give one per dataset.")
    if not all(0 <= w < float("inf") for w in weights) or sum(weights) <= 0:
        raise UserError(f"the weights {list(weights)} must be finite, not negative, and not all zero.")


def check_same_data(one: DataSpec, two: DataSpec, names: str) -> None:
    """Raise `UserError` naming the key or action in which two datasets differ."""
    problem = difference(one, two)
    if problem:
        raise UserError(f"cannot mix {names}: {problem}. Train on them separately, or convert one to match.")


def merge_specs(specs: Sequence[DataSpec], tasks: Sequence[Sequence[str]] | None = None) -> DataSpec:
    """One spec for datasets that are trained on together; raises `UserError` where they cannot be.

    Means and deviations are those of the equal mixture, action ranges are joined, task names are united. `tasks` are
    the datasets' own lists (`dataset.tasks`): only with them does the task of a dataset that has a single one join in.
    Signals and actions that only some of them have are masked where they are missing, since a missing one is not zero.
    """
    if not specs:
        raise UserError("no specs to merge.")
    first = specs[0]
    for number, spec in enumerate(specs[1:], 2):
        check_same_data(first, spec, f"datasets 1 and {number}")
    keys = {k: _joined_key(k, specs) for spec in specs for k in spec.keys if k != "task"}
    names = [spec.keys["task"].names or () for spec in specs if "task" in spec.keys] + [tuple(t) for t in tasks or ()]
    united = tuple(dict.fromkeys(name for some in names for name in some))
    if len(united) > 1:
        keys["task"] = KeySpec("category", (len(united),), names=united, role="given")
    return replace(first, keys=keys, action=_joined([spec.action for spec in specs]))


def _joined_key(name: str, specs: Sequence[DataSpec]) -> KeySpec:
    """A key of several datasets. No row of a dataset without "terminated" is an end; all else is missing there."""
    found = [spec.keys[name] for spec in specs if name in spec.keys]
    masked = any(key.masked for key in found) or (len(found) < len(specs) and name != "terminated")
    if {key.kind for key in found} == {"flag", "vector"}:  # 0 and 1 in one dataset, other numbers in another
        found = [key for key in found if key.kind == "vector"]
    joined = _mixture(found)
    if joined.kind == "text":
        joined = replace(joined, names=tuple(dict.fromkeys(word for key in found for word in key.names or ())))
    return replace(joined, masked=masked)


def _mixture(keys: Sequence[KeySpec]) -> KeySpec:
    if len(keys) == 1 or any(key.mean is None or key.std is None for key in keys):
        return keys[0]
    means, deviations = np.array([key.mean for key in keys]), np.array([key.std for key in keys])
    mean = means.mean(0)
    std = np.sqrt((deviations**2 + (means - mean) ** 2).mean(0))
    return replace(keys[0], mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def _joined(actions: Sequence[ActionSpec]) -> ActionSpec:
    known = [action for action in actions if action.size]
    if not known:
        return actions[0]
    masked = len(known) < len(actions) or any(action.masked for action in known)
    first = replace(known[0], masked=masked)
    lows, highs = [a.low for a in known if a.low is not None], [a.high for a in known if a.high is not None]
    if len(lows) < len(known) or len(highs) < len(known):
        return first
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    return replace(first, low=tuple(low.tolist()), high=tuple(high.tolist()))
