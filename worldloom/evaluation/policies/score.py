"""What an agent scored over a fixed list of seeds, with intervals, as figures and as lines to read.

E episodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from worldloom.agents.play import EpisodeResult
from worldloom.stats.bootstrap import Figure, figure

NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Score:
    """Mean figures over episodes; `success_rate` and `cost` are None where the environment reports none."""

    episode_return: Figure
    length: Figure
    success_rate: Figure | None
    cost: Figure | None

    @classmethod
    def of(cls, played: Sequence[EpisodeResult]) -> "Score":
        """Means with 95 % bootstrap intervals over episodes, the success rate with Wilson's."""
        costs = [episode.cost for episode in played if episode.cost is not None]
        # An environment may report success only when there is one.
        wins = None if all(e.success is None for e in played) else sum(bool(e.success) for e in played)
        return cls(
            episode_return=mean([episode.episode_return for episode in played]),
            length=mean([episode.length for episode in played]),
            success_rate=None if wins is None else wilson(wins, len(played)),
            cost=mean(costs) if costs else None,
        )

    def to_json(self) -> dict[str, Any]:
        figures = {
            "return": self.episode_return,
            "length": self.length,
            "success_rate": self.success_rate,
            "cost": self.cost,
        }
        return {name: None if figure is None else figure.to_json() for name, figure in figures.items()}


def mean(values: Sequence[float]) -> Figure:
    """The mean of one number per episode `[E]`, with a 95 % bootstrap interval."""
    array = np.asarray(values, float)
    return figure(lambda weights: weights @ array / weights.sum(1), np.arange(len(array)))


def wilson(successes: int, count: int) -> Figure:
    """A success rate with Wilson's 95 % score interval (1927), which keeps its coverage near 0 and 1."""
    rate, z2 = successes / count, NORMAL_95**2
    centre = (rate + z2 / (2 * count)) / (1 + z2 / count)
    half = NORMAL_95 / (1 + z2 / count) * sqrt(rate * (1 - rate) / count + z2 / (4 * count**2))
    return Figure(rate, max(0.0, centre - half), min(1.0, centre + half))


def latency(played: Sequence[EpisodeResult], repeat: int = 1, deadline: float | None = None) -> dict[str, Any]:
    """Milliseconds per decision, each the time of the batched call that made it, and of a step of the environment.

    `repeat`: only every so manieth step was a decision. `kept` is the share of decisions within the deadline.
    """
    every = np.array([spent for episode in played for spent in episode.milliseconds[::repeat]])
    steps = sum(episode.length for episode in played)
    found: dict[str, Any] = {
        "decisions": len(every),
        "p50": float(np.percentile(every, 50)),
        "p95": float(np.percentile(every, 95)),
        "mean": float(every.mean()),
        "max": float(every.max()),
        "batch": max(episode.batch for episode in played),
        "env_step": sum(episode.env_milliseconds for episode in played) / steps,
    }
    if deadline is not None:
        found |= {"deadline": deadline, "kept": float((every <= deadline).mean())}
    return found


def calls(played: Sequence[EpisodeResult], repeat: int = 1) -> list[float]:
    """The milliseconds of each batched call: episodes of one wave share theirs, and the longest has them all."""
    found: list[float] = []
    first = 0
    while first < len(played):
        wave = played[first : first + played[first].batch]
        found += max((episode.milliseconds for episode in wave), key=len)[::repeat]
        first += len(wave)
    return found


def episode_to_json(episode: EpisodeResult) -> dict[str, Any]:
    return {
        "seed": episode.seed,
        "return": episode.episode_return,
        "length": episode.length,
        "terminated": episode.terminated,
        "success": episode.success,
        "cost": episode.cost,
    }


def line(name: str, figure: Figure | None, digits: int = 1) -> list[str]:
    """`name   12.3  [10.1, 14.5]`, nothing where there is no figure."""
    if figure is None or figure.value is None:
        return []
    interval = (
        "" if figure.low is None or figure.high is None else f"[{figure.low:.{digits}f}, {figure.high:.{digits}f}]"
    )
    return [f"  {name:<20}{figure.value:>10.{digits}f}  {interval}".rstrip()]
