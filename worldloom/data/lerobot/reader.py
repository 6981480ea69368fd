"""LeRobotDataset v3.0: many episodes per parquet and mp4 file. See docs/formats.md."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldloom.data import video
from worldloom.data.episode import BrokenEpisode, Episode, EpisodeInfo, EpisodeSource
from worldloom.data.lerobot.features import action_features, check_layout, is_choice, layout_of, mark_depth
from worldloom.data.lerobot.fold import recover
from worldloom.data.lerobot.info import facts_about, fill, fingerprint, read_info, version_of
from worldloom.data.lerobot.journal import FOLDER, HEAD
from worldloom.data.lerobot.row_index import FileIndex, data_files, select
from worldloom.data.lerobot.rows import SKIP, check_names, deep_features, episode_of, in_order, numbers
from worldloom.data.lerobot.tasks import tasks_of
from worldloom.errors import UserError

WHERE_ROWS_ARE = ("episode_index", "length", "data/chunk_index", "data/file_index")


class LeRobotSource(EpisodeSource):
    """A folder in LeRobotDataset v3.0. Opening one first finishes what an interrupted recording left in its journal."""

    def __init__(self, path: Path):
        self.path = Path(path)
        recover(self.path)
        if not (self.path / "meta/info.json").exists():
            raise UserError(f"{self.path}: no episode has been finished here yet. Record at least one.")
        self._info = read_info(self.path)
        if not self._info["codebase_version"].startswith("v3"):
            found = self._info["codebase_version"]
            raise UserError(f"{self.path}: is LeRobotDataset {found}. Convert it to v3.0 with LeRobot's own tools.")
        files = data_files(self.path / "data")
        mark_depth(self._info["features"], deep_features(files, self._info["features"]))
        self._layout = layout_of(self._info, choices_of(files, self._info["features"]))
        check_layout(self.path, self._layout)
        self._rows = self._read_episodes()
        self.spec = self._layout.spec
        tasks = tasks_of(self.path, self._rows)
        self.episodes = [EpisodeInfo(row["length"], *told[:1]) for row, told in zip(self._rows, tasks, strict=True)]
        self.about: dict[str, Any] = facts_about(self.path, self._info, "lerobot", self._layout, tasks)
        self._files: dict[Path, FileIndex] = {}
        self._last: tuple[Any, pa.Table] | None = None

    @staticmethod
    def detect(path: Path) -> bool:
        version = version_of(path)
        if version is None:
            return (path / FOLDER / HEAD).is_file()
        return not version.startswith("v2")

    def fingerprint(self) -> str:
        return fingerprint(self.path)

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        row = self._rows[index]
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        name = fill(self.path, self._info, "data_path", place)
        where = f"{self.path / name}, episode {index}"
        table = self._table(self.path / name, row, where)

        def frames(feature: str, times: np.ndarray) -> np.ndarray:
            return self._frames(row, feature, times, image_size)

        return episode_of(table, self._layout, self.episodes[index].task, where, image_size, frames)

    def _read_episodes(self) -> list[dict[str, Any]]:
        """The rows of meta/episodes in order, without their statistics."""
        rows: list[dict[str, Any]] = []
        for path in data_files(self.path / "meta/episodes"):
            try:
                columns = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
                missing = [name for name in WHERE_ROWS_ARE if name not in columns]
                if missing:
                    raise UserError(f"{path}: the column {missing[0]!r} is missing. Restore the file.")
                rows += pq.read_table(path, columns=columns).to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise UserError(
                    f"{path}: cannot be read, it is truncated or not parquet ({error}). Restore it."
                ) from error
        rows.sort(key=lambda row: row["episode_index"])
        if len(rows) > self._info["total_episodes"]:  # a recording that was cut describes more than it has committed
            rows = [row for row in rows if row["episode_index"] < self._info["total_episodes"]]
        if len(rows) != self._info["total_episodes"]:
            raise UserError(
                f"{self.path / 'meta/episodes'}: describes {len(rows)} episodes, meta/info.json says "
                f"{self._info['total_episodes']}. Restore the missing files."
            )
        return rows

    def _table(self, path: Path, row: dict[str, Any], where: str) -> pa.Table:
        """The data rows of one episode, in their order.

        Raises `BrokenEpisode` unless there are as many as meta/episodes says, in the file it names or in others.
        """
        found, trouble = [], None
        try:
            found = [self._rows_in(path, row["episode_index"], where)]
        except BrokenEpisode as error:
            trouble = error
        if sum(map(len, found)) != row["length"]:
            found += self._rows_elsewhere(path, row["episode_index"])
        count = sum(map(len, found))
        if count != row["length"]:
            why = f"{where}: {count} rows of it are there, meta/episodes says {row['length']}. {SKIP}"
            raise trouble or BrokenEpisode(why)
        return in_order(pa.concat_tables(table for table in found if len(table)) if count else found[0])

    def _rows_in(self, path: Path, episode: int, where: str) -> pa.Table:
        """The rows of an episode in one file: only the row groups they lie in are read."""
        if not path.exists():
            raise BrokenEpisode(f"{where}: the file is missing. {SKIP}")
        try:
            if path not in self._files:
                self._files[path] = FileIndex.of(path)
            index = self._files[path]
            check_names(index.metadata.schema.to_arrow_schema().names, self._layout.columns, where)
            rows = index.rows(episode)
            groups = index.groups(rows)
            return select(self._groups(path, index.metadata, groups), index.within(rows, groups))
        except KeyError as error:
            raise BrokenEpisode(f"{where}: the column {error} is missing. {SKIP}") from error
        except (pa.ArrowException, OSError) as error:
            raise BrokenEpisode(f"{where}: cannot be read, it is truncated or not parquet ({error}). {SKIP}") from error

    def _rows_elsewhere(self, path: Path, episode: int) -> list[pa.Table]:
        """Those that other files than `path` hold; one that cannot be read is reported with its own episodes."""
        found = []
        for other in data_files(self.path / "data"):
            with contextlib.suppress(BrokenEpisode):
                found += [self._rows_in(other, episode, str(other))] if other != path else []
        return found

    def _groups(self, path: Path, metadata: pq.FileMetaData, groups: list[int]) -> pa.Table:
        """Row groups, the last ones kept: other tools put many episodes into one. Safe to call from several threads."""
        key, last = (path, tuple(groups)), self._last
        if last is not None and last[0] == key:
            return last[1]
        table = pq.ParquetFile(path, metadata=metadata).read_row_groups(groups, columns=self._layout.columns)
        self._last = (key, table)
        return table

    def _frames(
        self, row: dict[str, Any], feature: str, times: np.ndarray, image_size: tuple[int, int] | None
    ) -> np.ndarray:
        """One camera of one episode from its mp4."""
        prefix = f"videos/{feature}"
        where = f"{self.path}, episode {row['episode_index']}, {feature}"
        if f"{prefix}/from_timestamp" not in row or not self._info.get("video_path"):
            raise BrokenEpisode(
                f"{where}: meta/episodes or info.json's video_path does not say where the video is. {SKIP}"
            )
        place = {"chunk_index": row[f"{prefix}/chunk_index"], "file_index": row[f"{prefix}/file_index"]}
        path = self.path / fill(self.path, self._info, "video_path", {**place, "video_key": feature})
        times = times + row[f"{prefix}/from_timestamp"]
        return read_video(
            path, times, self._info["fps"], image_size, self._layout.shape_of(feature), row["episode_index"]
        )


def read_video(
    path: Path, times: np.ndarray, fps: float, image_size: tuple[int, int] | None, shape: tuple[int, ...], episode: int
) -> np.ndarray:
    """`video.decode` with errors that name the file, the episode and the row."""
    where = f"{path}, episode {episode}"
    if not path.exists():
        others = sorted(str(p) for p in path.parent.parent.rglob(path.name))[:1] if path.parent.parent.exists() else []
        hint = f"There is {others[0]}; if that is it, fix video_path in meta/info.json. " if others else ""
        raise BrokenEpisode(f"{where}: the video is missing. {hint}{SKIP}")
    try:
        frames = video.decode(path, times, fps, image_size, shape[0])
    except video.BrokenVideo as error:
        row = "" if error.row is None else f", row {error.row}"
        raise BrokenEpisode(f"{where}{row}: the video {error}. {SKIP}") from error
    if image_size is None and frames.shape[1:] != shape:
        raise BrokenEpisode(f"{where}: frames are {frames.shape[1:]}, info.json says {shape} (C, H, W). {SKIP}")
    return frames


def choices_of(files: Sequence[Path], features: dict[str, Any]) -> range:
    """From the least to the largest value of a foreign integer action, 0 included, from the data itself.

    Statistics can be stale or absent.
    """
    name, *others = action_features(features) or ("",)
    if not name or others or not is_choice(features[name]):
        return range(1)
    seen = [0]
    for file in files:
        try:
            values = numbers(pq.read_table(file, columns=[name])[name], features[name], str(file))
            seen += [int(values.min()), int(values.max())] if len(values) else []
        except (pa.ArrowException, OSError, ValueError):
            continue  # a broken file is reported when one of its episodes is read
    return range(min(seen), max(seen) + 1)
