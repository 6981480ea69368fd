"""Metric 11: imagined sums of rewards over k steps against the real ones: their difference and their order."""

from collections.abc import Callable
from functools import partial

import numpy as np

from worldloom.evaluation.measure_heads import returns, why_no_head
from worldloom.evaluation.metric import MODEL, Evidence, Metric
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, Statistic, figure, on


def bias(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    return figures(evidence, predictor, lambda imagined, real: partial(scores.mean, imagined - real))


def spearman(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    return figures(evidence, predictor, partial(on, scores.spearman))


def figures(
    evidence: Evidence, predictor: str, statistic: Callable[[np.ndarray, np.ndarray], Statistic]
) -> dict[str, Figure]:
    """One statistic of the imagined and the real returns `[n]` of the windows, for every horizon."""
    if predictor != MODEL:
        return {}
    why = why_no_head(evidence.model, "reward", evidence.spec.has_reward)
    if why:
        return {"open_loop": Figure.missing(why)}
    found = {}
    for k in evidence.errors.horizons:
        imagined, real, known = returns(evidence.errors, k)
        imagined, real, episode = imagined[known], real[known], evidence.errors.episode[known]
        constant = len(real) > 0 and float(np.ptp(real)) == 0
        none = f"the return is {float(real[0]):g} in all windows" if constant else f"no window is known for {k} steps"
        found[f"open_loop@{k}"] = figure(statistic(imagined, real), episode, evidence.seed, none)
    return found


RETURN_BIAS = Metric("Return bias", "Imagined minus real sum of rewards.", bias, 3)
RETURN_SPEARMAN = Metric("Return rank correlation", "Imagined against real returns. 1 is the same order.", spearman)
