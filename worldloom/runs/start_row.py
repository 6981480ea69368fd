"""A real row of a dataset, as `EPISODE:FRAME`, and the rows around it."""

import re
from dataclasses import dataclass

import numpy as np

from worldloom.data.segment import Segment
from worldloom.errors import UserError
from worldloom.runs.sources import Source


@dataclass(frozen=True)
class StartRow:
    """Where a rollout begins: the real rows up to it and those after it `[1, T]`."""

    source: Source
    episode: int
    frame: int
    observed: Segment
    future: Segment | None

    @property
    def recorded_actions(self) -> np.ndarray:
        """The actions taken from the start row on `[H, A]`."""
        here = self.observed.action[0, -1:].numpy()
        if self.future is None:
            return here[:0]
        return np.concatenate([here, self.future.action[0, :-1].numpy()])


def parse_start(start: str, flag: str = "--from") -> tuple[int, int]:
    """`12:40` is episode 12, frame 40; `flag` is what errors call it."""
    match = re.fullmatch(r"\s*(\d{1,12})\s*:\s*(\d{1,12})\s*", start)
    if match is None:
        raise UserError(f"{flag} {start[:40]}: want EPISODE:FRAME, two whole numbers such as 12:40.")
    return int(match[1]), int(match[2])


def find_start(source: Source, episode: int, frame: int, context: int, flag: str = "--from") -> StartRow:
    """The rows around a start row. Raises `UserError` with the range when there is no such row."""
    dataset = source.dataset
    if episode >= len(dataset):
        raise UserError(f"{flag} {episode}:{frame}: {dataset.path} has episodes 0 to {len(dataset) - 1}.")
    length = int(dataset.lengths[episode])
    if frame >= length:
        raise UserError(f"{flag} {episode}:{frame}: episode {episode} of {dataset.path} has frames 0 to {length - 1}.")
    first = max(0, frame - context + 1)
    future = dataset.segment(episode, frame + 1) if frame + 1 < length else None
    return StartRow(source, episode, frame, dataset.segment(episode, first, frame + 1 - first), future)
