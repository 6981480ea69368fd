"""Windows cut from rows in memory: the same for a dataset's cache, for a replay, for one episode.

B batch, b some of it, T time, N rows, E episodes, D table columns, A action size.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from sys import getrefcount
from typing import Protocol

import numpy as np
import torch

from worldloom.data.segment import Segment, outcome
from worldloom.data.spec import MASK, DataSpec, KeySpec, mask_name


class Rows(Protocol):
    """Episodes one after the other: `lengths` and `offsets` `[E]` of their rows, uint8 `images`, and a float32 `table`
    `[N, D]` of everything else in own units, in which `columns` says what lies where.
    """

    @property
    def lengths(self) -> np.ndarray: ...
    @property
    def offsets(self) -> np.ndarray: ...
    @property
    def table(self) -> np.ndarray: ...
    @property
    def columns(self) -> Mapping[str, tuple[int, int]]: ...
    @property
    def images(self) -> Mapping[str, np.ndarray]: ...

    def has(self, name: str) -> bool:
        """Whether a column, such as "extra.cost", "reward" or "action", holds what was recorded."""

    def words(self, key: str) -> Sequence[str]:
        """The different strings of the task or of a text, in the order of their numbers."""


class WindowBuffers:
    """Arrays for B windows of T rows, filled from one or several datasets and then seen as a `Segment`.

    This is the one place where windows are cut. What is laid out follows from the `spec` that the datasets are seen
    through. A key that a dataset lacks is zero and masked.
    """

    def __init__(self, spec: DataSpec, batch: int, length: int):
        self.spec, self.columns = spec, table_columns(spec)
        width = max(last for _, last in self.columns.values())
        cameras = {k: s.shape for k, s in spec.keys.items() if s.kind == "image"}
        self.table = np.empty((batch, length, width), np.float32)
        self.mask = np.empty((batch, length), bool)
        self.images = {k: np.empty((batch, length, *shape), np.uint8) for k, shape in cameras.items()}
        self.time = np.arange(length)
        self.idle = self._references()

    def in_use(self) -> bool:
        """Whether a tensor somewhere still shares memory with these arrays; `torch.from_numpy` holds a reference."""
        return self._references() != self.idle

    def _references(self) -> list[int]:
        return [getrefcount(a) for a in (self.table, self.mask, *self.images.values())]

    def fill(self, dataset: Rows, part: slice, episodes: np.ndarray, starts: np.ndarray) -> None:
        """Copy the windows of `dataset` at `episodes`, `starts` (each `[b]`) into the batch entries `part`."""
        last = (dataset.lengths[episodes] - 1 - starts)[:, None]
        np.less_equal(self.time, last, out=self.mask[part])
        rows = (dataset.offsets[episodes] + starts)[:, None] + np.minimum(self.time, last)
        for key, out in self.images.items():
            if key in dataset.images:
                # mode="clip" because "raise" makes numpy gather into a hidden copy first. The rows are in range.
                np.take(dataset.images[key], rows, axis=0, out=out[part], mode="clip")
            else:
                out[part] = 0
        self._fill_table(dataset, part, rows)
        first, end = self.columns["action"]
        action = self.table[part, :, first:end]
        action[...] = self.spec.action.scale(action)
        # The last row's action led nowhere and rows past the end are copies of it: nothing was done, nothing arrived.
        action[self.time >= last] = 0
        outside = ~self.mask[part]
        if outside.any():
            for name in ("reward", "terminated", "truncated"):
                self.table[part, :, self.columns[name][0]][outside] = 0
        for key in ("task", *self.spec.of_kind("text")):
            if key in self.spec.keys:
                self._renumber(dataset, part, key)

    def segment(self) -> Segment:
        """The batch as tensors that share memory with these arrays, except for flags, masks, texts and the task."""
        table = torch.from_numpy(self.table)
        obs = {name: t for key in self.spec.obs for name, t in self._tensors(table, key)}
        rows = {name: table[..., self.columns[name][0]] for name in ("reward", "terminated", "truncated")}
        signals = outcome(rows["reward"], rows["terminated"] != 0, rows["truncated"] != 0)
        for key in self.spec.targets:
            signals |= dict(self._tensors(table, key))
        if self.spec.action.masked:
            signals[mask_name("action")] = table[..., self.columns[mask_name("action")][0]] != 0
        action = table[..., slice(*self.columns["action"])]
        return Segment(obs, action, signals, torch.from_numpy(self.mask))

    def _fill_table(self, dataset: Rows, part: slice, rows: np.ndarray) -> None:
        out = self.table[part]
        if all(dataset.columns.get(name) == place for name, place in self.columns.items()):
            if dataset.table.shape[1] == out.shape[-1]:
                np.take(dataset.table, rows, axis=0, out=out, mode="clip")
            else:  # further signals at the end that the spec does not name
                out[...] = dataset.table[rows][..., : out.shape[-1]]
            return
        taken = dataset.table[rows]
        for name, (first, end) in self.columns.items():
            if name in dataset.columns and dataset.columns[name] != (0, 0):
                out[..., first:end] = taken[..., slice(*dataset.columns[name])]
            else:  # a mask that the dataset needs not have, or what it has not got
                out[..., first:end] = name.endswith(MASK) and dataset.has(name.removesuffix(MASK))

    def _renumber(self, dataset: Rows, part: slice, key: str) -> None:
        """The number of a task or text in this dataset becomes its number in the spec, -1 for what it does not name."""
        names, known = self.spec.keys[key].names or (), dataset.words(key)
        if not known:
            return
        number = np.array([names.index(t) if t in names else -1 for t in known], np.float32)
        column = self.table[part, :, self.columns[key][0]]
        column[...] = number[column.astype(np.int64)]

    def _tensors(self, table: torch.Tensor, key: str) -> Iterator[tuple[str, torch.Tensor]]:
        """A key in model units, and its mask."""
        entry = self.spec.keys[key]
        if entry.kind == "image":
            yield key, torch.from_numpy(self.images[key])
        else:
            column = column_of(key, entry)
            yield key, as_kind(table[..., slice(*self.columns[column])], entry, key)
        if entry.has_mask:
            mask = table[..., slice(*self.columns[mask_name(column_of(key, entry))])] != 0
            yield mask_name(key), mask if entry.mask_shape else mask[..., 0]


def table_columns(spec: DataSpec) -> dict[str, tuple[int, int]]:
    """Where each column lies in the table of a batch: as in a cache that holds exactly these keys."""
    fixed = {"action": spec.action.size, "reward": 1, "terminated": 1, "truncated": 1, "task": 1}
    arrays: dict[str, int] = {}
    extra: dict[str, int] = {}
    if spec.action.masked:
        arrays[mask_name("action")] = 1
    for name, key in spec.keys.items():
        column = column_of(name, key)
        group = extra if column.startswith("extra.") else arrays
        if key.kind != "image" and name not in fixed:
            group[column] = 1 if key.kind == "text" else math.prod(key.shape)
        if key.has_mask:
            group[mask_name(column)] = math.prod(key.mask_shape)
    sizes = {**fixed, **dict(sorted(arrays.items())), **dict(sorted(extra.items()))}
    ends = list(accumulate(sizes.values()))
    return {name: (end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def column_of(name: str, key: KeySpec) -> str:
    """Under which name the table of a cache holds a key."""
    own = name in ("reward", "terminated") or key.role != "target" or key.shape != ()
    return name if own else f"extra.{name}"


def as_kind(columns: torch.Tensor, entry: KeySpec, key: str) -> torch.Tensor:
    """Columns of the table `[B, T, D]` as a key of this kind."""
    if key == "task":
        return (columns == torch.arange(entry.shape[0])).float()
    if entry.kind == "text":
        return columns[..., 0].long()
    if entry.kind == "flag":
        return columns[..., 0] != 0
    if entry.shape == ():
        return columns[..., 0]
    return columns if len(entry.shape) == 1 else columns.unflatten(-1, entry.shape)
