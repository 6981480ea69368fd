"""An in-memory dataset whose every value says which episode and row it is from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldloom.data.episode import BrokenEpisode, Episode, EpisodeInfo, EpisodeSource
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys

ACTION = ActionSpec("continuous", 2, names=("left", "right"), low=(-20.0, 0.0), high=(20.0, 100.0))


class FakeSource(EpisodeSource):
    """Episode e, row t: image channels (e, t, 7); state (e, t, 5); action (t / 10, e); reward t; the last row ends.

    `broken` episodes raise. `reads` counts how often an episode was decoded.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        tasks: Sequence[str] = ("",),
        broken: Sequence[int] = (),
        action: ActionSpec = ACTION,
        fps: float = 10.0,
        name: str = "fake",
        extra: bool = False,
    ):
        self.path = Path("/nowhere") / name
        obs = {"image": KeySpec("image", (3, 8, 8)), "state": KeySpec("vector", (3,), names=("episode", "row", "five"))}
        self.spec = DataSpec({**obs, **signal_keys(reward=True, terminated=True)}, action, fps)
        self.episodes = [EpisodeInfo(n, tasks[i % len(tasks)]) for i, n in enumerate(lengths)]
        self.about: dict[str, Any] = {"format": "fake", "license": "MIT"}
        self.broken = set(broken)
        self.extra = extra
        self.reads = 0

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        self.reads += 1
        if index in self.broken:
            raise BrokenEpisode(f"fake.mp4, row 3: the video of episode {index} is cut.")
        return fake_episode(index, self.episodes[index], self.spec.action, image_size or (8, 8), self.extra)

    def fingerprint(self) -> str:
        return f"{hash((self.path, tuple(self.episodes), tuple(self.broken))) & 0xFFFFFFFF:08x}"


def fake_episode(index: int, info: EpisodeInfo, action: ActionSpec, size: tuple[int, int], extra: bool) -> Episode:
    rows = np.arange(info.length, dtype=np.float32)
    channels = np.stack([np.full(info.length, index), rows, np.full(info.length, 7)], 1).astype(np.uint8)
    image = np.broadcast_to(channels[:, :, None, None], (*channels.shape, *size)).copy()
    state = np.stack([np.full_like(rows, index), rows, np.full_like(rows, 5)], 1)
    done = np.stack([rows / 10, np.full_like(rows, index)], 1)[:, : action.size]
    if action.kind == "discrete":
        done = np.eye(action.size, dtype=np.float32)[rows.astype(int) % action.size]
    done[-1] = 0
    return Episode(
        obs={"image": image, "state": state},
        action=done,
        reward=rows,
        terminated=rows == info.length - 1,
        truncated=np.zeros(info.length, bool),
        task=info.task,
        extra={"success": rows > 3} if extra else {},
    )
