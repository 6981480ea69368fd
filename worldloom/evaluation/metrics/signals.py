"""Whether a model knows the data's further signals, such as cost or success: from tracked and open-loop beliefs.

n rows. The figure of a signal from tracked beliefs is called by its name, `cost`; k steps ahead it is `cost@k`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from worldloom.evaluation.metric import MODEL, Evidence, Metric
from worldloom.evaluation.rollout import signals_of
from worldloom.evaluation.wording import Findings, Sentence, interval
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, figure, on

OWN_METRICS = ("reward", "terminated")
ONE_KIND = "the held-out rows that were evaluated all have or all lack it"
CONSTANT = "it is the same in all held-out rows that were evaluated"
GOOD_AUROC = 0.8


@dataclass(frozen=True)
class Samples:
    """What was predicted and what was recorded in rows of held-out episodes, each `[n]`."""

    predicted: np.ndarray
    real: np.ndarray
    episode: np.ndarray

    @classmethod
    def recorded(cls, predicted: np.ndarray, real: np.ndarray, episode: np.ndarray) -> "Samples":
        """Of the rows whose signal was recorded."""
        known = np.isfinite(real)
        return cls(predicted[known], real[known].astype(np.float64), episode[known])


def further_signals(evidence: Evidence, *, flags: bool) -> list[str]:
    """The signals without a metric of their own: the yes-or-no ones, or the numbers."""
    found = [key for key in signals_of(evidence.model) if key not in OWN_METRICS]
    return [key for key in found if (evidence.spec.keys[key].kind == "flag") == flags]


def samples(evidence: Evidence, signal: str) -> Iterator[tuple[str, Samples]]:
    """Rows after the first of tracked episodes, and rows k steps ahead of a window's context."""
    rows = [(t[signal][1:], t[f"real_{signal}"][1:], np.full(len(t[signal]) - 1, i))
            for i, t in enumerate(evidence.tracked)]  # fmt: skip
    yield signal, Samples.recorded(*(np.concatenate(column) for column in zip(*rows, strict=True)))
    errors = evidence.errors
    for k in errors.horizons:
        exists = errors.steps >= k
        predicted, real = (errors.heads[name][exists, k - 1] for name in (signal, f"real_{signal}"))
        yield f"{signal}@{k}", Samples.recorded(predicted, real, errors.episode[exists])


def auroc(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    return figures(evidence, predictor, flags=True, statistic=scores.auroc, why=ONE_KIND)


def ece(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    return figures(evidence, predictor, flags=True, statistic=scores.ece)


def r2(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    return figures(evidence, predictor, flags=False, statistic=scores.r2, why=CONSTANT)


def figures(
    evidence: Evidence, predictor: str, *, flags: bool, statistic: Callable[..., np.ndarray], why: str = ""
) -> dict[str, Figure]:
    """One statistic of every signal of a kind; `why` there is none where the recorded values are all alike."""
    found: dict[str, Figure] = {}
    for signal in further_signals(evidence, flags=flags) if predictor == MODEL else ():
        for key, rows in samples(evidence, signal):
            missing = bool(why) and (not len(rows.real) or float(np.ptp(rows.real)) == 0)
            first, second = (rows.predicted, rows.real > 0) if flags else (rows.real, rows.predicted)
            episode = np.empty(0, int) if missing else rows.episode
            found[key] = figure(on(statistic, first, second), episode, evidence.seed, why or "no row reaches this far")
    return found


def sentence(findings: Findings, key: str) -> Iterator[Sentence]:
    """One line a signal."""
    for name, found in findings.of("signal_auroc").items():
        if "@" in name or found.value is None:
            continue
        ahead = {k: f for k, f in findings.at_steps("signal_auroc", name).items() if f.value is not None}
        words = f"{name}: told apart with AUROC {interval(found)} when tracked"
        if ahead:
            words += "; " + ", ".join(f"{interval(f)} at {k}" for k, f in ahead.items()) + " steps ahead"
        good, later = found.value >= GOOD_AUROC, any((f.value or 0) >= GOOD_AUROC for f in ahead.values())
        yield Sentence("yes" if good and later else "partly" if good or later else "no", words + " (chance is 0.5).")


SIGNAL_AUROC = Metric(
    "Signal AUROC",
    "P[a row that has the signal scores above one that has not]. 0.5 is chance.",
    auroc,
    sentence=sentence,
)
SIGNAL_ECE = Metric("Signal calibration error", "15 bins. 0 is calibrated.", ece, 3)
SIGNAL_R2 = Metric("Signal R²", "1 is perfect, 0 is the mean.", r2)
