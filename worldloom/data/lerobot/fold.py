"""Fold the journal's finished episodes into LeRobotDataset v3.0 files. See `journal` for why this survives any crash.

One fold group is one number everywhere: data/, videos/ and meta/episodes get file k for the same episodes.
"""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldloom.data import durable, video
from worldloom.data.lerobot.info import fill
from worldloom.data.lerobot.journal import FACTS, FOLDER, Entry, Journal, lock
from worldloom.data.lerobot.stats import Stats, merge, vector_stats
from worldloom.data.lerobot.tables import EPISODES_PATH, episodes_schema, hugging_face_schema, tasks_table
from worldloom.errors import UserError

INFO = Path("meta/info.json")


@dataclass
class FoldProgress:
    """What is committed so far, carried from group to group."""

    root: Path
    info: dict[str, Any]
    tasks: list[str]
    next_file: int = 0
    stats: dict[str, Stats] = field(default_factory=dict)

    def add_stats(self, stats: dict[str, Any]) -> None:
        """Merge one episode's statistics into those of the dataset."""
        for name, new in stats.items():
            arrays = {k: np.asarray(v) for k, v in new.items()}
            self.stats[name] = merge([self.stats[name], arrays]) if name in self.stats else arrays


def video_features(info: dict[str, Any]) -> list[str]:
    """The features stored as mp4. Raises `UserError` for a name that is a path: files are named after them."""
    names = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    for name in names:
        if "/" in name:
            raise UserError(f"{INFO}: the feature {name!r} has a '/' in its name. Rename it.")
    return names


def recover(root: Path) -> None:
    """Fold what an interrupted recording left behind. Does nothing while a living process is writing."""
    if not Journal(root).folder.is_dir():
        return
    try:
        descriptor = lock(root)
    except OSError as error:
        raise UserError(
            f"{root}: an interrupted recording must be finished, but the folder cannot be written: {error}"
        ) from error
    if descriptor is None:
        return
    try:
        fold(root)
    finally:
        os.close(descriptor)


def fold(root: Path, keep_lock: bool = False) -> None:
    """Move every finished episode into the dataset, then delete the journal. The caller holds the lock.

    A writer that goes on to record keeps its lock file: deleting it would let a second writer in.

    Raises `UserError` when the disk is full (the journal keeps the episodes) or an entry cannot be read.
    """
    journal = Journal(root)
    info = _current_info(root, journal)
    if info is not None and "worldloom" in info:
        # Entries below "folded" were committed just before a crash; clearing the journal deletes them.
        pending = [e for e in journal.entries(video_features(info)) if e.number >= info["worldloom"]["folded"]]
        progress = load_progress(root, info) if pending else None
        for group in groups(pending, info):
            assert progress is not None
            _fold_group(progress, group)
    journal.clear(keep_lock)


def _current_info(root: Path, journal: Journal) -> dict[str, Any] | None:
    """The committed info.json, or the empty one that recording began from; None if nothing was ever recorded."""
    committed = root / INFO
    try:
        return json.loads(committed.read_text(encoding="utf-8")) if committed.exists() else journal.head
    except ValueError as error:
        raise UserError(f"{committed}: is not JSON ({error}). Restore the file.") from error


def load_progress(root: Path, info: dict[str, Any]) -> FoldProgress:
    """The tasks, statistics and next file number of what is committed."""
    tasks_path = root / "meta/tasks.parquet"
    tasks = _table(tasks_path).sort_by("task_index")["task"].to_pylist() if tasks_path.exists() else []
    progress = FoldProgress(root, info, tasks)
    for path in sorted(root.glob("meta/episodes/*/*.parquet")):
        for row in _table(path).to_pylist():
            if row["episode_index"] < info["total_episodes"]:
                number = row["meta/episodes/chunk_index"] * info["chunks_size"] + row["meta/episodes/file_index"]
                progress.next_file = max(progress.next_file, number + 1)
                progress.add_stats(_nested_stats(row))
    return progress


