"""Metric 1: whether the model is worth more than a linear forecast that knows the actions too."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from worldloom.evaluation.metric import MODEL, Evidence, Metric
from worldloom.evaluation.wording import Findings, Sentence, interval, list_steps
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for key in evidence.keys("linear") if predictor == MODEL else ():
        if key not in evidence.keys(MODEL):
            continue
        mse = evidence.mse(MODEL, key)
        gain = np.nan_to_num(evidence.mse("linear", key) - mse)
        unchanged = np.nan_to_num(evidence.mse("persistence", key))

        def difference(w: np.ndarray, gain: np.ndarray = gain, unchanged: np.ndarray = unchanged) -> np.ndarray:
            return 1 - scores.skill(gain, unchanged, w)

        figures |= evidence.curve("skill_minus_linear", MODEL, key, difference, mse)
    return figures


def sentence(findings: Findings, key: str) -> Iterator[Sentence]:
    gains = {k: f for k, f in findings.at_steps("skill_minus_linear", key).items() if f.value is not None}
    if not gains:
        return
    if all(f.low is None for f in gains.values()):
        values = ", ".join(interval(f) for f in gains.values())
        words = f"{key} against a linear forecast, difference in skill at {list_steps(list(gains))}: {values}"
        behind = all((f.value or 0.0) < 0 for f in gains.values())
        yield Sentence("no" if behind else "partly", f"{words}, from one episode and so without an interval.")
        return
    better = [k for k, f in gains.items() if f.low is not None and f.low > 0]
    worse = [k for k, f in gains.items() if f.high is not None and f.high < 0]
    unsure = [k for k in gains if k not in better and k not in worse]
    parts = []
    for words, steps in (("better", better), ("no clear difference", unsure), ("worse", worse)):
        if steps:
            parts.append(f"{words} at {list_steps(steps)} ({', '.join(interval(gains[k]) for k in steps)})")
    mark: Literal["yes", "partly", "no"] = "yes" if better and not worse else "no" if worse and not better else "partly"
    yield Sentence(mark, f"{key} against a linear forecast, difference in skill: {'; '.join(parts)}.")


SKILL_MINUS_LINEAR = Metric(
    "Skill minus linear",
    "Model minus linear forecast on the same windows. Above 0 is better.",
    compute,
    sentence=sentence,
    each_key=True,
)
