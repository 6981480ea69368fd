"""Metric 11: whether ends are told apart from other rows and come as often as predicted, tracked and ahead."""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from worldloom.evaluation.measure_heads import FEW_ENDS, ends_by_key, why_no_head
from worldloom.evaluation.metric import MODEL, Evidence, Metric
from worldloom.evaluation.wording import Findings, Sentence, interval
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, figure, on

GOOD_AUROC, BAD_ECE = 0.8, 0.05


def auroc(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    return figures(evidence, predictor, scores.auroc, FEW_ENDS, both=True)


def ece(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    return figures(evidence, predictor, scores.ece, "no row reaches this far", both=False)


def figures(
    evidence: Evidence, predictor: str, score: Callable[..., np.ndarray], none: str, *, both: bool
) -> dict[str, Figure]:
    """One score of end probabilities, `none` where there are no rows or not `both` ends and other rows."""
    if predictor != MODEL:
        return {}
    why = why_no_head(evidence.model, "terminated", evidence.spec.has_end)
    if why:
        return {"tracked": Figure.missing(why)}
    found = {}
    for key, ends in ends_by_key(evidence.tracked, evidence.ends).items():
        alike = bool(ends.ended.all() or not ends.ended.any())
        episodes = np.empty(0, int) if both and alike else ends.episode
        found[key] = figure(on(score, ends.probability, ends.ended, ends.weight), episodes, evidence.seed, none)
    return found


def sentence(findings: Findings, key: str) -> Iterator[Sentence]:
    tracked = findings.of("terminated_auroc").get("tracked")
    if tracked is None or tracked.value is None:
        yield Sentence("open", f"ends of episodes: not measured: {tracked.why if tracked else 'no head'}.")
        return
    ahead = {k: f for k, f in findings.at_steps("terminated_auroc", "open_loop").items() if f.value is not None}
    predicted = [k for k, f in ahead.items() if (f.value or 0) >= GOOD_AUROC]
    words = f"ends of episodes: recognised when tracked with AUROC {interval(tracked)}"
    if ahead:
        words += "; predicted " + ", ".join(f"{interval(f)} at {k}" for k, f in ahead.items()) + " steps ahead"
    good, off = tracked.value >= GOOD_AUROC, miscalibrated(findings)
    mark: Literal["yes", "partly", "no"] = "yes" if good and predicted else "partly" if good or predicted else "no"
    if off:
        mark = "no" if mark == "no" else "partly"
        off = f", but their probability is off by {off}: dreams do not end when they should"
    yield Sentence(mark, f"{words} (chance is 0.5){off}.")


def miscalibrated(findings: Findings) -> str:
    """Where. A model that ranks rows well may still predict ends that do not come, and a policy learns from that."""
    places = {"when tracked": findings.of("terminated_ece").get("tracked")}
    places |= {f"at {k}": figure for k, figure in findings.at_steps("terminated_ece", "open_loop").items()}
    off = {where: each for where, each in places.items() if each and each.low is not None and each.low > BAD_ECE}
    return ", ".join(f"{interval(figure)} {where}" for where, figure in off.items())


TERMINATED_AUROC = Metric(
    "End AUROC", "P[a real end scores above a row that is none]. 0.5 is chance.", auroc, sentence=sentence
)
TERMINATED_ECE = Metric("End calibration error", "15 bins. 0 is calibrated.", ece, 3)
