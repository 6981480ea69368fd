"""Writing a folder of the decoded cache, all or nothing.

Arrays are written as streams, never through a memory map: a full disk is then an error to report instead of a SIGBUS.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

import numpy as np
from numpy.lib import format as npy
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from worldloom.data.episode import BrokenEpisode, Episode, EpisodeSource
from worldloom.data.spec import MASK, SIGNALS, DataSpec, KeySpec, mask_name
from worldloom.data.validate import check_episode
from worldloom.errors import UserError

VERSION = 1  # of the arrays; the description in meta.json has a version of its own
FLAG, NUMBER = KeySpec("flag", (), role="target"), KeySpec("vector", (), role="target")
NOT_LEARNED = frozenset({"synthetic", "source_episode"})  # where a row comes from is no property of the world
BUILDING = ".building-"
NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)  # a file, or no name, where the cache should be


def default_cache_dir() -> Path:
    """$WORLDLOOM_CACHE, else ~/.cache/worldloom."""
    return Path(os.environ.get("WORLDLOOM_CACHE") or Path.home() / ".cache" / "worldloom")


def cache_folder(source: EpisodeSource, image_size: tuple[int, int] | None, cache_dir: Path) -> Path:
    """Where this data at this resolution lies: a readable name that changes whenever the arrays would."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(source.path).resolve().name)[:60]
    size = "native" if image_size is None else f"{image_size[0]}x{image_size[1]}"
    return cache_dir / f"{name}-{source.fingerprint()[:24]}-{size}-v{VERSION}"


