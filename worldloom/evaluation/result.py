"""What an evaluation found: the card, and what the report shows beside it."""

from collections.abc import Mapping
from dataclasses import dataclass

from worldloom.evaluation.baselines import Baselines
from worldloom.evaluation.card import Card
from worldloom.evaluation.measure_heads import EndSamples
from worldloom.evaluation.metric import Metric
from worldloom.evaluation.rollout import Errors


@dataclass(frozen=True)
class Evaluation:
    """An evaluated model and what the report shows beside the card."""

    card: Card
    errors: Errors
    tracked: list[dict]
    ends: dict[int, EndSamples]
    baselines: Baselines
    metrics: Mapping[str, Metric]
