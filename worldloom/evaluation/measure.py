"""From errors per window to the figures of the card, each with its interval over held-out episodes.

N windows, K scored steps, D vector size, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from worldloom.data.spec import DataSpec
from worldloom.evaluation.rollout import LATENT, Errors
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, Statistic, as_figure, bootstrap, figure, on

Table = dict[str, dict[str, Figure]]
Samples = tuple[np.ndarray, np.ndarray, np.ndarray]
BASELINES = ("persistence", "mean", "linear")


@dataclass
class Curve:
    """A figure at every scored step, for the plots: value, low and high `[K]`."""

    steps: tuple[int, ...]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass
class Measured:
    """The card's tables and the curves behind its plots, `curves[metric][predictor, key]`."""

    metrics: Table = field(default_factory=dict)
    baselines: dict[str, Table] = field(default_factory=dict)
    curves: dict[str, dict[tuple[str, str], Curve]] = field(default_factory=dict)

    def put(self, predictor: str, metric: str, key: str, value: Figure) -> None:
        """File a figure under the model's metrics or under a baseline's."""
        table = self.metrics if predictor == "model" else self.baselines.setdefault(predictor, {})
        table.setdefault(metric, {})[key] = value


def measure_forecasts(errors: Errors, spec: DataSpec, seed: int) -> Measured:
    """Metrics 1, 2, 3 and 5 of every image and vector key, for the model and for every baseline."""
    measured = Measured()
    for key in (*spec.image_keys, *spec.vector_keys):
        predictors = [p for p in ("model", *BASELINES) if (p, key) in errors.mse]
        for predictor in predictors:
            _skill(measured, errors, predictor, key, seed)
            if key in spec.image_keys:
                _fidelity(measured, errors, predictor, key, seed)
            if key in spec.vector_keys:
                _skill_per_variable(measured, errors, predictor, key, spec.obs[key].names, seed)
        if "model" not in predictors:
            measured.put("model", "skill", key, Figure.missing("the model does not decode this key"))
            continue
        if "linear" in predictors:
            _against_linear(measured, errors, key, seed)
        _controllability(measured, errors, key, seed)
    if ("model", LATENT) in errors.mse:
        _skill_of_latent(measured, errors, seed)
    _loss_ratio(measured, errors, seed)
    return measured


def window_mse(errors: Errors, predictor: str, key: str) -> np.ndarray:
    """`[N, K]`; for vectors the mean over variables in units of the training std. NaN past an episode's end."""
    mse = errors.mse[predictor, key]
    return mse.mean(-1) if mse.ndim == 3 else mse


def _skill(measured: Measured, errors: Errors, predictor: str, key: str, seed: int) -> None:
    mse, still = window_mse(errors, predictor, key), window_mse(errors, "persistence", key)
    error, reference = np.nan_to_num(mse), np.nan_to_num(still)
    _put_curve(measured, errors, "skill", predictor, key, on(scores.skill, error, reference), mse, seed)
    _put_curve(
        measured, errors, "rmse", predictor, key, lambda w: np.sqrt(_masked_mean(mse, w)), mse, seed, figures=False
    )
    exists = [i for i in range(len(errors.grid)) if np.isfinite(mse[:, i]).any()]
    if not exists:
        for metric in ("useful_horizon", "error_growth"):
            measured.put(predictor, metric, key, Figure.missing(_too_short(errors, errors.grid[0])))
        return
    steps = np.array(errors.grid)[exists]
    useful = figure(
        lambda w: scores.useful_horizon(scores.skill(error[:, exists], reference[:, exists], w), steps),
        errors.episode,
        seed,
    )
    measured.put(predictor, "useful_horizon", key, _whole(useful))
    if len(steps) > 1:
        grows = figure(lambda w: scores.growth(_masked_mean(mse[:, exists], w), steps), errors.episode, seed)
        measured.put(predictor, "error_growth", key, grows)


def _whole(useful: Figure) -> Figure:
    """Quantiles fall between steps; an interval of steps ends on whole ones."""
    if useful.low is None or useful.high is None:
        return useful
    return Figure(useful.value, float(np.floor(useful.low)), float(np.ceil(useful.high)))


def _skill_of_latent(measured: Measured, errors: Errors, seed: int) -> None:
    mse, still = errors.mse["model", LATENT], errors.mse["persistence", LATENT]
    skill = on(scores.skill, np.nan_to_num(mse), np.nan_to_num(still))
    _put_curve(measured, errors, "skill", "model", LATENT, skill, mse, seed)


