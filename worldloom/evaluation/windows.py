"""What a model is evaluated on: held-out episodes, and windows of them with real rows first and open-loop steps after.

N windows, B batch, C context rows, H horizon (open-loop steps), A action size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from worldloom.data.cache import CachedDataset
from worldloom.data.segment import Segment
from worldloom.runs.sources import Source


@dataclass(frozen=True)
class HeldOut:
    """One held-out episode. `index` is its place in the list, which is what the bootstrap resamples."""

    index: int
    dataset: CachedDataset
    episode: int
    name: str

    @property
    def length(self) -> int:
        return int(self.dataset.lengths[self.episode])


@dataclass(frozen=True)
class Window:
    """Rows `start` to `start + context + horizon` of an episode; the belief ends at row `start + context - 1`."""

    held: HeldOut
    start: int


@dataclass(frozen=True)
class WindowBatch:
    """Windows in memory. `steps[b]` rows follow the context of window b in its episode, fewer or more than H.

    segment: `[B, C + H, ...]`. episode: `[B]` index of the held-out episode. valid: `[B, H]`.
    """

    segment: Segment
    episode: np.ndarray
    steps: np.ndarray
    context: int

    @property
    def valid(self) -> np.ndarray:
        horizon = self.segment.shape[1] - self.context
        return np.arange(1, horizon + 1) <= self.steps[:, None]

    @property
    def actions(self) -> Tensor:
        """The recorded actions of the open-loop steps `[B, H, A]`: action k - 1 leads to step k."""
        return self.segment.action[:, self.context - 1 : -1]

    def future(self, key: str) -> Tensor:
        """The recorded observations of steps 1 to H: `[B, H, ...]`."""
        return self.segment.targets[key][:, self.context :]


def held_out_episodes(sources: Sequence[Source], limit: int = 0) -> list[HeldOut]:
    """Every held-out episode of every source, or `limit` of them spread evenly."""
    pairs = [(source.dataset, episode) for source in sources for episode in source.held_out]
    if limit and limit < len(pairs):
        pairs = [pairs[i] for i in np.linspace(0, len(pairs) - 1, limit).round().astype(int)]
    several = len(sources) > 1
    return [
        HeldOut(i, dataset, episode, f"{Path(dataset.path).name}:{episode}" if several else str(episode))
        for i, (dataset, episode) in enumerate(pairs)
    ]


def choose_windows(held: Sequence[HeldOut], context: int, count: int, seed: int) -> list[Window]:
    """About `count` start rows at one stride through all held-out rows, so that every row is equally likely."""
    rows = [max(0, episode.length - context) for episode in held]
    stride = max(1, -(-sum(rows) // max(count, 1)))
    offset = int(np.random.default_rng(seed).integers(stride))
    windows = []
    for episode, available in zip(held, rows, strict=True):
        windows += [Window(episode, start) for start in range(offset, available, stride)]
        offset = (offset - available) % stride
    return windows


def end_windows(held: Sequence[HeldOut], context: int, horizon: int) -> list[Window]:
    """The windows whose step `horizon` is the last row of an episode: the only ones that show an end at that step."""
    starts = [(episode, episode.length - context - horizon) for episode in held]
    return [Window(episode, start) for episode, start in starts if start >= 0]


def batches(windows: Sequence[Window], size: int, context: int, horizon: int) -> Iterator[WindowBatch]:
    """Windows read from disk, `size` at a time."""
    for i in range(0, len(windows), size):
        yield read_windows(windows[i : i + size], context, horizon)


def read_windows(windows: Sequence[Window], context: int, horizon: int) -> WindowBatch:
    """Windows `[B, C + H]`; rows past an episode's end are padded and are neither valid nor scored."""
    parts = [w.held.dataset.segment(w.held.episode, w.start, context + horizon) for w in windows]
    segment = Segment.cat(parts)
    steps = [w.held.length - w.start - context for w in windows]
    return WindowBatch(segment, np.array([w.held.index for w in windows]), np.array(steps), context)


def horizon_grid(horizons: Sequence[int]) -> list[int]:
    """The steps at which pictures are decoded and scored: each up to 10, then about 15 % apart, and all `horizons`."""
    grid, step = set(horizons), 1
    while step < max(horizons):
        grid.add(step)
        step = max(step + 1, round(step * 1.15))
    return sorted(grid)
