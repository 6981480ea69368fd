"""Metric 11: imagined minus real sum of rewards over k steps."""

from functools import partial

from worldloom.evaluation.measure_heads import returns, why_no_head
from worldloom.evaluation.metric import MODEL, Evidence, Metric
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, figure


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    if predictor != MODEL:
        return {}
    why = why_no_head(evidence.model, "reward", evidence.spec.has_reward)
    if why:
        return {"open_loop": Figure.missing(why)}
    figures = {}
    for k in evidence.errors.horizons:
        imagined, real, exists = returns(evidence.errors, k)
        bias, episode = partial(scores.mean, imagined[exists] - real[exists]), evidence.errors.episode[exists]
        figures[f"open_loop@{k}"] = figure(bias, episode, evidence.seed, f"no window is known for {k} steps")
    return figures


RETURN_BIAS = Metric("Return bias", "Imagined minus real sum of rewards.", compute, 3)
