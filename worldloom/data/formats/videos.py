"""A folder of videos without actions (mp4, mkv, webm, mov, avi, gif), also in folders below it, or one such file.

T rows, C H W image channels, height, width.

Rule: one video is one episode, one frame is one row, the last row is truncated, the action has size 0. The dataset's
rate is the one that most files have, rounded to whole frames per second, or the one asked for; a file with another rate
is sampled: row t shows the latest frame at t / fps seconds. A picture turned by its file's display matrix (phones) is
turned upright.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from worldloom.data.episode import BrokenEpisode, Episode, EpisodeInfo, EpisodeSource
from worldloom.data.files import files_below
from worldloom.data.formats.columns import ASSUMED_FPS, SKIP, at_end, file_digest
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.errors import UserError

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".gif")
DAMAGE = (av.error.FFmpegError, OSError, IndexError, ValueError)  # what PyAV raises from damaged bytes
MOST_MEMORY = 4 * 2**30  # bytes of decoded frames of one episode
EARLY = 0.1  # of a row: times in files are rounded, so a frame may come this much late and still be in its row


@dataclass(frozen=True)
class Clip:
    """What a video's header says. `problem` is set when the header itself cannot be read."""

    path: Path
    frames: int = 0
    rate: float = ASSUMED_FPS
    problem: str = ""

    def rows(self, fps: int) -> int:
        """How many rows it makes at a dataset's rate; a guess where frames are not equally spaced."""
        if round(self.rate) == fps:
            return self.frames
        return int(np.ceil(self.frames * fps / self.rate - EARLY))


class VideosSource(EpisodeSource):
    """Videos as episodes. Raises `UserError` when no file can be opened; a single bad file is a `BrokenEpisode` on
    `read`.

    fps: the rate of the dataset, None takes the most frequent rate of the files.
    """

    def __init__(self, path: Path | str, fps: int | None = None):
        self.path = Path(path)
        self.clips = [look_at(file) for file in video_files(self.path)]
        good = [clip for clip in self.clips if not clip.problem]
        if not good:
            first = f": {self.clips[0].path.name} {self.clips[0].problem}" if self.clips else ""
            raise UserError(f"{self.path} holds no video that can be opened{first}")
        self.fps = fps or Counter(max(1, round(clip.rate)) for clip in good).most_common(1)[0][0]
        self.shape = first_frame(good).shape
        self.episodes = [EpisodeInfo(clip.rows(self.fps)) for clip in self.clips]
        self.spec = DataSpec({"image": KeySpec("image", self.shape)}, ActionSpec("continuous", 0), float(self.fps))
        self.about: dict[str, Any] = {"format": "videos without actions"}

    @staticmethod
    def detect(path: Path) -> bool:
        """Videos with actions beside them (VPT) and LeRobot datasets are no plain videos."""
        if path.is_dir() and (path / "meta" / "info.json").exists():
            return False
        return any(not file.with_suffix(".jsonl").exists() for file in video_files(path)[:1])

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        clip = self.clips[index]
        own_rate = clip.problem or round(clip.rate) == self.fps
        images = read_frames(clip, None if own_rate else self.fps, self.shape, image_size)
        rows = len(images)
        return Episode(
            obs={"image": images},
            action=np.zeros((rows, 0), np.float32),
            reward=np.zeros(rows, np.float32),
            terminated=at_end(rows, False),
            truncated=at_end(rows, True),
        )

    def fingerprint(self) -> str:
        return file_digest([clip.path for clip in self.clips], self.spec.to_json())


def video_files(path: Path) -> list[Path]:
    """The videos at or below `path`, in order of their names."""
    return [file for file in files_below(path) if file.suffix.lower() in SUFFIXES]


def look_at(path: Path) -> Clip:
    """Frame count and rate from a video's header; where the header has no count (webm, gif) its packets are counted."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            frames = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
            return Clip(path, frames, float(rate or ASSUMED_FPS)) if frames else Clip(path, problem="holds no frame")
    except DAMAGE as error:
        return Clip(path, problem=f"cannot be opened ({_short(error)})")


def first_frame(clips: list[Clip]) -> np.ndarray:
    """The first frame `[C, H, W]` that any of `clips` gives; it sets the dataset's picture size."""
    for clip in clips:
        try:
            with av.open(str(clip.path)) as container:
                return pixels(next(iter(container.decode(video=0))), None)
        except (*DAMAGE, StopIteration):
            continue
    raise UserError(f"{clips[0].path.parent} holds no video that can be decoded; {clips[0].path.name} is the first")


def read_frames(
    clip: Clip, fps: int | None, shape: tuple[int, ...], image_size: tuple[int, int] | None = None
) -> np.ndarray:
    """All frames of a video as uint8 `[T, C, H, W]`, or with `fps` those to be seen at that rate.

    Raises `BrokenEpisode` when the file cannot be opened, stops early or has pictures unlike `shape` and no
    `image_size` to bring them to; `UserError` when the frames at their own size would not fit in memory.
    """
    if clip.problem:
        raise BrokenEpisode(f"{clip.path} {clip.problem}; {SKIP}")
    height, width = image_size or shape[1:]
    needed = clip.frames * shape[0] * height * width
    if needed > MOST_MEMORY:
        raise UserError(
            f"{clip.path} would take {needed / 1e9:.1f} GB of memory: {clip.frames} frames of {width} x {height}; "
            "give a smaller --image-size, or cut the video"
        )
    found: list[np.ndarray] = []
    seen, time = 0, 0.0
    try:
        with av.open(str(clip.path)) as container:
            for frame, time in _timed(container, clip):
                seen += 1
                _place(found, pixels(frame, image_size), None if fps is None else time * fps)
    except DAMAGE as error:
        raise BrokenEpisode(f"{clip.path}, frame {seen}, cannot be decoded ({_short(error)}); {SKIP}") from error
    if seen < clip.frames:
        raise BrokenEpisode(f"{clip.path} stops after {seen} of {clip.frames} frames; {SKIP}")
    for odd in [picture.shape for picture in found if picture.shape != (shape[0], height, width)]:
        raise BrokenEpisode(
            f"{clip.path} is {odd[2]} x {odd[1]} where the dataset is {width} x {height}; "
            "give --image-size to bring all to one size"
        )
    if fps is not None:
        rows = max(1, int(np.ceil((time + 1 / clip.rate) * fps - EARLY)))
        found = found[:rows] + found[-1:] * (rows - len(found))
    return np.stack(found)


def _timed(container: Any, clip: Clip) -> Iterator[tuple[Any, float]]:
    """Frames with their seconds since the first one; a container without times (old avi) counts by the rate."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    begin = None
    for count, frame in enumerate(container.decode(stream)):
        time = frame.time if frame.time is not None else count / clip.rate
        begin = time if begin is None else begin
        yield frame, time - begin


def _place(found: list[np.ndarray], picture: np.ndarray, row: float | None) -> None:
    """Append a frame as the next row; or, given the row it begins in, repeat the one before it up to there."""
    if row is None:
        found.append(picture)
        return
    first = max(0, int(np.ceil(row - EARLY)))
    while found and len(found) < first:
        found.append(found[-1])
    del found[first:]
    found.append(picture)


def pixels(frame: Any, size: tuple[int, int] | None) -> np.ndarray:
    """A decoded frame, upright, as RGB `[C, H, W]`, area-averaged to `(height, width)` if given."""
    turns = round(frame.rotation / 90) % 4
    height, width = size or ((frame.width, frame.height) if turns % 2 else (frame.height, frame.width))
    if turns % 2:
        height, width = width, height
    picture = frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, turns).transpose(2, 0, 1))


def _short(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
