"""LeRobotDataset v2.1 and v2.0: one parquet and one mp4 per episode, metadata in JSON lines. Read only."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from worldloom.data.episode import BrokenEpisode, Episode, EpisodeInfo, EpisodeSource
from worldloom.data.lerobot.features import check_layout, layout_of, mark_depth
from worldloom.data.lerobot.info import facts_about, fill, fingerprint, read_info, version_of
from worldloom.data.lerobot.reader import choices_of, read_video
from worldloom.data.lerobot.row_index import data_files
from worldloom.data.lerobot.rows import SKIP, deep_features, episode_of, in_order, read_columns
from worldloom.data.lerobot.tasks import tasks_of
from worldloom.errors import UserError


class LeRobotV21Source(EpisodeSource):
    """A folder in LeRobotDataset v2.1 or v2.0."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self._info = read_info(self.path)
        files = data_files(self.path / "data")
        mark_depth(self._info["features"], deep_features(files, self._info["features"]))
        self._layout = layout_of(self._info, choices_of(files, self._info["features"]))
        check_layout(self.path, self._layout)
        rows = sorted(read_lines(self.path / "meta/episodes.jsonl"), key=lambda row: row["episode_index"])
        if len(rows) != self._info["total_episodes"]:
            raise UserError(
                f"{self.path / 'meta/episodes.jsonl'}: has {len(rows)} episodes, meta/info.json says "
                f"{self._info['total_episodes']}. Restore the missing lines."
            )
        self._numbers = [row["episode_index"] for row in rows]
        self.spec = self._layout.spec
        tasks = tasks_of(self.path, rows)
        self.episodes = [EpisodeInfo(row["length"], *told[:1]) for row, told in zip(rows, tasks, strict=True)]
        self.about: dict[str, Any] = facts_about(self.path, self._info, "lerobot_v21", self._layout, tasks)

    @staticmethod
    def detect(path: Path) -> bool:
        return (version_of(path) or "").startswith("v2")

    def fingerprint(self) -> str:
        return fingerprint(self.path)

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        number = self._numbers[index]
        place = {"episode_index": number, "episode_chunk": number // self._info["chunks_size"]}
        path = self.path / fill(self.path, self._info, "data_path", place)
        where = f"{path}, episode {index}"
        table = read_columns(path, self._layout.columns, where)
        if len(table) != self.episodes[index].length:
            raise BrokenEpisode(
                f"{where}: has {len(table)} rows, episodes.jsonl says {self.episodes[index].length}. {SKIP}"
            )

        def frames(feature: str, times: np.ndarray) -> np.ndarray:
            if not self._info.get("video_path"):
                raise BrokenEpisode(f"{where}: info.json's video_path does not say where {feature} is. {SKIP}")
            video = self.path / fill(self.path, self._info, "video_path", {**place, "video_key": feature})
            shape = self._layout.shape_of(feature)
            return read_video(video, times, self._info["fps"], image_size, shape, index)

        return episode_of(in_order(table), self._layout, self.episodes[index].task, where, image_size, frames)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of episodes.jsonl; raises `UserError` naming the one that is not JSON or describes no episode."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Restore it.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: is not JSON ({error}). Restore the file.") from error
        if row is not None:
            _check_line(row, f"{path}, line {number}")
            rows.append(row)
    return rows


def _check_line(row: Any, where: str) -> None:
    for name in ("episode_index", "length"):
        value = row.get(name) if isinstance(row, dict) else None
        if type(value) is not int or value < 0:
            raise UserError(f"{where}: {name} is {value!r}, not a whole number. Restore the file.")
