"""What a metric is, and what it is computed from.

N windows, K scored steps, D vector size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from worldloom.data.spec import DataSpec
from worldloom.evaluation.baselines import Baselines
from worldloom.evaluation.measure_heads import EndSamples
from worldloom.evaluation.rollout import Errors, RolloutSettings
from worldloom.evaluation.windows import HeldOut
from worldloom.evaluation.wording import Findings, Sentence
from worldloom.model import WorldModel
from worldloom.stats.bootstrap import Figure, Statistic, as_figure, bootstrap

MODEL, BASELINES = "model", ("persistence", "mean", "linear")
UNCHANGED = "this does not change on the held-out rows, so nothing can be forecast"


@dataclass(frozen=True)
class Curve:
    """A figure at every scored step, for the plots: value, low and high `[K]`."""

    steps: tuple[int, ...]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """All that was rolled out and tracked on held-out episodes `held`, in which a metric finds its figures.

    errors: of the model and the baselines in every window. tracked: per episode `{head: [T], real_head: [T]}` for
    "reward" and "terminated". ends: the end probabilities that many steps ahead. curves: what metrics kept for the
    plots, by metric and (predictor, key).
    """

    model: WorldModel
    held: Sequence[HeldOut]
    settings: RolloutSettings
    errors: Errors
    tracked: list[dict[str, np.ndarray]]
    ends: Mapping[int, EndSamples]
    baselines: Baselines
    curves: dict[str, dict[tuple[str, str], Curve]] = field(default_factory=dict)

    @property
    def spec(self) -> DataSpec:
        return self.model.spec

    @property
    def seed(self) -> int:
        """Of every interval."""
        return self.settings.seed

    def keys(self, predictor: str) -> list[str]:
        """The images and vectors that a predictor, the `MODEL` or one of the `BASELINES`, forecasts."""
        return [k for k in (*self.spec.image_keys, *self.spec.vector_keys) if (predictor, k) in self.errors.mse]

    def mse(self, predictor: str, key: str) -> np.ndarray:
        """`[N, K]`; for vectors the mean over variables in units of the training std. NaN past an episode's end."""
        mse = self.errors.mse[predictor, key]
        return mse.mean(-1) if mse.ndim == 3 else mse

    def curve(
        self,
        metric: str,
        predictor: str,
        key: str,
        statistic: Statistic,
        values: np.ndarray,
        steps: tuple[int, ...] | None = None,
    ) -> dict[str, Figure]:
        """Bootstrap a statistic at every step, keep the curve, and return its figures at the card's horizons.

        `values` `[N, K]` are what the statistic is of: a figure exists where any of them does.
        """
        steps = steps or self.errors.grid
        value, low, high = bootstrap(statistic, self.errors.episode, seed=self.seed)
        for i in range(len(steps)):
            episodes = np.unique(self.errors.episode[np.isfinite(values[:, i])])
            if len(episodes) < 1:
                value[i] = np.nan
            if len(episodes) < 2:
                low[i] = high[i] = np.nan
        self.curves.setdefault(metric, {})[predictor, key] = Curve(steps, value, low, high)
        figures = {}
        for i, k in enumerate(steps):
            if k in self.errors.horizons:
                exists = np.isfinite(values[:, i]).any()
                figure = as_figure(value[i], low[i], high[i], UNCHANGED) if exists else self.too_short(k)
                figures[f"{key}@{k}"] = figure
        return figures

    def too_short(self, k: int) -> Figure:
        return Figure.missing(f"no held-out episode is long enough for {k} steps after the context")


@dataclass(frozen=True)
class Metric:
    """One metric, as `METRICS` holds it.

    title, meaning: the heading of its table and the line below. digits: after the point. compute: its figures for a
    predictor, the `MODEL` or one of the `BASELINES`, by what they are of: `key`, or `key@steps` for one so many steps
    ahead; nothing for a predictor that it does not apply to. sentence: what a reader is told of the figures, for the
    model as a whole (the key is ""), or with `each_key` for every observation key that the model decodes.
    """

    title: str
    meaning: str
    compute: Callable[[Evidence, str], Mapping[str, Figure]]
    digits: int = 2
    sentence: Callable[[Findings, str], Iterator[Sentence]] | None = None
    each_key: bool = False


def masked_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of each column of `[N, K]` over the windows where it exists: `[R, K]`."""
    exists = np.isfinite(values)
    count = weights @ exists
    return np.where(count > 0, (weights @ np.nan_to_num(values)) / np.where(count > 0, count, 1), np.nan)
