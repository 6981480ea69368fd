"""Metric 5: whether the model listens to its actions: the forecast with the true ones against that with another's."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from worldloom.evaluation.metric import MODEL, Evidence, Metric, masked_mean
from worldloom.evaluation.wording import Findings, Sentence, interval, list_steps, split_key
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure

LEAST_DB = 0.2  # an error that is 5 % lower: less can be sure and still of no use


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    errors, figures = evidence.errors, {}
    for key in evidence.keys(MODEL) if predictor == MODEL else ():
        if ("shuffled", key) not in errors.mse:
            figures[key] = Figure.missing("the data have no actions")
            continue
        columns = [errors.grid.index(k) for k in errors.horizons]
        true, shuffled = evidence.mse(MODEL, key)[:, columns], evidence.mse("shuffled", key)
        gap = np.where(np.isfinite(true), scores.psnr(true) - scores.psnr(shuffled), np.nan)
        mean = partial(masked_mean, gap)
        figures |= evidence.curve("controllability", MODEL, key, mean, gap, errors.horizons)
    return figures


def sentence(findings: Findings, key: str) -> Iterator[Sentence]:
    figures = findings.of("controllability")
    known = {k: f for k, f in findings.at_steps("controllability", key).items() if f.value is not None}
    if not known:
        why = next((f.why for name, f in figures.items() if split_key(name)[0] == key and f.why), "no figure")
        yield Sentence("open", f"{key}: whether it listens to actions was not measured: {why}.")
        return
    sure = [k for k, f in known.items() if f.low is not None and f.low > 0]
    much = [k for k in sure if (known[k].low or 0.0) > LEAST_DB]
    best = max(much or sure or known, key=lambda k: known[k].value or 0.0)
    at = list_steps([best])
    words = f"the true actions forecast {interval(known[best])} dB better than another episode's at {at}"
    if known[best].low is None:
        yield Sentence("partly", f"{key}: one episode cannot show whether it listens to its actions: {words}.")
    elif much:
        yield Sentence("yes", f"{key}: it listens to its actions: {words}.")
    elif sure:
        yield Sentence("partly", f"{key}: it hardly listens to its actions ({LEAST_DB:g} dB would count): {words}.")
    else:
        yield Sentence("no", f"{key}: no evidence that it listens to its actions: {words}.")


CONTROLLABILITY = Metric(
    "Controllability, dB",
    "Gain of the true actions over another episode's. 0: ignores actions.",
    compute,
    sentence=sentence,
    each_key=True,
)
