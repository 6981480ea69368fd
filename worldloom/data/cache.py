"""The decoded cache: a dataset read once into memory-mapped arrays, from which windows are copied at memory speed.

N rows, E episodes, D table columns, B batch, T time, C H W image channels, height, width.

A folder of the cache holds `meta.json`, one uint8 `[N, C, H, W]` array per image key, and one float32 table `[N, D]`
with everything else, so that a batch costs one gather per camera and one for all the rest. It is keyed by the dataset's
fingerprint, the resolution and a version, is written under another name and renamed when complete. Safe to delete.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from sys import getrefcount
from typing import Any, Self

import numpy as np
import torch

from worldloom.data.cache_build import broken, build, cache_folder, default_cache_dir
from worldloom.data.episode import EpisodeSource
from worldloom.data.segment import Segment
from worldloom.data.source import open_dataset
from worldloom.data.spec import ActionSpec, DataSpec
from worldloom.errors import UserError


def cache_dataset(
    path: Path | str,
    image_size: tuple[int, int] | None = (64, 64),
    *,
    skip_broken: bool = False,
    cache_dir: Path | None = None,
) -> "CachedDataset":
    """The dataset at `path`, decoded at `image_size` (height, width; None keeps its own), from the cache or into it.

    The cache folder is `cache_dir`, else $WORLDLOOM_CACHE, else ~/.cache/worldloom. Raises `BrokenEpisode` for the
    first episode that cannot be trusted, or leaves such episodes out and lists them in `.skipped` if `skip_broken`.
    Raises `UserError` when nothing is readable or the disk is full.
    """
    return cache_source(open_dataset(path), image_size, skip_broken=skip_broken, cache_dir=cache_dir)


def cache_source(
    source: EpisodeSource,
    image_size: tuple[int, int] | None = (64, 64),
    *,
    skip_broken: bool = False,
    cache_dir: Path | None = None,
) -> "CachedDataset":
    """`cache_dataset` for a source that is already open."""
    folder = cache_folder(source, image_size, cache_dir or default_cache_dir())
    if not (folder / "meta.json").exists():
        build(source, folder, image_size, skip_broken)
    dataset = CachedDataset.load(folder, source.path)
    if dataset.skipped and not skip_broken:
        raise broken(*dataset.skipped[0])
    return dataset


SAMPLED_FRAMES = 1000


@dataclass(frozen=True)
class CachedDataset:
    """Episodes `0..E-1` lie one after the other in `images[key]` and `table`; `offsets[e]` is the first row of e.

    lengths: rows of each episode `[E]`. tasks: the distinct language tasks. source_index: each episode's number in the
    source `[E]`. skipped: (number in the source, what was wrong) of the episodes left out. columns: which columns of
    the table hold what, in the same order for any two datasets with the same keys ("action", "reward", "terminated",
    "truncated", "task" and the vector keys; further signals come last as "extra.NAME").
    """

    path: Path
    spec: DataSpec
    lengths: np.ndarray
    tasks: list[str]
    about: dict[str, Any]
    fingerprint: str
    skipped: list[tuple[int, str]]
    source_index: np.ndarray
    folder: Path
    columns: dict[str, tuple[int, int]]
    offsets: np.ndarray
    table: np.ndarray
    images: dict[str, np.ndarray]

    @classmethod
    def load(cls, folder: Path, path: Path) -> Self:
        """Open a finished folder of the cache. Raises `UserError` when somebody damaged it."""
        try:
            meta = json.loads((folder / "meta.json").read_text())
            lengths = np.asarray(meta["lengths"], np.int64)
            table = _open(folder / "table.npy", int(lengths.sum()))
            images = {k: _open(folder / name, int(lengths.sum())) for k, name in meta["images"].items()}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"the cache {folder} is damaged ({error}). Delete it; it is made again.") from error
        return cls(
            path=path,
            spec=DataSpec.from_json(meta["spec"]),
            lengths=lengths,
            tasks=meta["tasks"],
            about=meta["about"],
            fingerprint=meta["fingerprint"],
            skipped=[(index, problem) for index, problem in meta["skipped"]],
            source_index=np.asarray(meta["source_index"], np.int64),
            folder=folder,
            columns={k: (first, last) for k, (first, last) in meta["columns"].items()},
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            table=table,
            images=images,
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def column(self, name: str, episode: int | None = None) -> np.ndarray:
        """Rows of one table entry, in own units `[N, D]`, of one episode if given. No copy."""
        rows = slice(None) if episode is None else slice(*self.offsets[[episode, episode + 1]])
        return self.table[rows, slice(*self.columns[name])]

    def task(self, episode: int) -> str:
        """The language task of an episode, "" when it has none."""
        return self.tasks[int(self.column("task", episode)[0, 0])]

    def fit(self, episodes: Sequence[int]) -> DataSpec:
        """The spec with mean and std of vectors and images, and action ranges where none are declared, from `episodes`.

        A dimension that does not change gets std 1: it is then 0 for the model, and a held-out surprise stays finite.
        """
        self.check_episodes(episodes)
        obs = dict(self.spec.obs)
        for key in self.spec.vector_keys:
            mean, std = self._moments(key, episodes)
            obs[key] = replace(obs[key], mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        for key in self.spec.image_keys:
            mean, std = self._picture_moments(key, episodes)
            obs[key] = replace(obs[key], mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        return replace(self.spec, obs=obs, action=self._fit_action(episodes))

    def with_spec(self, spec: DataSpec) -> Self:
        """A view of the same rows: actions scaled by `spec.action`, the task one-hot over `spec.obs["task"].names`.

        Raises `UserError` when the spec describes other data.
        """
        problem = difference(self.spec, spec)
        if problem:
            raise UserError(f"the data at {self.path} do not fit: {problem}.")
        if "task" in spec.category_keys:
            names = spec.obs["task"].names or ()
            missing = [task for task in self.tasks if task and task not in names]
            if missing:
                raise UserError(f"{self.path} has the task {missing[0]!r}, which is not among {list(names)}.")
        return replace(self, spec=spec)

    def segment(self, episode: int, start: int = 0, length: int | None = None) -> Segment:
        """Rows `start .. start + length` (default: to the end) of an episode, `[1, T, ...]`, padded past its end."""
        self.check_episodes([episode])
        rows = int(self.lengths[episode])
        if not 0 <= start < rows or (length is not None and length < 1):
            raise UserError(f"start {start}, length {length}: episode {episode} of {self.path} has rows 0..{rows - 1}.")
        buffers = WindowBuffers(self, 1, rows - start if length is None else length)
        buffers.fill(self, slice(0, 1), np.array([episode]), np.array([start]))
        return buffers.segment(self.spec)

    def check_episodes(self, episodes: Sequence[int]) -> None:
        """Raise `UserError` for no episode at all and for one that does not exist."""
        if not len(episodes):
            raise UserError(f"no episodes chosen from {self.path}, which has {len(self)}.")
        for episode in episodes:
            if not 0 <= episode < len(self):
                raise UserError(f"unknown episode {episode}: {self.path} has episodes 0..{len(self) - 1}.")

    def _moments(self, key: str, episodes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        count = int(self.lengths[list(episodes)].sum())
        mean = sum(self.column(key, e).sum(0, dtype=np.float64) for e in episodes) / count
        variance = sum(((self.column(key, e) - mean) ** 2).sum(0) for e in episodes) / count
        largest = np.max([np.abs(self.column(key, e)).max(0) for e in episodes], axis=0)
        std = np.sqrt(variance)
        return mean, np.where(std > 1e-6 * largest, std, 1.0)

    def _picture_moments(self, key: str, episodes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std of each channel, from frames spread evenly: a thousand tell them to three digits."""
        rows = np.concatenate([np.arange(self.offsets[e], self.offsets[e + 1]) for e in episodes])
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLED_FRAMES)).astype(int)]
        frames = self.images[key][chosen].astype(np.float32) / 255
        std = frames.std((0, 2, 3))
        return frames.mean((0, 2, 3)), np.where(std > 0, std, 1.0)

    def _fit_action(self, episodes: Sequence[int]) -> ActionSpec:
        action = self.spec.action
        if action.kind == "discrete" or (action.low is not None and action.high is not None):
            return action
        # The last row's action is padding and must not widen the range.
        used = [rows for e in episodes if len(rows := self.column("action", e)[:-1])]
        if not used:
            raise UserError(f"no action range is declared in {self.path} and its training episodes have a single row.")
        low, high = np.min([r.min(0) for r in used], axis=0), np.max([r.max(0) for r in used], axis=0)
        return replace(action, low=tuple(low.tolist()), high=tuple(high.tolist()))