def _skill_per_variable(
    measured: Measured, errors: Errors, predictor: str, key: str, names: Sequence[str] | None, seed: int
) -> None:
    mse, still = errors.mse[predictor, key], errors.mse["persistence", key]
    for d in range(mse.shape[-1]):
        label = f"{key}.{names[d] if names else d}"
        error, reference = np.nan_to_num(mse[..., d]), np.nan_to_num(still[..., d])
        _put_curve(
            measured,
            errors,
            "skill",
            predictor,
            label,
            on(scores.skill, error, reference),
            mse[..., d],
            seed,
        )


def _fidelity(measured: Measured, errors: Errors, predictor: str, key: str, seed: int) -> None:
    decibel = scores.psnr(errors.mse[predictor, key])
    _put_curve(measured, errors, "psnr", predictor, key, lambda w: _masked_mean(decibel, w), decibel, seed)
    similar = errors.ssim[predictor, key]
    _put_curve(
        measured,
        errors,
        "ssim",
        predictor,
        key,
        lambda w: _masked_mean(similar, w),
        similar,
        seed,
        steps=errors.horizons,
    )


def _against_linear(measured: Measured, errors: Errors, key: str, seed: int) -> None:
    mse = window_mse(errors, "model", key)
    gain = np.nan_to_num(window_mse(errors, "linear", key) - mse)
    still = np.nan_to_num(window_mse(errors, "persistence", key))
    _put_curve(
        measured,
        errors,
        "skill_minus_linear",
        "model",
        key,
        lambda w: 1 - scores.skill(gain, still, w),
        mse,
        seed,
    )


def _controllability(measured: Measured, errors: Errors, key: str, seed: int) -> None:
    if ("shuffled", key) not in errors.mse:
        measured.put("model", "controllability", key, Figure.missing("the data have no actions"))
        return
    columns = [errors.grid.index(k) for k in errors.horizons]
    true, shuffled = window_mse(errors, "model", key)[:, columns], window_mse(errors, "shuffled", key)
    gap = np.where(np.isfinite(true), scores.psnr(true) - scores.psnr(shuffled), np.nan)
    _put_curve(
        measured,
        errors,
        "controllability",
        "model",
        key,
        lambda w: _masked_mean(gap, w),
        gap,
        seed,
        steps=errors.horizons,
    )


def _loss_ratio(measured: Measured, errors: Errors, seed: int) -> None:
    if not errors.loss:
        measured.put("model", "loss_ratio", "total", Figure.missing("the data have no actions"))
    for term, (true, shuffled) in errors.loss.items():
        measured.put("model", "loss_ratio", term, figure(on(_ratio, shuffled, true), errors.loss_episode, seed))


def _ratio(top: np.ndarray, bottom: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ratio of weighted sums, NaN unless the lower one is positive."""
    below = weights @ bottom
    return np.where(below > 0, (weights @ top) / np.where(below > 0, below, 1), np.nan)


def _put_curve(
    measured: Measured,
    errors: Errors,
    metric: str,
    predictor: str,
    key: str,
    statistic: Statistic,
    values: np.ndarray,
    seed: int,
    steps: tuple[int, ...] | None = None,
    figures: bool = True,
) -> None:
    """Bootstrap a statistic at every step, keep the curve, and file it at the card's horizons."""
    steps = steps or errors.grid
    value, low, high = bootstrap(statistic, errors.episode, seed=seed)
    for i in range(len(steps)):
        episodes = np.unique(errors.episode[np.isfinite(values[:, i])])
        if len(episodes) < 1:
            value[i] = np.nan
        if len(episodes) < 2:
            low[i] = high[i] = np.nan
    measured.curves.setdefault(metric, {})[predictor, key] = Curve(steps, value, low, high)
    for i, k in enumerate(steps):
        if k in errors.horizons and figures:
            measured.put(predictor, metric, f"{key}@{k}", _figure_at(errors, values, value, low, high, i, k))


def _figure_at(
    errors: Errors, values: np.ndarray, value: np.ndarray, low: np.ndarray, high: np.ndarray, i: int, k: int
) -> Figure:
    if not np.isfinite(values[:, i]).any():
        return Figure.missing(_too_short(errors, k))
    return as_figure(value[i], low[i], high[i], "this does not change on the held-out rows, so nothing can be forecast")


def _too_short(errors: Errors, k: int) -> str:
    return f"no held-out episode is long enough for {k} steps after the context"


def _masked_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of each column of `[N, K]` over the windows where it exists: `[R, K]`."""
    exists = np.isfinite(values)
    count = weights @ exists
    return np.where(count > 0, (weights @ np.nan_to_num(values)) / np.where(count > 0, count, 1), np.nan)
