"""Do the dream's scores of several policies agree with reality's? Pure functions of two rows of scores.

P policies. `dream` and `real` are scores `[..., P]`, higher is better, any leading shape; each function returns
`[...]`, and NaN where the scores do not determine it: all of them are equal, so that there is nothing to agree on.
"""

import numpy as np
from numpy.typing import ArrayLike

DIGITS = 9  # scores that differ in fewer significant digits than these are tied, however their sums were rounded


def pearson(dream: ArrayLike, real: ArrayLike) -> np.ndarray:
    """Linear correlation; NaN when either side is constant."""
    x, y = np.asarray(dream, float), np.asarray(real, float)
    constant = is_constant(x) | is_constant(y)
    x, y = (side - side.mean(-1, keepdims=True) for side in (x, y))
    spread = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.where(constant, np.nan, (x * y).sum(-1) / np.where(constant, 1, spread))


def spearman(dream: ArrayLike, real: ArrayLike) -> np.ndarray:
    """Rank correlation: Pearson's of mid-ranks, so that ties are right."""
    return pearson(ranks(dream), ranks(real))


def mmrv(dream: ArrayLike, real: ArrayLike) -> np.ndarray:
    """Mean maximum rank violation (Li et al. 2024, SIMPLER), in units of `real`: 0 is reality's order, kept.

    mean_i max_j |R_i - R_j| [(S_i > S_j) != (R_i > R_j)] with S of the dream and R of reality: how much worse, at most,
    a policy is than one that the dream does not place where it belongs. NaN when `real` is constant.
    """
    r = np.asarray(real, float)
    violated = above(dream) != above(r)
    worst = (np.abs(r[..., :, None] - r[..., None, :]) * violated).max(-1)
    return np.where(is_constant(r), np.nan, worst.mean(-1))


def regret(dream: ArrayLike, real: ArrayLike) -> np.ndarray:
    """What is lost in reality by taking the dream's favourite for the best; of tied favourites the mean."""
    s, r = settled(dream), np.asarray(real, float)
    picked = s == s.max(-1, keepdims=True)
    gained = (r * picked).sum(-1) / picked.sum(-1)
    return np.where(is_constant(r), np.nan, r.max(-1) - gained)


def ranks(scores: ArrayLike) -> np.ndarray:
    """Mid-ranks from 0: the number of policies below, and half of the others that are tied."""
    scores = settled(scores)
    tied = scores[..., :, None] == scores[..., None, :]
    return above(scores).sum(-1) + (tied.sum(-1) - 1) / 2


def above(scores: ArrayLike) -> np.ndarray:
    """`[..., P]` to `[..., P, P]`: whether policy i scores more than policy j."""
    scores = settled(scores)
    return scores[..., :, None] > scores[..., None, :]


def is_constant(scores: ArrayLike) -> np.ndarray:
    """Whether all of `[..., P]` are tied."""
    scores = settled(scores)
    return scores.max(-1) == scores.min(-1)


def settled(scores: ArrayLike) -> np.ndarray:
    """The scores to `DIGITS` digits of the largest, for comparing them and nothing else."""
    scores = np.asarray(scores, float)
    scale = np.abs(scores).max(-1, keepdims=True)
    scale = np.where(scale > 0, scale, 1)
    return np.round(scores / scale, DIGITS) * scale