class WindowBuffers:
    """Arrays for B windows of T rows, filled from one or several datasets and then seen as a `Segment`."""

    def __init__(self, dataset: CachedDataset, batch: int, length: int):
        self.columns = {k: v for k, v in dataset.columns.items() if not k.startswith("extra.")}
        self.width = max(last for _, last in self.columns.values())
        self.table = np.empty((batch, length, dataset.table.shape[1]), np.float32)
        self.mask = np.empty((batch, length), bool)
        self.images = {k: np.empty((batch, length, *v.shape[1:]), np.uint8) for k, v in dataset.images.items()}
        self.time = np.arange(length)
        self.idle = self._references()

    def in_use(self) -> bool:
        """Whether a tensor somewhere still shares memory with these arrays; `torch.from_numpy` holds a reference."""
        return self._references() != self.idle

    def _references(self) -> list[int]:
        return [getrefcount(a) for a in (self.table, self.mask, *self.images.values())]

    def fill(self, dataset: CachedDataset, part: slice, episodes: np.ndarray, starts: np.ndarray) -> None:
        """Copy the windows of `dataset` at `episodes`, `starts` (each `[b]`) into the batch entries `part`."""
        last = (dataset.lengths[episodes] - 1 - starts)[:, None]
        np.less_equal(self.time, last, out=self.mask[part])
        rows = (dataset.offsets[episodes] + starts)[:, None] + np.minimum(self.time, last)
        for key, source in dataset.images.items():
            # mode="clip" because "raise" makes numpy gather into a hidden copy first. The rows are in range.
            np.take(source, rows, axis=0, out=self.images[key][part], mode="clip")
        self._fill_table(dataset, part, rows)
        first, end = self.columns["action"]
        action = self.table[part, :, first:end]
        action[...] = dataset.spec.action.scale(action)
        # The last row's action led nowhere and rows past the end are copies of it: nothing was done, nothing arrived.
        action[self.time >= last] = 0
        outside = ~self.mask[part]
        if outside.any():
            for name in ("reward", "terminated", "truncated"):
                self.table[part, :, self.columns[name][0]][outside] = 0
        if "task" in dataset.spec.category_keys:
            self._rename_tasks(dataset, part)

    def segment(self, spec: DataSpec) -> Segment:
        """The batch as tensors that share memory with these arrays, except for the boolean fields and the task."""
        table = torch.from_numpy(self.table)
        images = {k: torch.from_numpy(v) for k, v in self.images.items()}
        obs = {k: images[k] if k in images else self._vector(table, k, spec) for k in spec.obs}
        first, end = self.columns["action"]
        return Segment(
            obs=obs,
            action=table[..., first:end],
            reward=table[..., self.columns["reward"][0]],
            terminated=table[..., self.columns["terminated"][0]] != 0,
            truncated=table[..., self.columns["truncated"][0]] != 0,
            mask=torch.from_numpy(self.mask),
        )

    def _fill_table(self, dataset: CachedDataset, part: slice, rows: np.ndarray) -> None:
        out = self.table[part]
        if dataset.table.shape[1] == out.shape[-1]:
            np.take(dataset.table, rows, axis=0, out=out, mode="clip")
        else:  # another number of further signals, which are no part of a segment
            out[..., : self.width] = dataset.table[rows][..., : self.width]

    def _rename_tasks(self, dataset: CachedDataset, part: slice) -> None:
        """The number of a task in this dataset becomes its number in the spec, -1 for an episode without one."""
        names = dataset.spec.obs["task"].names or ()
        number = np.array([names.index(t) if t in names else -1 for t in dataset.tasks], np.float32)
        column = self.table[part, :, self.columns["task"][0]]
        column[...] = number[column.astype(np.int64)]

    def _vector(self, table: torch.Tensor, key: str, spec: DataSpec) -> torch.Tensor:
        first, end = self.columns[key]
        if spec.obs[key].kind == "category":
            return (table[..., first:end] == torch.arange(spec.obs[key].shape[0])).float()
        return table[..., first:end]


