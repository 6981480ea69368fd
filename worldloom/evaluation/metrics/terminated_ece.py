"""Metric 11: whether an end comes as often as its probability says, tracked and ahead."""

from worldloom.evaluation.measure_heads import ends_by_key, why_no_head
from worldloom.evaluation.metric import MODEL, Evidence, Metric
from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, figure, on


def compute(evidence: Evidence, predictor: str) -> dict[str, Figure]:
    if predictor != MODEL:
        return {}
    why = why_no_head(evidence.model, "terminated", evidence.spec.has_end)
    if why:
        return {"tracked": Figure.missing(why)}
    return {
        key: figure(
            on(scores.ece, ends.probability, ends.ended, ends.weight),
            ends.episode,
            evidence.seed,
            "no row reaches this far",
        )
        for key, ends in ends_by_key(evidence.tracked, evidence.ends).items()
    }


TERMINATED_ECE = Metric("End calibration error", "15 bins. 0 is calibrated.", compute, 3)
