"""Write episodes as a LeRobotDataset v3.0, each one safe on the disk as soon as `add` returns.

T rows, A action size, C H W image channels, height, width.
"""

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldloom.data import durable, video
from worldloom.data.episode import Episode
from worldloom.data.lerobot.features import (
    ACTION_MASK,
    BOOKKEEPING,
    features_of,
    own_facts,
    storable,
    stored_extra,
    stored_name,
)
from worldloom.data.lerobot.fold import INFO, fold
from worldloom.data.lerobot.info import read_info
from worldloom.data.lerobot.journal import FACTS, FOLDER, HEAD, LOCK, Journal, lock
from worldloom.data.lerobot.png import encode_png
from worldloom.data.lerobot.stats import image_stats, vector_stats
from worldloom.data.lerobot.tables import IMAGE, arrow_type
from worldloom.data.spec import DataSpec
from worldloom.data.validate import check_episode
from worldloom.errors import UserError, unknown


@dataclass(frozen=True)
class FileLimits:
    """How large LeRobot's files may grow, in MB, and how many go into a folder."""

    data_mb: int = 100
    video_mb: int = 200
    chunk_files: int = 1000


class LeRobotWriter:
    """Writes episodes of one `DataSpec` into a folder; use it as a context manager.

    `terminal_rows`: the last row of an episode holds the terminal observation (its action is stored as zeros).
    `lossless`: PNG rows instead of video; None decides per camera, PNG when its shorter side is below 128 pixels.
    `about`: license, origin, for imagined data "synthetic" and whatever else the data card should print.

    A folder that already holds a dataset this class wrote with the same spec is continued (its `about`, `robot_type`
    and limits stay as they are). Raises `UserError` when the
    folder holds anything else, or when another process is writing into it.
    """

    def __init__(
        self,
        path: Path,
        spec: DataSpec,
        *,
        robot_type: str = "unknown",
        about: dict[str, Any] | None = None,
        terminal_rows: bool = True,
        lossless: bool | None = None,
        codec: video.Codec = "h264",
        limits: FileLimits | None = None,
    ):
        self.path, self.spec = Path(path).absolute(), storable(spec)  # see `open_dataset`
        self.terminal_rows, self.codec = terminal_rows, codec
        self.fps = max(1, round(spec.fps))
        self._facts = json.loads(json.dumps(own_facts(self.spec, terminal_rows, about or {})))  # as it is read back
        self._robot_type, self._limits = robot_type, limits or FileLimits()
        self._videos = [k for k in self._cameras if not _as_png(self.spec.keys[k].shape, lossless)]
        self._require_encodable()
        require_writable(self.path)
        self._is_new = not self.path.exists()
        try:
            descriptor = lock(self.path)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error}). Choose another folder.") from error
        if descriptor is None:
            raise UserError(f"{self.path}: another process is recording into this folder. Choose another one.")
        self._lock: int | None = descriptor
        try:
            self._open()
        except BaseException:
            self._abandon()
            raise

    @property
    def _cameras(self) -> list[str]:
        return [k for k, s in self.spec.arrays.items() if s.kind == "image"]

    def _open(self) -> None:
        """Finish what an interrupted recording left, then continue the dataset if there is one."""
        fold(self.path, keep_lock=True)
        self._journal, self._info = Journal(self.path), None
        self.num_episodes = self._first = 0
        if (self.path / INFO).exists():
            self._info = read_info(self.path)
            self._require_same_spec()
            self.num_episodes = self._info["total_episodes"]
            self._first = self._info["worldloom"]["folded"]
        self._next_place = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, episode: Episode, place: int | None = None) -> None:
        """Store one finished episode. When this returns it survives `kill -9` and a disk that fills up later.

        place: where it belongs among the episodes of this writer, from 0 on; default: after all of them. Episodes may
        come in any order and places may stay empty: the dataset is in the order of places and counts without gaps.
        Raises `UserError` for an episode that breaks the spec (the key, row and value are named), a place that is taken
        or a full disk; nothing of the episode is left behind then and the others are safe.
        """
        place = self._next_place if place is None else place
        check_episode(episode, self.spec, f"episode {place}", last_action=not self.terminal_rows)
        if place < 0 or self._journal.path(self._first + place).exists():
            raise UserError(f"{self.path}: place {place} is taken or negative. Give every episode a place of its own.")
        extra = {name: np.asarray(values) for name, values in episode.extra.items()}
        if self._info is None:
            self._begin(extra)
        self._require_same_extra(extra)
        try:
            self._store(episode, self._first + place)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(self._disk_full(episode)) from error
        self._next_place = max(self._next_place, place + 1)
        self.num_episodes += 1

    def close(self) -> None:
        """Fold the journal into data/, videos/ and meta/. Raises `UserError` when the disk is full; nothing is lost."""
        if self._lock is None:
            return
        try:
            fold(self.path)
            self._remove_if_new()
        finally:
            self._release()

    def _abandon(self) -> None:
        """Take away what opening put there, unless the journal holds episodes."""
        try:
            if [p.name for p in (self.path / FOLDER).iterdir()] == [LOCK]:
                Journal(self.path).clear(keep_lock=False)
                self._remove_if_new()
        finally:
            self._release()

    def _remove_if_new(self) -> None:
        if self._is_new and not any(self.path.iterdir()):
            durable.remove_folder(self.path)

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _begin(self, extra: dict[str, np.ndarray]) -> None:
        """The first episode fixes the extra columns and so info.json, which the journal keeps until the first fold."""
        info = self._new_info(extra)
        durable.write_json(self.path / FOLDER / HEAD, info)
        self._info = info

    def _new_info(self, extra: dict[str, np.ndarray]) -> dict[str, Any]:
        cameras = {key: self._video_info(key) for key in self._videos}
        return {
            "codebase_version": "v3.0",
            "robot_type": self._robot_type,
            "total_episodes": 0,
            "total_frames": 0,
            "total_tasks": 0,
            "chunks_size": self._limits.chunk_files,
            "data_files_size_in_mb": self._limits.data_mb,
            "video_files_size_in_mb": self._limits.video_mb,
            "fps": self.fps,
            "splits": {"train": "0:0"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if cameras else None,
            "features": features_of(self.spec, {k: v.dtype for k, v in extra.items()}, cameras),
            "worldloom": self._facts,
        }

    def _video_info(self, key: str) -> dict[str, Any]:
        channels, height, width = self.spec.keys[key].shape
        return {
            "video.height": height,
            "video.width": width,
            "video.codec": self.codec,
            "video.pix_fmt": video.pixel_format(height, width, self.codec),
            "video.is_depth_map": False,
            "video.fps": self.fps,
            "video.channels": channels,
            "has_audio": False,
        }

    def _require_encodable(self) -> None:
        if self.codec not in video.CODECS:
            raise unknown("video codec", self.codec, video.CODECS)
        for key in self.spec.arrays:
            if "/" in key:
                raise UserError(f"observation key {key!r}: LeRobot's names hold no '/'. Rename it.")
        for key in self._videos:
            _, height, width = self.spec.keys[key].shape
            if self.codec == "av1" and (height % 2 or width % 2 or min(height, width) < 64):
                raise UserError(
                    f"camera {key!r} is {height} x {width}; AV1 takes even sides from 64 on. Use codec h264."
                )

    def _require_same_spec(self) -> None:
        """Raise unless what is about to be written has the columns that the dataset has."""
        assert self._info is not None
        known = set(self._info["features"])
        new = self._new_info({})
        for name, feature in new["features"].items():
            if self._info["features"].get(name) != feature:
                old = self._info["features"].get(name, "nothing")
                raise UserError(f"{self.path}: holds {name!r} as {old}, not as {feature}. Choose an empty folder.")
        foreign = sorted(
            n for n in known - set(new["features"]) if n.startswith(("observation", "action", "next.reward"))
        )
        if foreign:
            raise UserError(f"{self.path}: holds {foreign[0]!r}, which is not in the new spec. Choose an empty folder.")
        for name in ("terminal_rows", "fps", "action", "has_end", "keys"):
            old, wanted = self._info["worldloom"].get(name), self._facts.get(name)
            if old != wanted:
                raise UserError(f"{self.path}: its {name} is {old}, not {wanted}. Choose an empty folder.")

    def _require_same_extra(self, extra: dict[str, np.ndarray]) -> None:
        assert self._info is not None
        known = self._info["features"]
        standard = set(features_of(self.spec, {}, {}))
        stored = {name: feature["dtype"] for name, feature in known.items() if name not in standard}
        given = {stored_extra(name): values.dtype.name for name, values in extra.items()}
        if stored != given:
            raise UserError(
                f"{self.path}: episode {self.num_episodes} has the extra signals {given}, the dataset has {stored}. "
                "Every episode must have the same ones."
            )

    def _store(self, episode: Episode, number: int) -> None:
        """The videos first, the rows last: an episode counts once its parquet is in place."""
        assert self._info is not None
        columns = _columns(episode, self.spec, self.terminal_rows, self.fps)
        stats = {name: vector_stats(values) for name, values in columns.items() if values.dtype.kind != "U"}
        arrays = {name: _vector_array(values, self._info["features"][name]) for name, values in columns.items()}
        written: list[Path] = []
        try:
            for key in self._cameras:
                name, frames = stored_name(key, "image"), episode.obs[key]
                stats[name] = image_stats(frames)
                if key in self._videos:
                    written.append(self._journal.video_path(number, name))
                    with durable.replacing(written[-1]) as temporary:
                        video.encode(temporary, frames, self.fps, self.codec)
                else:
                    arrays[name] = _image_array(frames)
            facts = {"task": episode.task, "stats": _lists(stats)}
            table = pa.table(arrays).replace_schema_metadata({FACTS: json.dumps(facts)})
            with durable.replacing(self._journal.path(number)) as temporary:
                pq.write_table(table, temporary, compression="snappy", use_dictionary=False)
        except BaseException:
            for path in written:
                durable.remove(path)
            raise

    def _disk_full(self, episode: Episode) -> str:
        pixels = sum(episode.obs[key].nbytes for key in self._cameras)
        needed = (
            pixels + sum(v.nbytes for k, v in episode.obs.items() if k not in self._cameras) + episode.action.nbytes
        ) / 2**20
        return (
            f"{self.path}: the disk is full. The {self.num_episodes} episodes before are safe; episode "
            f"{self.num_episodes} ({len(episode)} rows) is not saved. Free {needed + 1:.0f} MB and run again to go on."
        )


def _as_png(shape: tuple[int, ...], lossless: bool | None) -> bool:
    return min(shape[1:]) < video.SMALL if lossless is None else lossless


def require_writable(path: Path) -> None:
    """Raise `UserError` unless the folder is new, empty, or holds a dataset or an interrupted recording of ours."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file. Give the path of a folder.")
    if not path.is_dir() or (path / FOLDER).is_dir():
        return
    if (path / INFO).exists():
        if "worldloom" not in read_info(path):
            raise UserError(f"{path}: holds a dataset that worldloom did not record. Choose an empty folder.")
        return
    found = sorted(p.name for p in path.iterdir())
    if found:
        raise UserError(f"{path}: already holds something else ({found[0]!r}). Choose an empty folder.")


def _columns(episode: Episode, spec: DataSpec, terminal_rows: bool, fps: int) -> dict[str, np.ndarray]:
    """The numeric columns of an episode, `[T]` or `[T, D]`. The reward that arrived with row t + 1 is stored in row t,
    as `next.reward`; every flag and signal on its own row."""
    rows = np.arange(len(episode))
    images = {k for k, s in spec.arrays.items() if s.kind == "image"}
    columns: dict[str, np.ndarray] = {
        stored_name(k, "vector"): v.reshape(len(v), -1) for k, v in episode.obs.items() if k not in images
    }
    if spec.action.size:
        columns["action"] = episode.action.copy()
        if terminal_rows:
            columns["action"][-1] = 0
    if episode.action_mask is not None:
        columns[ACTION_MASK] = episode.action_mask
    if spec.has_reward:
        columns["next.reward"] = np.append(episode.reward[1:], np.float32(0))
    ended = episode.terminated | episode.truncated
    columns |= {"next.done": ended, "next.truncated": episode.truncated}
    columns |= {stored_extra(name): np.asarray(values) for name, values in episode.extra.items()}
    return columns | {"timestamp": (rows / fps).astype(np.float32), BOOKKEEPING[1]: rows}


def _vector_array(values: np.ndarray, feature: dict[str, Any]) -> pa.Array:
    made = arrow_type(feature)
    if not pa.types.is_fixed_size_list(made):
        return pa.array(values.reshape(len(values)), made)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), made.value_type), type=made)


def _image_array(frames: np.ndarray) -> pa.Array:
    files = pa.array(encode_png(frames), pa.binary())
    names = pa.array([f"frame-{t:06d}.png" for t in range(len(frames))], pa.string())
    return pa.StructArray.from_arrays([files, names], fields=list(IMAGE))


def _lists(stats: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    return {name: {k: v.tolist() for k, v in values.items()} for name, values in stats.items()}
