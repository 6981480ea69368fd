"""From evidence to the figures of the card, each with its interval over held-out episodes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from worldloom.errors import UserError, origin
from worldloom.evaluation.metric import BASELINES, MODEL, Curve, Evidence, Metric
from worldloom.evaluation.metrics import METRICS
from worldloom.evaluation.wording import Table
from worldloom.stats.bootstrap import Figure


@dataclass
class Measured:
    """The card's tables and the curves behind its plots, `curves[metric][predictor, key]`."""

    metrics: Table = field(default_factory=dict)
    baselines: dict[str, Table] = field(default_factory=dict)
    curves: Mapping[str, dict[tuple[str, str], Curve]] = field(default_factory=dict)

    def put(self, predictor: str, metric: str, key: str, value: Figure) -> None:
        """File a figure under the model's metrics or under a baseline's."""
        table = self.metrics if predictor == MODEL else self.baselines.setdefault(predictor, {})
        table.setdefault(metric, {})[key] = value


def measure(evidence: Evidence, metrics: Mapping[str, Metric]) -> Measured:
    """Every metric's figures of the model and of the baselines. Raises `UserError` for one from outside that fails."""
    measured = Measured(curves=evidence.curves)
    for name, metric in metrics.items():
        for predictor in (MODEL, *BASELINES):
            for key, value in computed(name, metric, evidence, predictor).items():
                measured.put(predictor, name, key, value)
    return measured


def computed(name: str, metric: Metric, evidence: Evidence, predictor: str) -> Mapping[str, Figure]:
    if name in METRICS.entries:
        return metric.compute(evidence, predictor)
    try:
        figures = metric.compute(evidence, predictor)
    except UserError:
        raise
    except Exception as error:  # anything may come out of somebody else's metric
        raise UserError(f"metric {name!r} failed on {predictor}: {origin(error)}") from error
    if not isinstance(figures, Mapping) or not all(isinstance(figure, Figure) for figure in figures.values()):
        raise UserError(f"metric {name!r} returned {figures!r}, but it must be {{key: Figure}}")
    return figures
