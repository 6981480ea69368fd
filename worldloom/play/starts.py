"""Starts of a session: a row of a dataset, a picture from a file, or the first observation of a real environment.

A start also has the real observations that follow, as far as the session takes the recorded actions.

C context rows, A action size, H W image height and width.
"""

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from worldloom.agents.environment import check_fits, one_hot, to_env
from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.envs.adapt import AdaptedEnv, resize
from worldloom.errors import UserError
from worldloom.evaluation.policies.world import World, check_rate
from worldloom.play.engine import Arrays
from worldloom.play.session import Node
from worldloom.runs.sources import Source
from worldloom.runs.start_row import find_start, parse_start

CONTEXT = 8
Row = tuple[np.ndarray, Arrays]  # an action in model units [A] and the observation after it
MAX_PICTURE_BYTES = 32_000_000
WIDE = ("I", "F", "I;16", "I;16B", "I;16L")  # modes of more than 8 bits, whose range the file does not say


class Reality(ABC):
    """The real observations beside a session."""

    @abstractmethod
    def at(self, path: Sequence[Node]) -> Arrays | None:
        """The real observation at the end of `path`, or None where it is not known."""

    def next_action(self, path: Sequence[Node]) -> np.ndarray | None:
        """The recorded next action, `[A]` in model units, or None."""
        return None

    def close(self) -> None:  # noqa: B027 - a recording has nothing to close
        """Close the environment, where there is one."""


@dataclass(frozen=True)
class Start:
    """The first observation, context rows that the model observes, and the rows after them."""

    name: str
    label: str
    first: Arrays
    context: tuple[Row, ...] = ()
    ahead: tuple[Row, ...] = ()

    def reality(self) -> Reality | None:
        """The recording, where there is one."""
        return Recording(self) if self.ahead or self.context else None


@dataclass(frozen=True)
class Recording(Reality):
    """The recorded rows of a start."""

    start: Start

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.start.context + self.start.ahead

    def at(self, path: Sequence[Node]) -> Arrays | None:
        if len(path) - 1 > len(self.rows):
            return None
        for node, (action, _) in zip(path[1:], self.rows, strict=False):
            if node.action != tuple(action.tolist()):
                return None
        return self.rows[len(path) - 2][1] if len(path) > 1 else self.start.first

    def next_action(self, path: Sequence[Node]) -> np.ndarray | None:
        done = len(path) - 1
        return self.rows[done][0] if done < len(self.rows) else None


@dataclass
class Simulation(Reality):
    """A real environment that takes the actions of the session; for another branch it is reset and replayed."""

    env: AdaptedEnv
    spec: DataSpec
    seed: int
    actions: list[tuple[float, ...]] = field(default_factory=list)
    observations: list[Arrays] = field(default_factory=list)
    finished: bool = False
    task: str = ""

    def begin(self) -> Arrays:
        """Reset: the first observation."""
        obs, info = self.env.reset(seed=self.seed)
        self.task = str(info.get("task", ""))
        self.actions, self.observations, self.finished = [], [self._read(obs)], False
        return self.observations[0]

    def at(self, path: Sequence[Node]) -> Arrays | None:
        actions = [node.action or () for node in path[1:]]
        known = len(self.observations) and actions[: len(self.actions)] == self.actions
        if not known and self.actions[: len(actions)] == actions and self.observations:
            return self.observations[len(actions)]  # an earlier node of this branch
        if not known:
            self.begin()
        for action in actions[len(self.actions) :]:
            if self.finished:
                return None
            self._step(action)
        return self.observations[len(actions)]

    def _step(self, action: tuple[float, ...]) -> None:
        chosen = to_env(torch.tensor([action]), self.spec)[0]
        obs, _, terminated, truncated, _ = self.env.step(chosen)
        self.actions.append(action)
        self.observations.append(self._read(obs))
        self.finished = terminated or truncated

    def _read(self, obs: Arrays) -> Arrays:
        return {
            key: one_hot([self.task], of)[0] if of.kind == "category" else np.asarray(obs[key])
            for key, of in self.spec.obs.items()
        }

    def close(self) -> None:
        self.env.close()


def simulate(world: World, spec: DataSpec, seed: int) -> Simulation:
    """Make an environment that fits the model. Raises `UserError` for one that does not."""
    env = world.make()
    try:
        check_fits(env, spec)
        check_rate(env, spec, 1)
    except UserError:
        env.close()
        raise
    return Simulation(env, spec, seed)


