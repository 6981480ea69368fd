"""Metric 11: how much of the rewards the model knows, from tracked beliefs and from open-loop ones.

n rows.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from worldloom.evaluation.measure_heads import why_no_head
from worldloom.evaluation.metric import MODEL, Evidence, Metric
from worldloom.evaluation.wording import Findings, Sentence, interval
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, figure, on


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    """Of every row after the first, tracked, and of rows k steps ahead. The baseline guesses the training mean."""
    why = why_no_head(evidence.model, "reward", evidence.spec.has_reward)
    if predictor not in (MODEL, "mean") or (why and predictor != MODEL):
        return {}
    if why:
        return {"tracked": Figure.missing(why)}
    guess = evidence.baselines.reward_mean if predictor == "mean" else None
    tracked, errors = evidence.tracked, evidence.errors
    rows = [(t["real_reward"][1:], t["reward"][1:], np.full(len(t["reward"]) - 1, i)) for i, t in enumerate(tracked)]
    target, predicted, episode = (np.concatenate(column) for column in zip(*rows, strict=True))
    figures = {"tracked": r2(target, predicted, guess, episode, evidence.seed)}
    for k in errors.horizons:
        exists = errors.steps >= k
        target, predicted = (errors.heads[name][exists, k - 1] for name in ("real_reward", "reward"))
        figures[f"open_loop@{k}"] = r2(target, predicted, guess, errors.episode[exists], evidence.seed)
    return figures


def r2(target: np.ndarray, predicted: np.ndarray, guess: float | None, episode: np.ndarray, seed: int) -> Figure:
    """Of `predicted` `[n]`, or of always the same `guess`, for the real rewards `target` `[n]`."""
    known = np.isfinite(target)
    target, predicted, episode = target[known], predicted[known], episode[known]
    constant = len(target) > 0 and float(np.ptp(target)) == 0
    why = f"the reward is {float(target[0]):g} in all these rows" if constant else "no held-out row reaches this"
    forecast = predicted if guess is None else np.full_like(target, guess)
    return figure(on(scores.r2, target, forecast), episode, seed, why)


def sentence(findings: Findings, key: str) -> Iterator[Sentence]:
    tracked = findings.of("reward_r2").get("tracked")
    if tracked is None or tracked.value is None:
        yield Sentence("open", f"rewards: not measured: {tracked.why if tracked else 'no head'}.")
        return
    ahead = {k: f for k, f in findings.at_steps("reward_r2", "open_loop").items() if f.value is not None}
    words = f"rewards: R² {interval(tracked)} when tracked"
    if ahead:
        words += "; " + ", ".join(f"{interval(f)} at {k}" for k, f in ahead.items()) + " steps ahead"
    usable = [f for f in ahead.values() if f.low is not None and f.low > 0]
    mark: Literal["yes", "partly", "no"] = "yes" if tracked.value > 0.5 and usable else "partly"
    yield Sentence(mark if tracked.value > 0 else "no", words + ".")


REWARD_R2 = Metric("Reward R²", "1 is perfect, 0 is the mean.", compute, sentence=sentence)
