"""Minecraft recordings as OpenAI's Video Pre-Training (VPT) contractors made them: `NAME.mp4` beside `NAME.jsonl`, 20
Hz.

T rows, C H W image channels, height, width.

Layout: line t of the jsonl is what the player did while frame t was on screen: `{"mouse": {"dx", "dy", "buttons",
"newButtons", ...}, "keyboard": {"keys": ["key.keyboard.w", ...], ...}, "hotbar": 0, "isGuiOpen": false, ...}`.
https://github.com/openai/Video-Pre-Training

The action is one continuous vector: 20 keys and 3 mouse buttons, 0 up and 1 down, then the camera's pitch and yaw in
degrees (0.15 degrees per mouse unit), cut off at 10 degrees per frame as in VPT's own action space. All have declared
ranges, so that training sees [-1, 1]. As in VPT's loader, a hotbar slot changed by the scroll wheel counts as its key,
and an attack button that is down from the first line is ignored until it is pressed anew: the recorder lost its
release.

Rule: T is the number of frames. A video may have as many frames as there are lines, one more (the picture after the
last action) or one less (the last line led nowhere); the last row's action is padding, zero. Any other count is a
broken episode, and so is an mp4 without its jsonl or the other way round.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from worldloom.data.episode import BrokenEpisode, Episode, EpisodeInfo, EpisodeSource
from worldloom.data.formats.columns import SKIP, at_end, file_digest
from worldloom.data.formats.videos import first_frame, look_at, read_frames
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.errors import UserError

FPS = 20
KEYS = {
    "key.keyboard.w": "forward",
    "key.keyboard.s": "back",
    "key.keyboard.a": "left",
    "key.keyboard.d": "right",
    "key.keyboard.space": "jump",
    "key.keyboard.left.shift": "sneak",
    "key.keyboard.left.control": "sprint",
    "key.keyboard.q": "drop",
    "key.keyboard.e": "inventory",
    "key.keyboard.f": "swapHands",
    "key.keyboard.escape": "ESC",
    **{f"key.keyboard.{slot}": f"hotbar.{slot}" for slot in range(1, 10)},
}
BUTTONS = ("attack", "use", "pickItem")
CAMERA = ("camera.pitch", "camera.yaw")
NAMES = (*KEYS.values(), *BUTTONS, *CAMERA)
COLUMN = {name: i for i, name in enumerate(NAMES)}
DEGREES_PER_UNIT = 360 / 2400
MOST_DEGREES = 10.0


class VPTSource(EpisodeSource):
    """A folder of mp4 and jsonl pairs. Raises `UserError` when no video in it can be opened."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.stems = sorted({file.with_suffix("") for file in _recordings(self.path)})
        self.clips = [look_at(_file(stem, ".mp4")) for stem in self.stems]
        paired = [_file(stem, ".jsonl").exists() for stem in self.stems]
        good = [clip for clip, pair in zip(self.clips, paired, strict=True) if pair and not clip.problem]
        if not good:
            raise UserError(
                f"{self.path} holds no NAME.mp4 beside a NAME.jsonl that can be opened; fetch the videos again"
            )
        self.shape = first_frame(good).shape
        self.episodes = [EpisodeInfo(clip.frames) for clip in self.clips]
        held = len(NAMES) - len(CAMERA)
        low, high = (0.0,) * held + (-MOST_DEGREES,) * 2, (1.0,) * held + (MOST_DEGREES,) * 2
        action = ActionSpec("continuous", len(NAMES), NAMES, low, high)
        self.spec = DataSpec({"image": KeySpec("image", self.shape)}, action, float(FPS))
        self.about: dict[str, Any] = {"format": "VPT (mp4 and jsonl)", "environment": "Minecraft"}

    @staticmethod
    def detect(path: Path) -> bool:
        return path.is_dir() and any(file.with_suffix(".mp4").exists() for file in path.glob("*.jsonl"))

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        stem, clip = self.stems[index], self.clips[index]
        lines, video = _file(stem, ".jsonl"), _file(stem, ".mp4")
        for file, other in ((lines, video), (video, lines)):
            if not file.exists():
                raise BrokenEpisode(f"{file} is missing beside {other.name}; {SKIP}")
        done = read_actions(lines)
        if not clip.problem and abs(clip.frames - len(done)) > 1:
            raise BrokenEpisode(
                f"{clip.path} has {clip.frames} frames and {lines.name} {len(done)} lines, more than one apart; {SKIP}"
            )
        images = read_frames(clip, None, self.shape, image_size)
        rows = len(images)
        action = np.zeros((rows, len(NAMES)), np.float32)
        action[: rows - 1] = done[: rows - 1]
        return Episode(
            obs={"image": images},
            action=action,
            reward=np.zeros(rows, np.float32),
            terminated=at_end(rows, False),
            truncated=at_end(rows, True),
        )

    def fingerprint(self) -> str:
        return file_digest(_recordings(self.path), self.spec.to_json())


def read_actions(path: Path) -> np.ndarray:
    """The actions of a jsonl file, one row per line `[lines, 25]`. Raises `BrokenEpisode` naming the line."""
    lines = path.read_bytes().splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    table = np.zeros((len(lines), len(NAMES)), np.float32)
    stuck, slot = False, 0
    for number, line in enumerate(lines):
        try:
            step = json.loads(line)
            mouse, fresh = step["mouse"], step["mouse"].get("newButtons", [])
            stuck = fresh == [0] if number == 0 else stuck and 0 not in fresh
            table[number] = _action(step["keyboard"]["keys"], mouse, stuck)
            if (held := step.get("hotbar", slot)) != slot:
                table[number, COLUMN[f"hotbar.{held + 1}"]] = 1
            slot = held
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenEpisode(
                f"{path}, line {number + 1}, is no VPT action ({_why(error)}): {_start(line)}; {SKIP}"
            ) from error
    return table


def _action(keys: list[str], mouse: dict[str, Any], stuck: bool) -> np.ndarray:
    """One line's action `[25]`. Keys that Minecraft's recorder has no name for do nothing here."""
    row = np.zeros(len(NAMES), np.float32)
    for key in keys:
        if key in KEYS:
            row[COLUMN[KEYS[key]]] = 1
    for button, name in enumerate(BUTTONS):
        row[COLUMN[name]] = button in mouse["buttons"] and not (stuck and button == 0)
    for name, units in zip(CAMERA, (mouse["dy"], mouse["dx"]), strict=True):
        if not np.isfinite(units):
            raise ValueError(f"the mouse moved by {units}")
        row[COLUMN[name]] = np.clip(units * DEGREES_PER_UNIT, -MOST_DEGREES, MOST_DEGREES)
    return row


def _recordings(path: Path) -> list[Path]:
    return [file for file in sorted(path.iterdir()) if file.suffix in (".mp4", ".jsonl")] if path.is_dir() else []


def _file(stem: Path, suffix: str) -> Path:
    """Names hold dots, so a suffix is added, never replaced."""
    return stem.with_name(stem.name + suffix)


def _why(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _start(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace"))