def recorded_start(source: Source, start: str, flag: str = "--from") -> Start:
    """EPISODE:FRAME of a dataset. Raises `UserError` with the range when there is no such row."""
    episode, frame = parse_start(start, flag)
    row = find_start(source, episode, frame, CONTEXT, flag)
    observed = rows_of(row.observed)
    later = [] if row.future is None else rows_of(row.future)
    actions = row.observed.action[0].numpy()
    context = tuple((actions[t], observed[t + 1]) for t in range(len(observed) - 1))
    recorded = row.recorded_actions
    ahead = tuple((recorded[t], later[t]) for t in range(len(later)))
    held = "held out" if episode in source.held_out else "trained on"
    label = f"{Path(source.dataset.path).name}, episode {episode}, frame {frame} ({held})"
    return Start(f"{episode}:{frame}", label, observed[0], context, ahead)


def rows_of(segment: Segment) -> list[Arrays]:
    """The observations of one window, pictures `[H, W, 3]`."""
    found = []
    for t in range(segment.shape[1]):
        row = {}
        for key, values in segment.obs.items():
            value = values[0, t].numpy()
            row[key] = np.ascontiguousarray(value.transpose(1, 2, 0)) if value.ndim == 3 else value.copy()
        found.append(row)
    return found


def chosen_starts(source: Source, count: int = 8) -> list[Start]:
    """Starts spread over the held-out episodes, or over all where none was held out."""
    episodes = source.held_out or list(range(len(source.dataset)))
    picked = [episodes[i] for i in np.unique(np.linspace(0, len(episodes) - 1, count).round().astype(int))]
    frames = [min(CONTEXT - 1, int(source.dataset.lengths[episode]) - 1) for episode in picked]
    return [recorded_start(source, f"{e}:{f}") for e, f in zip(picked, frames, strict=True)]


def picture_start(path: Path, spec: DataSpec) -> Start:
    """A picture from a file as the first observation; vectors are the mean of the data. Raises `UserError`."""
    keys = spec.image_keys
    if not keys:
        raise UserError(
            f"--image {path}: this model observes {', '.join(spec.obs)} and no picture: choose --from or --env"
        )
    first: Arrays = {}
    for key, of in spec.obs.items():
        if of.kind == "image":
            first[key] = read_picture(path, of.shape[1], of.shape[2])
        else:
            first[key] = np.asarray(of.mean or [0.0] * of.shape[0], np.float32)
    name = os.fsencode(path.name).decode(errors="replace")
    return Start(name, f"the picture {name}", first)


def read_picture(path: Path, height: int, width: int) -> np.ndarray:
    """uint8 `[H, W, 3]`, cropped to the model's proportions and resized. Raises `UserError` for any other file."""
    try:
        if not path.is_file():
            raise FileNotFoundError
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise UserError(f"--image {path}: larger than {MAX_PICTURE_BYTES // 10**6} MB, make it smaller")
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if opened.mode in WIDE:
                raise UserError(f"--image {path}: its values ({opened.mode}) have no fixed range: save it in 8 bits")
            picture = np.asarray(on_black(ImageOps.exif_transpose(opened)))
    except FileNotFoundError as error:
        raise UserError(f"--image {path}: no such file: give the path of a picture") from error
    except UserError:
        raise
    except Exception as error:  # decoders raise anything
        raise UserError(f"--image {path}: not a readable picture ({error}): save it as PNG or JPEG") from error
    tall, wide = picture.shape[:2]
    side = min(tall / height, wide / width)
    cut_height, cut_width = max(1, round(side * height)), max(1, round(side * width))
    top, left = (tall - cut_height) // 2, (wide - cut_width) // 2
    return resize(np.ascontiguousarray(picture[top : top + cut_height, left : left + cut_width]), height, width)


def on_black(picture: Image.Image) -> Image.Image:
    """RGB, with transparent pixels black."""
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer).convert("RGB")


def describe(spec: DataSpec, keys: Collection[str]) -> dict[str, Any]:
    """The part of the `welcome` message about the data: actions, frame rate, and the observation `keys`."""
    pictures = [(key, spec.obs[key].shape) for key in spec.image_keys if key in keys]
    return {
        "action": asdict(spec.action),
        "fps": spec.fps,
        "pictures": [{"key": key, "height": height, "width": width} for key, (_, height, width) in pictures],
        "vectors": [{"key": key, "names": spec.obs[key].names} for key in spec.vector_keys if key in keys],
    }
