"""Metric 5: how much larger the training loss is when windows get the actions of others.

R resamples, n windows.
"""

import numpy as np

from worldloom.evaluation.metric import MODEL, Evidence, Metric
from worldloom.stats.bootstrap import Figure, figure, on


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    errors = evidence.errors
    if predictor != MODEL:
        return {}
    if not errors.loss:
        return {"total": Figure.missing("the data have no actions")}
    return {
        term: figure(on(ratio, shuffled, true), errors.loss_episode, evidence.seed)
        for term, (true, shuffled) in errors.loss.items()
    }


def ratio(top: np.ndarray, bottom: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ratio of weighted sums of `[n]` for weights `[R, n]`: `[R]`, NaN unless the lower one is positive."""
    below = weights @ bottom
    return np.where(below > 0, (weights @ top) / np.where(below > 0, below, 1), np.nan)


LOSS_RATIO = Metric("Loss ratio", "Training loss with shuffled over true actions. 1: ignores actions.", compute, 3)
