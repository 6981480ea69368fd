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
from typing import Any, Self

import numpy as np

from worldloom.data.buffers import WindowBuffers
from worldloom.data.cache_build import broken, build, cache_folder, default_cache_dir
from worldloom.data.episode import EpisodeSource
from worldloom.data.segment import Segment
from worldloom.data.source import open_dataset
from worldloom.data.spec import SIGNALS, ActionSpec, DataSpec, mask_name
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
    "truncated", "task" and the other keys; further signals come last as "extra.NAME"). texts: the different strings of
    each text key. stored: the spec of what is there, which `spec` is a view of.
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
    texts: dict[str, list[str]]
    stored: DataSpec

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
        columns = {k: (first, last) for k, (first, last) in meta["columns"].items()}
        spec = DataSpec.from_json(meta["spec"])
        spec = spec if "version" in meta else with_known_signals(spec, columns, table)
        return cls(
            path=path,
            spec=spec,
            stored=spec,
            texts={k: list(s.names or ()) for k, s in spec.keys.items() if s.kind == "text"},
            lengths=lengths,
            tasks=meta["tasks"],
            about=meta["about"],
            fingerprint=meta["fingerprint"],
            skipped=[(index, problem) for index, problem in meta["skipped"]],
            source_index=np.asarray(meta["source_index"], np.int64),
            folder=folder,
            columns=columns,
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
        keys = dict(self.spec.keys)
        for name, key in keys.items():
            if key.kind == "image":
                mean, std = self._picture_moments(name, episodes)
            elif key.kind in ("vector", "set", "window") and key.shape:
                mean, std = self._moments(name, episodes)
            else:
                continue
            keys[name] = replace(key, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        return replace(self.spec, keys=keys, action=self._fit_action(episodes))

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
        buffers = WindowBuffers(self.spec, 1, rows - start if length is None else length)
        buffers.fill(self, slice(0, 1), np.array([episode]), np.array([start]))
        return buffers.segment()

    def has(self, name: str) -> bool:
        """Whether a column, such as "extra.cost", "reward" or "action", holds what was recorded."""
        if name == "action":
            return self.stored.action.size > 0
        return name.removeprefix("extra.") in self.stored.keys

    def words(self, key: str) -> list[str]:
        """The different strings of the task or of a text, in the order of their numbers."""
        return self.tasks if key == "task" else self.texts.get(key, [])

    def check_episodes(self, episodes: Sequence[int]) -> None:
        """Raise `UserError` for no episode at all and for one that does not exist."""
        if not len(episodes):
            raise UserError(f"no episodes chosen from {self.path}, which has {len(self)}.")
        for episode in episodes:
            if not 0 <= episode < len(self):
                raise UserError(f"unknown episode {episode}: {self.path} has episodes 0..{len(self) - 1}.")

    def _moments(self, key: str, episodes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        rows = [self._values(key, e) for e in episodes]
        count = max(sum(map(len, rows)), 1)
        mean = sum(part.sum(0, dtype=np.float64) for part in rows) / count
        variance = sum(((part - mean) ** 2).sum(0) for part in rows) / count
        largest = np.max([np.abs(part).max(0, initial=0) for part in rows], axis=0)
        std = np.sqrt(variance)
        return mean, np.where(std > 1e-6 * largest, std, 1.0)

    def _values(self, key: str, episode: int) -> np.ndarray:
        """What an episode has of a key, `[n, D]`: rows, samples of a window, or members of a set that are there."""
        entry, rows = self.spec.keys[key], self.column(key, episode)
        values = rows.reshape(-1, entry.shape[-1])
        name = mask_name(key)
        if name not in self.columns:
            return values
        there = self.column(name, episode) != 0
        return values[np.repeat(there.reshape(-1), len(values) // there.size)]

    def _picture_moments(self, key: str, episodes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std of each channel, from frames spread evenly: a thousand tell them to three digits."""
        rows = np.concatenate([np.arange(self.offsets[e], self.offsets[e + 1]) for e in episodes])
        chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLED_FRAMES)).astype(int)]
        frames = self.images[key][chosen].astype(np.float32) / 255
        std = frames.std((0, 2, 3))
        return frames.mean((0, 2, 3)), np.where(std > 0, std, 1.0)

    def _actions(self, episode: int) -> np.ndarray:
        """The actions of an episode that were recorded, `[n, A]`."""
        taken, name = self.column("action", episode)[:-1], mask_name("action")
        return taken[self.column(name, episode)[:-1, 0] != 0] if name in self.columns else taken

    def _fit_action(self, episodes: Sequence[int]) -> ActionSpec:
        action = self.spec.action
        if action.kind == "discrete" or (action.low is not None and action.high is not None):
            return action
        # The last row's action is padding and must not widen the range.
        used = [rows for e in episodes if len(rows := self._actions(e))]
        if not used:
            raise UserError(f"no action range is declared in {self.path} and its training episodes have a single row.")
        low, high = np.min([r.min(0) for r in used], axis=0), np.max([r.max(0) for r in used], axis=0)
        return replace(action, low=tuple(low.tolist()), high=tuple(high.tolist()))


def difference(one: DataSpec, two: DataSpec) -> str | None:
    """What keeps two specs from describing the same kind of data, in words, or None.

    The task's names may differ, and so may the targets and whether there are actions: what one lacks is masked.
    """
    keys = [{k: s for k, s in spec.arrays.items() if s.kind not in ("category", "text")} for spec in (one, two)]
    for key in [*keys[0], *(k for k in keys[1] if k not in keys[0])]:
        mine, others = keys[0].get(key), keys[1].get(key)
        if mine is None or others is None:
            there = mine or others
            if there is not None and (there.masked or there.role == "target"):
                continue
            return f"the observation key {key!r} is missing in one of them ({sorted(keys[0])} and {sorted(keys[1])})"
        if (mine.kind, mine.shape) != (others.kind, others.shape):
            return f"{key!r} is {mine.kind} {mine.shape} in one and {others.kind} {others.shape} in the other"
    first, second = one.action, two.action
    if first.size and second.size and (first.kind, first.size) != (second.kind, second.size):
        sizes = f"{first.kind} of size {first.size} in one and {second.kind} of size {second.size} in the other"
        return f"the action is {sizes}"
    if first.names and second.names and first.names != second.names:
        return f"the action's names are {first.names} in one and {second.names} in the other"
    if list(first.slices) != list(second.slices) and first.size and second.size:
        return f"the action's groups are {list(first.slices)} in one and {list(second.slices)} in the other"
    if one.fps != two.fps:
        return f"one has {one.fps:g} frames per second and the other {two.fps:g}"
    return None


def with_known_signals(spec: DataSpec, columns: dict[str, tuple[int, int]], table: np.ndarray) -> DataSpec:
    """The spec of a cache that was written before signals were keys: success and cost are those that it may hold."""
    found = {}
    for name in ("success", "cost"):
        if f"extra.{name}" in columns:
            binary = bool(np.isin(table[:, columns[f"extra.{name}"][0]], (0, 1)).all())
            found[name] = SIGNALS["success"] if binary else SIGNALS["cost"]
    return spec.with_targets({**spec.targets, **found})


def _open(path: Path, rows: int) -> np.ndarray:
    """A memory-mapped array as a plain ndarray: numpy's memmap class costs time in every slice."""
    array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    if len(array) != rows:
        raise ValueError(f"{path.name} has {len(array)} rows instead of {rows}")
    return array