def _table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read, it is truncated or not parquet ({error}). Restore it.") from error


def _nested_stats(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    stats: dict[str, dict[str, Any]] = {}
    for name, value in row.items():
        if name.startswith("stats/"):
            feature, statistic = name.removeprefix("stats/").rsplit("/", 1)
            stats.setdefault(feature, {})[statistic] = value
    return stats


def groups(entries: Sequence[Entry], info: dict[str, Any]) -> Iterator[list[Entry]]:
    """Cut the episodes so that no data file and no video file outgrows its limit (an episode is never cut)."""
    limits = {"": info["data_files_size_in_mb"] * 2**20}
    video_limit = info["video_files_size_in_mb"] * 2**20
    group: list[Entry] = []
    total: dict[str, int] = {}
    shape: list[Any] = []
    for entry in entries:
        sizes = entry.sizes()
        signatures = [video.signature(path) for path in entry.videos.values()]
        full = any(total.get(k, 0) + v > limits.get(k, video_limit) for k, v in sizes.items())
        if group and (full or signatures != shape):
            yield group
            group = []
        if not group:
            total, shape = dict.fromkeys(sizes, 0), signatures
        group.append(entry)
        total = {k: total[k] + v for k, v in sizes.items()}
    if group:
        yield group


def _fold_group(progress: FoldProgress, group: list[Entry]) -> None:
    """Write one group's files and commit them. On an error the new files are taken away again."""
    chunk, file = divmod(progress.next_file, progress.info["chunks_size"])
    paths = Paths(progress.root, progress.info, chunk, file)
    try:
        rows = _write_data(progress, group, paths)
        lengths = [row["length"] for row in rows]
        for feature in video_features(progress.info):
            _write_video(progress, group, paths, feature, rows, lengths)
        schema = episodes_schema(rows[0])
        _write_parquet(paths.episodes, pa.Table.from_pylist(rows, schema))
        _write_parquet(progress.root / "meta/tasks.parquet", tasks_table(progress.tasks))
        _commit(progress, group, rows)
    except OSError as error:
        if not _is_committed(progress, group):
            for path in paths.all(video_features(progress.info)):
                durable.remove(path)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(_disk_full(progress, group)) from error
        raise
    for entry in group:
        entry.delete()


def _is_committed(progress: FoldProgress, group: list[Entry]) -> bool:
    """Whether info.json was already replaced when the error came (the disk may fail after it)."""
    path = progress.root / INFO
    return path.exists() and json.loads(path.read_text(encoding="utf-8"))["worldloom"]["folded"] > group[0].number


def _disk_full(progress: FoldProgress, group: list[Entry]) -> str:
    needed = sum(sum(entry.sizes().values()) for entry in group) / 2**20
    return (
        f"{progress.root}: the disk is full. Every finished episode is safe: {progress.info['total_episodes']} are in "
        f"the dataset, the rest in {FOLDER}/. Free {needed * 1.1 + 1:.0f} MB and open the dataset again."
    )


@dataclass(frozen=True)
class Paths:
    """Where the files of one group go."""

    root: Path
    info: dict[str, Any]
    chunk: int
    file: int

    @property
    def data(self) -> Path:
        return self.root / fill(self.root, self.info, "data_path", self._place)

    @property
    def episodes(self) -> Path:
        return self.root / EPISODES_PATH.format(**self._place)

    def video(self, feature: str) -> Path:
        return self.root / fill(self.root, self.info, "video_path", {"video_key": feature, **self._place})

    @property
    def _place(self) -> dict[str, int]:
        return {"chunk_index": self.chunk, "file_index": self.file}

    def all(self, video_features: Sequence[str]) -> list[Path]:
        return [self.data, self.episodes, *map(self.video, video_features)]


def _write_data(progress: FoldProgress, group: list[Entry], paths: Paths) -> list[dict[str, Any]]:
    """The data file, one row group per episode, one episode in memory at a time; returns the rows of meta/episodes."""
    rows: list[dict[str, Any]] = []
    index, first = progress.info["total_frames"], progress.info["total_episodes"]
    schema = hugging_face_schema(progress.info["features"])
    durable.make_folder(paths.data.parent)
    with (
        durable.replacing(paths.data) as temporary,
        pq.ParquetWriter(temporary, schema, compression="snappy") as writer,
    ):
        for episode, entry in enumerate(group, first):
            table = entry.read()
            facts = json.loads(table.schema.metadata[FACTS])
            if facts["task"] not in progress.tasks:
                progress.tasks.append(facts["task"])
            positions = _positions(len(table), episode, index, progress.tasks.index(facts["task"]))
            for name, values in positions.items():
                table = table.append_column(name, pa.array(values))
                facts["stats"][name] = {k: v.tolist() for k, v in vector_stats(values).items()}
            writer.write_table(table.select(schema.names).cast(schema), row_group_size=len(table))
            rows.append(_episode_row(facts, episode, index, len(table), paths))
            index += len(table)
    return rows


def _positions(length: int, episode: int, index: int, task: int) -> dict[str, np.ndarray]:
    """The columns that depend on where in the dataset an episode lands."""
    return {
        "episode_index": np.full(length, episode),
        "index": np.arange(index, index + length),
        "task_index": np.full(length, task),
    }


def _episode_row(facts: dict[str, Any], episode: int, index: int, length: int, paths: Paths) -> dict[str, Any]:
    stats = {f"stats/{name}/{k}": v for name, values in facts["stats"].items() for k, v in values.items()}
    return {
        "episode_index": episode,
        "tasks": [facts["task"]],
        "length": length,
        "data/chunk_index": paths.chunk,
        "data/file_index": paths.file,
        "dataset_from_index": index,
        "dataset_to_index": index + length,
        "meta/episodes/chunk_index": paths.chunk,
        "meta/episodes/file_index": paths.file,
        **stats,
    }


def _write_video(
    progress: FoldProgress,
    group: list[Entry],
    paths: Paths,
    feature: str,
    rows: list[dict[str, Any]],
    lengths: list[int],
) -> None:
    fps, first = progress.info["fps"], 0
    durable.make_folder(paths.video(feature).parent)
    with durable.replacing(paths.video(feature)) as temporary:
        video.join([entry.videos[feature] for entry in group], lengths, temporary, fps)
    for row, length in zip(rows, lengths, strict=True):
        row[f"videos/{feature}/chunk_index"], row[f"videos/{feature}/file_index"] = paths.chunk, paths.file
        row[f"videos/{feature}/from_timestamp"] = first / fps
        row[f"videos/{feature}/to_timestamp"] = (first + length) / fps
        first += length


def _write_parquet(path: Path, table: pa.Table) -> None:
    durable.make_folder(path.parent)
    with durable.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="snappy")


def _commit(progress: FoldProgress, group: list[Entry], rows: list[dict[str, Any]]) -> None:
    """Write stats.json, then replace info.json: from here on the group's episodes belong to the dataset."""
    for row in rows:
        progress.add_stats(_nested_stats(row))
    stats = {name: {k: v.tolist() for k, v in values.items()} for name, values in progress.stats.items()}
    durable.write_json(progress.root / "meta/stats.json", stats)
    info = dict(progress.info)
    info["total_episodes"] += len(rows)
    info["total_frames"] += sum(row["length"] for row in rows)
    info["total_tasks"] = len(progress.tasks)
    info["splits"] = {"train": f"0:{info['total_episodes']}"}
    info["worldloom"] = {**info["worldloom"], "folded": group[-1].number + 1}
    durable.write_json(progress.root / INFO, info)
    progress.info, progress.next_file = info, progress.next_file + 1
