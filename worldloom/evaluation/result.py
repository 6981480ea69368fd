"""What an evaluation found: the card, and what the report shows beside it."""

from dataclasses import dataclass

from worldloom.evaluation import measure_heads
from worldloom.evaluation.baselines import Baselines
from worldloom.evaluation.card import Card
from worldloom.evaluation.rollout import Errors


@dataclass(frozen=True)
class Evaluation:
    """A judged model and what the report shows beside the card."""

    card: Card
    errors: Errors
    tracked: list[dict]
    ends: dict[int, measure_heads.EndSamples]
    baselines: Baselines
