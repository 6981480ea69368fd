"""Metric 1: how much closer the forecast is than assuming that nothing changes.

N windows, K scored steps, D vector size.
"""

import numpy as np

from worldloom.evaluation.metric import MODEL, Evidence, Metric, masked_mean
from worldloom.evaluation.rollout import LATENT
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, on


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    """Of every key, of each variable of a vector, and of the model's own features; the RMSE beside it as a curve."""
    figures: dict[str, Figure] = {}
    for key in (*evidence.spec.image_keys, *evidence.spec.vector_keys):
        if key in evidence.keys(predictor):
            mse = evidence.mse(predictor, key)
            figures |= skill(evidence, predictor, key, mse, evidence.mse("persistence", key))
            evidence.curve("rmse", predictor, key, lambda w, mse=mse: np.sqrt(masked_mean(mse, w)), mse)  # type: ignore[misc]
            if key in evidence.spec.vector_keys:
                figures |= of_each_variable(evidence, predictor, key)
        elif predictor == MODEL:
            figures[key] = Figure.missing("the model does not decode this key")
    if (predictor, LATENT) in evidence.errors.mse and predictor == MODEL:
        mse, unchanged = (evidence.errors.mse[each, LATENT] for each in (MODEL, "persistence"))
        figures |= skill(evidence, predictor, LATENT, mse, unchanged)
    return figures


def of_each_variable(evidence: Evidence, predictor: str, key: str) -> dict[str, Figure]:
    mse, unchanged = (evidence.errors.mse[each, key] for each in (predictor, "persistence"))
    names = evidence.spec.obs[key].names or range(mse.shape[-1])
    figures: dict[str, Figure] = {}
    for d, name in enumerate(names):
        figures |= skill(evidence, predictor, f"{key}.{name}", mse[..., d], unchanged[..., d])
    return figures


def skill(evidence: Evidence, predictor: str, label: str, mse: np.ndarray, unchanged: np.ndarray) -> dict[str, Figure]:
    """Of errors `[N, K]`, against those of persistence."""
    statistic = on(scores.skill, np.nan_to_num(mse), np.nan_to_num(unchanged))
    return evidence.curve("skill", predictor, label, statistic, mse)


SKILL = Metric(
    "Skill",
    "1 - MSE / MSE of nothing-changes. 1 is perfect, 0 is no better than persistence. "
    "The row latent scores the model by its own beliefs: it says nothing of the world by itself.",
    compute,
)