def build(source: EpisodeSource, folder: Path, image_size: tuple[int, int] | None, skip_broken: bool) -> None:
    """Decode every episode of `source` into `folder`.

    A process that is killed leaves only a folder that is never read and that the next build removes. Of two processes
    building the same data the first to finish wins. Raises `BrokenEpisode`, and `UserError` when the disk is full.
    """
    spec = source.spec if image_size is None else source.spec.with_image_size(*image_size)
    if "task" in spec.keys:
        raise UserError(f"{source.path} has a key 'task', which is the language task's name. Rename it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        _check_space(source, spec, folder.parent)
        with _workplace(folder.parent) as work:
            _decode(source, spec, image_size, work, skip_broken)
            _publish(work, folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, *NO_FOLDER):
            raise
        raise _cannot_write(folder.parent, str(error.strerror)) from error


def broken(index: int, problem: str) -> BrokenEpisode:
    """The error for an episode that cannot be trusted, with the way around it."""
    hint = "" if "--skip-broken" in problem else " Fix it, or leave broken episodes out: --skip-broken."
    return BrokenEpisode(f"episode {index}: {problem}{hint}")


def _decode(
    source: EpisodeSource, spec: DataSpec, image_size: tuple[int, int] | None, work: Path, skip_broken: bool
) -> None:
    writer = _CacheWriter(work, spec, str(source.path))
    try:
        for index in with_progress(source, "decoding"):
            try:
                writer.add(index, source.read(index, image_size))
            except BrokenEpisode as error:
                if not skip_broken:
                    raise broken(index, str(error)) from error
                writer.skipped.append((index, str(error)))
        if not writer.kept:
            first = f" The first problem: {writer.skipped[0][1]}" if writer.skipped else ""
            raise UserError(f"{source.path} holds no readable episode.{first}")
        writer.finish(source)
    finally:
        writer.close()


class _CacheWriter:
    """Appends episodes to the arrays of a folder, then writes `meta.json`. `where` is what errors call the data."""

    def __init__(self, work: Path, spec: DataSpec, where: str):
        self.work, self.spec, self.where = work, spec, where
        cameras = [key for key, entry in spec.keys.items() if entry.kind == "image"]
        self.image_files = {key: f"image-{i}.npy" for i, key in enumerate(cameras)}
        self.images = {k: _ArrayFile(work / name, spec.keys[k].shape, np.uint8) for k, name in self.image_files.items()}
        self.table: _ArrayFile | None = None
        self.columns: dict[str, tuple[int, int]] = {}
        self.tasks: list[str] = []
        self.texts: dict[str, list[str]] = {k: [] for k, s in spec.keys.items() if s.kind == "text"}
        self.learned: dict[str, KeySpec] = {}
        self.lengths: list[int] = []
        self.kept: list[int] = []
        self.skipped: list[tuple[int, str]] = []
        self.has_end = False

    def add(self, index: int, episode: Episode) -> None:
        check_episode(episode, self.spec, self.where)
        values = _columns(self.spec, self._numbered(episode))
        self._note_signals(episode)
        if self.table is None:
            self.columns = _layout(values)
            width = sum(v.shape[1] for v in values.values())
            self.table = _ArrayFile(self.work / "table.npy", (width,), np.float32)
        if _layout(values) != self.columns:
            raise BrokenEpisode(f"its signals are {sorted(episode.extra)}, unlike those of the episodes before it.")
        values["task"][:] = number_of(episode.task, self.tasks)
        self.table.append(np.concatenate(list(values.values()), 1))
        for key, file in self.images.items():
            file.append(episode.obs[key])
        self.lengths.append(len(episode))
        self.kept.append(index)
        self.has_end |= bool(np.any(episode.terminated))

    def finish(self, source: EpisodeSource) -> None:
        for file in self._files():
            file.finish()
        meta = {
            "version": 2,
            "spec": self._final_spec().to_json(),
            "lengths": self.lengths,
            "tasks": self.tasks,
            "about": source.about,
            "fingerprint": source.fingerprint(),
            "skipped": self.skipped,
            "source_index": self.kept,
            "columns": self.columns,
            "images": self.image_files,
        }
        with (self.work / "meta.json").open("w") as stream:
            json.dump(meta, stream, indent=1, default=str)
            stream.flush()
            os.fsync(stream.fileno())

    def close(self) -> None:
        for file in self._files():
            file.close()

    def _files(self) -> list["_ArrayFile"]:
        return [*self.images.values(), *([self.table] if self.table else [])]

    def _numbered(self, episode: Episode) -> Episode:
        """The episode with every text as the number of its words."""
        if not self.texts:
            return episode
        numbers = {k: np.array([number_of(str(v), words) for v in episode.obs[k]]) for k, words in self.texts.items()}
        return replace(episode, obs={**episode.obs, **numbers})

    def _note_signals(self, episode: Episode) -> None:
        """What each further signal turns out to be: a number is a yes or no while it is nothing but 0 and 1."""
        for name, values in episode.extra.items():
            if name in NOT_LEARNED or name.endswith(MASK) or (values.dtype.kind == "i" and name not in SIGNALS):
                continue
            yes_or_no = bool(np.isin(values, (0, 1)).all()) and self.learned.get(name, FLAG).kind == "flag"
            masked = mask_name(name) in episode.extra
            self.learned[name] = replace(FLAG if yes_or_no else NUMBER, masked=masked)

    def _final_spec(self) -> DataSpec:
        keys = {k: replace(s, names=tuple(self.texts[k])) if k in self.texts else s for k, s in self.spec.keys.items()}
        if len(self.tasks) > 1:
            keys["task"] = KeySpec("category", (len(self.tasks),), names=tuple(self.tasks), role="given")
        targets = {**self.learned, "terminated": SIGNALS["terminated"]} if self.has_end else dict(self.learned)
        if not self.has_end:
            keys.pop("terminated", None)
        return replace(self.spec, keys={**{k: s for k, s in keys.items() if k not in targets}, **targets})


class _ArrayFile:
    """A .npy file that grows row by row. Its header is written last, so that an unfinished file is not an array."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type[np.generic]):
        self.file = path.open("wb")
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.rows = 0
        self._header(0)

    def append(self, rows: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.rows += len(rows)

    def finish(self) -> None:
        self._header(self.rows)
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()

    def _header(self, rows: int) -> None:
        """numpy pads headers so that the first dimension can grow in place."""
        descr = npy.dtype_to_descr(self.dtype)
        self.file.seek(0)
        npy.write_array_header_1_0(self.file, {"descr": descr, "fortran_order": False, "shape": (rows, *self.shape)})


def _columns(spec: DataSpec, episode: Episode) -> dict[str, np.ndarray]:
    """Everything of an episode that is not an image, in the table's order, each float32 `[T, D]`."""
    rows = len(episode)
    known = {"action": episode.action, "reward": episode.reward, "terminated": episode.terminated}
    known |= {"truncated": episode.truncated, "task": np.zeros(rows)}
    images = {k for k, s in spec.keys.items() if s.kind == "image"}
    arrays = {k: episode.obs[k] for k in sorted(episode.obs) if k not in images}
    if episode.action_mask is not None:
        arrays[mask_name("action")] = episode.action_mask
    extra = {f"extra.{k}": v for k, v in sorted(episode.extra.items())}
    columns = {**known, **arrays, **extra}
    return {k: np.array(v, np.float32).reshape(rows, v.size // rows) for k, v in columns.items()}


def number_of(words: str, known: list[str]) -> int:
    """The place of `words` among the `known` ones, at whose end they are put where they are new."""
    if words not in known:
        known.append(words)
    return known.index(words)


def _layout(values: dict[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    ends = np.cumsum([v.shape[1] for v in values.values()]).tolist()
    return {k: (end - v.shape[1], end) for (k, v), end in zip(values.items(), ends, strict=True)}


def with_progress(source: EpisodeSource, doing: str, first: int = 0, count: int | None = None) -> Iterator[int]:
    """Episode numbers `first` to `count` - 1 (default: all); a bar appears on a terminal once it has taken a second."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    count = len(source.episodes) if count is None else count
    task = progress.add_task(f"{doing} {Path(source.path).name}", total=count, completed=first)
    started, shown = time.monotonic(), False
    try:
        for index in range(first, count):
            if not shown and time.monotonic() - started > 1:
                progress.start()
                shown = True
            yield index
            progress.advance(task)
    finally:
        if shown:
            progress.stop()


@contextmanager
def _workplace(cache_dir: Path) -> Iterator[Path]:
    """A folder that is removed unless published. Its lock dies with this process and shows others that it is in use."""
    work = cache_dir / f"{BUILDING}{os.getpid()}-{token_hex(4)}"
    work.mkdir()
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, folder: Path) -> None:
    try:
        work.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Another process finished the same data first; what it wrote is as good as ours.


def _remove_abandoned(cache_dir: Path) -> None:
    """Delete what killed builds left: unlocked, and not so young that its builder may be about to lock it."""
    for work in cache_dir.glob(BUILDING + "*"):
        try:
            if time.time() - work.stat().st_mtime < 60:
                continue
            with (work / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(work, ignore_errors=True)
        except (BlockingIOError, FileNotFoundError):
            continue  # in use, or another process has just removed it


def _check_space(source: EpisodeSource, spec: DataSpec, cache_dir: Path) -> None:
    """Say before an hour of decoding that the disk is too small."""
    rows = sum(episode.length for episode in source.episodes)
    needed = rows * sum(int(np.prod(spec.obs[k].shape)) for k in spec.image_keys)
    free = shutil.disk_usage(cache_dir).free
    if needed > free:
        raise _cannot_write(cache_dir, f"it needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free")


def _cannot_write(cache_dir: Path, problem: str) -> UserError:
    return UserError(
        f"cannot write the cache {cache_dir}: {problem}. Make room or set WORLDLOOM_CACHE to another folder."
    )
