"""The card in plain words: what this model can be trusted for, and what not."""

from collections.abc import Mapping, Sequence

from worldloom.evaluation.metric import Metric
from worldloom.evaluation.metrics import chosen
from worldloom.evaluation.wording import Findings, Sentence, Table


def verdict(
    figures: Table,
    keys: Sequence[str],
    horizons: Sequence[int],
    fps: float,
    metrics: Mapping[str, Metric] | None = None,
    baselines: Mapping[str, Table] | None = None,
) -> list[Sentence]:
    """What every metric, by default every one of ours, has to say: of each key in the order given, then of all."""
    findings = Findings(figures, horizons, fps, baselines or {})
    speaking = [metric for metric in (chosen() if metrics is None else metrics).values() if metric.sentence]
    sentences: list[Sentence] = []
    for key in (*keys, ""):
        for metric in speaking:
            if metric.sentence and metric.each_key == bool(key):
                sentences += metric.sentence(findings, key)
    return sentences
