"""Metric 11: whether imagined sums of rewards over k steps are ordered as the real ones."""

import numpy as np

from worldloom.evaluation.measure_heads import returns, why_no_head
from worldloom.evaluation.metric import MODEL, Evidence, Metric
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, figure, on


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    if predictor != MODEL:
        return {}
    why = why_no_head(evidence.model, "reward", evidence.spec.has_reward)
    if why:
        return {"open_loop": Figure.missing(why)}
    figures = {}
    for k in evidence.errors.horizons:
        imagined, real, exists = returns(evidence.errors, k)
        x, y, episode = imagined[exists], real[exists], evidence.errors.episode[exists]
        constant = len(y) > 0 and float(np.ptp(y)) == 0
        none = f"the return is {float(y[0]):g} in all windows" if constant else f"no window is known for {k} steps"
        figures[f"open_loop@{k}"] = figure(on(scores.spearman, x, y), episode, evidence.seed, none)
    return figures


RETURN_SPEARMAN = Metric("Return rank correlation", "Imagined against real returns. 1 is the same order.", compute)
