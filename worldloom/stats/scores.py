"""The card's formulas as pure functions of numbers, nothing of models or files.

N samples, K horizons, R resamples. Each score takes optional `weights` `[..., N]` (how often a sample counts) and
returns `[...]`: one set of weights gives one score, R sets give R scores at once, which is how intervals are made.
A score that does not exist for its input (no positive label, a constant target) is NaN, never an error.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

NUM_BINS = 15
BEST_PSNR = 100.0


def mean(values: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
    """Weighted mean of `values` `[N]` or of each column of `[N, K]`: `[...]` or `[..., K]`."""
    values = np.asarray(values, float)
    weights = _weights(weights, len(values))
    return _ratio(weights @ values, _column(weights.sum(-1), values))


def skill(error: ArrayLike, reference: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
    """1 - sum(error) / sum(reference) of squared errors `[N]` or `[N, K]`: 1 perfect, 0 as good as the reference.

    The forecast skill score (Murphy 1988). The card's reference is persistence: nothing changes.
    """
    error, reference = np.asarray(error, float), np.asarray(reference, float)
    weights = _weights(weights, len(error))
    return 1 - _ratio(weights @ error, weights @ reference)


def useful_horizon(skills: ArrayLike, horizons: ArrayLike) -> np.ndarray:
    """The largest horizon with skill above 0 there and at every shorter one, else 0: `[..., K]` to `[...]`."""
    above = np.cumprod(np.asarray(skills, float) > 0, -1).astype(bool)
    return np.where(above, np.asarray(horizons, float), 0).max(-1)


def growth(mse: ArrayLike, horizons: ArrayLike) -> np.ndarray:
    """How fast errors grow: least-squares slope of ln RMSE_k over k, per step. `[..., K]` to `[...]`."""
    steps = np.asarray(horizons, float)
    steps = steps - steps.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        log = 0.5 * np.log(np.asarray(mse, float))
        return (log * steps).sum(-1) / (steps**2).sum()


def psnr(mse: ArrayLike) -> np.ndarray:
    """Peak signal-to-noise ratio of pixels in [0, 1], 10 log10(1 / MSE) in dB, at most `BEST_PSNR`."""
    return -10 * np.log10(np.maximum(np.asarray(mse, float), 10 ** (-BEST_PSNR / 10)))


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of images float in [0, 1] `[N, C, H, W]`: `[N]`, the mean over channels and positions.

    Wang et al. 2004: Gaussian window 11x11 with sigma 1.5, K = (0.01, 0.03), population moments, no padding. A frame
    smaller than the window is judged with the largest odd window that fits.
    """
    shape = first.shape
    x, y = (image.float().reshape(-1, *shape[-2:]) for image in (first, second))
    size = min(11, *(side - (side + 1) % 2 for side in shape[-2:]))
    down, across = (_blur_matrix(size, side).to(x) for side in shape[-2:])
    # Blurring by two small matrix products is several times faster on a CPU than a convolution of one channel.
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (down @ z @ across.T for z in (x, y, x * x, y * y, x * y))
    var_x, var_y, covariance = mean_xx - mean_x**2, mean_yy - mean_y**2, mean_xy - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return (numerator / denominator).reshape(shape[0], -1).mean(-1)


