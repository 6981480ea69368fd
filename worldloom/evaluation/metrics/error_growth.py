"""Metric 2: how fast errors grow while nothing is observed."""

import numpy as np

from worldloom.evaluation.metric import Evidence, Metric, masked_mean
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, figure


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    errors, figures = evidence.errors, {}
    for key in evidence.keys(predictor):
        mse = evidence.mse(predictor, key)
        exists = [i for i in range(len(errors.grid)) if np.isfinite(mse[:, i]).any()]
        steps, known = np.array(errors.grid)[exists], mse[:, exists]
        if not exists:
            figures[key] = evidence.too_short(errors.grid[0])
        elif len(exists) > 1:

            def growth(w: np.ndarray, known: np.ndarray = known, steps: np.ndarray = steps) -> np.ndarray:
                return scores.growth(masked_mean(known, w), steps)

            figures[key] = figure(growth, errors.episode, evidence.seed)
    return figures


ERROR_GROWTH = Metric("Error growth", "Slope of ln RMSE per step.", compute, 4)