def difference(one: DataSpec, two: DataSpec) -> str | None:
    """What keeps two specs from describing the same kind of data, in words, or None. The task's names may differ."""
    keys = [{k: s for k, s in spec.obs.items() if s.kind != "category"} for spec in (one, two)]
    for key in [*keys[0], *(k for k in keys[1] if k not in keys[0])]:
        if key not in keys[0] or key not in keys[1]:
            return f"the observation key {key!r} is missing in one of them ({sorted(keys[0])} and {sorted(keys[1])})"
        first, second = keys[0][key], keys[1][key]
        if (first.kind, first.shape) != (second.kind, second.shape):
            return f"{key!r} is {first.kind} {first.shape} in one and {second.kind} {second.shape} in the other"
    first_action, second_action = one.action, two.action
    if (first_action.kind, first_action.size) != (second_action.kind, second_action.size):
        return (
            f"the action is {first_action.kind} of size {first_action.size} in one "
            f"and {second_action.kind} of size {second_action.size} in the other"
        )
    if first_action.names and second_action.names and first_action.names != second_action.names:
        return f"the action's names are {first_action.names} in one and {second_action.names} in the other"
    if one.fps != two.fps:
        return f"one has {one.fps:g} frames per second and the other {two.fps:g}"
    return None


def _open(path: Path, rows: int) -> np.ndarray:
    """A memory-mapped array as a plain ndarray: numpy's memmap class costs time in every slice."""
    array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    if len(array) != rows:
        raise ValueError(f"{path.name} has {len(array)} rows instead of {rows}")
    return array
