"""How figures are put into words: numbers, intervals and the sentences that the report begins with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from worldloom.stats.bootstrap import Figure

MINUS, ABSENT = "\u2212", "\u2013"
Table = dict[str, dict[str, Figure]]
BASELINES = {"mean": "the mean of the training data", "linear": "a linear forecast", "persistence": "no change"}


@dataclass(frozen=True)
class Sentence:
    """`mark` is what the reader may do with it: trust it, mind it, not rely on it, or nothing was measured."""

    mark: Literal["yes", "partly", "no", "open"]
    words: str


@dataclass(frozen=True)
class Findings:
    """What a sentence is made from: the model's figures by metric and key, the card's horizons, steps per second.

    baselines: the same figures of each baseline, by its name.
    """

    figures: Table
    horizons: Sequence[int]
    fps: float
    baselines: Mapping[str, Table] = field(default_factory=dict)

    def of(self, metric: str) -> dict[str, Figure]:
        """The figures of a metric, none if it was not measured."""
        return self.figures.get(metric, {})

    def no_better_than(self, key: str) -> dict[int, str]:
        """The horizons at which the best baseline has at least the model's skill, and what that baseline is."""
        found = {}
        for k, ours in self.at_steps("skill", key).items():
            rivals = {name: table.get("skill", {}).get(f"{key}@{k}") for name, table in self.baselines.items()}
            known = {name: figure.value for name, figure in rivals.items() if figure and figure.value is not None}
            best = max(known, key=known.__getitem__, default=None)
            if best is not None and ours.value is not None and known[best] >= ours.value:
                found[k] = BASELINES.get(best, best)
        return found

    def at_steps(self, metric: str, key: str) -> dict[int, Figure]:
        """The figures of one key by horizon."""
        found = {}
        for name, figure in self.of(metric).items():
            base, step = split_key(name)
            if base == key and step is not None:
                found[step] = figure
        return found


def number(value: float | None, digits: int = 2) -> str:
    """A number as people write it: a true minus, no minus zero, an exponent only for what is huge."""
    if value is None:
        return ABSENT
    if abs(value) >= 1e9:
        return f"{value:.{digits}e}".replace("-", MINUS)
    rounded = round(value, digits if abs(value) < 1000 else 0) + 0.0
    text = f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.{digits}f}"
    return text.replace(",", " ").replace("-", MINUS)


def interval(figure: Figure, digits: int = 2) -> str:
    """Value and interval: `0.31 [0.22, 0.40]`."""
    if figure.low is None or figure.high is None:
        return number(figure.value, digits)
    return f"{number(figure.value, digits)} [{number(figure.low, digits)}, {number(figure.high, digits)}]"


def split_key(key: str) -> tuple[str, int | None]:
    """`image@5` is `("image", 5)`; a figure without a horizon has None."""
    name, _, step = key.rpartition("@")
    return (name, int(step)) if name and step.isdigit() else (key, None)


def list_steps(steps: Sequence[int]) -> str:
    """`1 step`, `5 steps`, `1, 5 and 15 steps`."""
    words = [str(step) for step in steps]
    if len(words) == 1:
        return f"{words[0]} step{'s' * (steps[0] != 1)}"
    return f"{', '.join(words[:-1])} and {words[-1]} steps"