def r2(target: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
    """Coefficient of determination, 1 - sum (y - p)^2 / sum (y - mean y)^2; NaN for a constant target."""
    target, predicted = np.asarray(target, float), np.asarray(predicted, float)
    weights = _weights(weights, len(target))
    total = weights @ target**2 - _ratio((weights @ target) ** 2, weights.sum(-1))
    varies = total > 1e-9 * np.maximum(weights @ target**2, 1e-12)
    return np.where(varies, 1 - _ratio(weights @ (target - predicted) ** 2, np.where(varies, total, 1)), np.nan)


def auroc(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
    """P[a positive scores above a negative], ties count half (Mann-Whitney U): 1 perfect, 0.5 chance."""
    scores, labels = np.asarray(scores, float), np.asarray(labels, bool)
    order, firsts = _tie_groups(scores)
    sorted_weights = _weights(weights, len(scores))[..., order]
    positive = np.add.reduceat(sorted_weights * labels[order], firsts, -1)
    negative = np.add.reduceat(sorted_weights * ~labels[order], firsts, -1)
    below = np.cumsum(negative, -1) - negative / 2
    return _ratio((positive * below).sum(-1), positive.sum(-1) * negative.sum(-1))


def ece(
    probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, bins: int = NUM_BINS
) -> np.ndarray:
    """Expected calibration error: sum over equal-width bins of (share of samples) x |mean label - mean probability|.

    Naeini et al. 2015, Guo et al. 2017, for the probability of the positive class.
    """
    confidence, frequency, share = reliability(probabilities, labels, weights, bins)
    return (share * np.abs(np.nan_to_num(confidence) - np.nan_to_num(frequency))).sum(-1)


def reliability(
    probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, bins: int = NUM_BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probability, mean label and share of samples per bin, each `[..., bins]`; NaN means in an empty bin."""
    probabilities, labels = np.asarray(probabilities, float), np.asarray(labels, float)
    weights = _weights(weights, len(labels))
    member = np.eye(bins)[np.clip((probabilities * bins).astype(int), 0, bins - 1)]
    count = weights @ member
    confidence = _ratio(weights @ (member * probabilities[:, None]), count)
    frequency = _ratio(weights @ (member * labels[:, None]), count)
    return confidence, frequency, _ratio(count, count.sum(-1, keepdims=True))


def spearman(first: ArrayLike, second: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
    """Rank correlation (Pearson of mid-ranks, so ties are right); NaN when either side is constant."""
    weights = _weights(weights, len(np.asarray(first)))
    x, y = _ranks(np.asarray(first, float), weights), _ranks(np.asarray(second, float), weights)
    total = weights.sum(-1, keepdims=True)
    x = x - _ratio((weights * x).sum(-1, keepdims=True), total)
    y = y - _ratio((weights * y).sum(-1, keepdims=True), total)
    spread = (weights * x * x).sum(-1) * (weights * y * y).sum(-1)
    constant = spread <= 1e-12 * np.maximum(total[..., 0] ** 6, 1)
    return np.where(constant, np.nan, _ratio((weights * x * y).sum(-1), np.sqrt(np.where(constant, 1, spread))))


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mid-rank of every sample, `[..., N]`: the weight below it plus half the weight tied with it."""
    order, firsts = _tie_groups(values)
    group_weight = np.add.reduceat(weights[..., order], firsts, -1)
    middle = np.cumsum(group_weight, -1) - group_weight / 2
    group = np.empty(len(values), int)
    group[order] = np.repeat(np.arange(len(firsts)), np.diff([*firsts, len(values)]))
    return middle[..., group]


def _tie_groups(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sorting order, and where each run of equal values begins in it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return order, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _weights(weights: ArrayLike | None, count: int) -> np.ndarray:
    return np.ones(count) if weights is None else np.asarray(weights, float)


def _column(total: np.ndarray, values: np.ndarray) -> np.ndarray:
    return total[..., None] if values.ndim > 1 else total


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Division that gives NaN for x / 0 instead of a warning."""
    bottom = np.asarray(bottom, float)
    return np.where(bottom != 0, np.asarray(top, float) / np.where(bottom != 0, bottom, 1), np.nan)


def _blur_matrix(size: int, side: int) -> Tensor:
    """A Gaussian of `size` taps at every place where it fits into `side` pixels: `[side - size + 1, side]`."""
    offsets = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    kernel = torch.exp(-(offsets**2) / (2 * 1.5**2))
    matrix = torch.zeros(side - size + 1, side)
    for row in range(len(matrix)):
        matrix[row, row : row + size] = kernel / kernel.sum()
    return matrix
