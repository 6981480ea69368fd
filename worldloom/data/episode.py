"""An episode in memory and where episodes come from. Every importer is an `EpisodeSource`; a writer takes `Episode`s.

T rows, A action size, C H W image channels, height, width. Row t is what was known at t (the observation, and the
reward, terminated and truncated that arrived with it) and then what was done (the action). The last row's action is
padding.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worldloom.data.spec import DataSpec
from worldloom.errors import UserError


class BrokenEpisode(UserError):
    """One episode cannot be trusted; the message names the file, the row, the value and the fix."""


@dataclass
class Episode:
    """T rows of one episode. `terminated` and `truncated` can only be true in the last row, and not both: an end on
    the last allowed step is an end.

    obs: every array of the table of keys that is no signal, whatever its role: images uint8 `[T, C, H, W]`, vectors
        float32 `[T, D]`, texts strings `[T]`, and so on (`KeySpec`), masks bool under `KEY.mask`. What is one value
        for an episode stands in every row. The language task is not stored here (see `task`).
    action: float32 `[T, A]` in the data's own units (discrete: one-hot), the last row is padding, zeros if unknown.
    reward: float32 `[T]`, reward[0] is 0: nothing arrived before the first observation.
    task: the language task, "" when there is none.
    extra: further per-row signals kept as they are, such as "success" or "cost", `[T]`.
    action_mask: bool `[T]`, where the action was recorded; None for everywhere.
    """

    obs: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    task: str = ""
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    action_mask: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.action)


@dataclass(frozen=True)
class EpisodeInfo:
    """What is known of an episode without reading it: its number of rows and its language task."""

    length: int
    task: str = ""


class EpisodeSource(ABC):
    """A readable dataset of any format, opened by `worldloom.data.open_dataset`.

    Constructing one reads metadata only. `spec` describes the data at its native resolution; vectors carry no mean or
    std yet and the language task is not yet a key (the cache adds both). `about` holds what the data card prints:
    format, license, origin, robot, and for imagined data the checkpoint that made it.
    """

    path: Path
    spec: DataSpec
    episodes: list[EpisodeInfo]
    about: dict[str, Any]

    @abstractmethod
    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        """Decode one episode, images resized to `(height, width)` if given. Raises `BrokenEpisode`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hex digest that changes whenever the data does (names, sizes and times of files, and the metadata)."""
