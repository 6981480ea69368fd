"""Does the model use its actions? Its loss with the actions of other windows, over its loss with the true ones.

A model that ignores its actions has exactly 1, because both passes draw the same samples. B windows, T time.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from rich.panel import Panel
from torch import Tensor

from worldloom.data.segment import Segment
from worldloom.model import WorldModel
from worldloom.training.objective import weigh_windows

RESAMPLES = 2000
# A term has to grow by 1 % at the lower end of the interval. One term is enough: in most families the largest term, the
# reconstruction of what was just observed, hardly depends on actions, and would hide in the total that the dynamics do.
LEAST_RATIO = 1.01


@dataclass(frozen=True)
class Ratio:
    """A ratio with its 95 % bootstrap interval over windows."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ShuffleTest:
    """`total` and `terms` are ratios of losses; `action_std` is the spread of each scaled action over the windows."""

    windows: int
    total: Ratio | None = None
    terms: dict[str, Ratio] = field(default_factory=dict)
    action_std: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def ignores_actions(self) -> bool:
        """Whether no term, nor their sum, is clearly larger with the actions of other windows."""
        ratios = [ratio for ratio in (self.total, *self.terms.values()) if ratio is not None]
        return bool(ratios) and not any(ratio.low > LEAST_RATIO for ratio in ratios)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ignores_actions": self.ignores_actions}


def shuffle_test(model: WorldModel, segments: Sequence[Segment], seed: int = 0) -> ShuffleTest:
    """Compare losses on `segments`, each `[B, T]`, with those after permuting the actions among their windows.

    The caller chooses grad mode, precision and eval mode, and protects its random state, which is seeded here.
    """
    usable = [segment for segment in segments if segment.shape[0] > 1]
    if not model.spec.action.size:
        return ShuffleTest(0, note="the data have no actions")
    if not usable:
        return ShuffleTest(0, note="fewer than two held-out windows, so there is nothing to permute")
    true, false = [], []
    for number, segment in enumerate(usable):
        partner = _derangement(segment.shape[0], seed + number)
        # Past its partner's end a window would get actions that nobody took.
        segment = replace(segment, mask=segment.mask & segment.mask[partner])
        other = segment.with_action(segment.action[partner])
        true.append(_window_losses(model, segment, seed + number))
        false.append(_window_losses(model, other, seed + number))
    ours, theirs = _join(true), _join(false)
    ratios = {name: bootstrap_ratio(theirs[name], ours[name], seed) for name in ours}
    actions = torch.cat([segment.action[segment.mask] for segment in usable])
    return ShuffleTest(
        windows=len(ours["total"]),
        total=ratios.pop("total"),
        terms={name: ratio for name, ratio in ratios.items() if ratio is not None},
        action_std=actions.std(0).tolist(),
        note="" if ours["total"].mean() > 0 else "the loss is not positive, so it has no ratio",
    )


def bootstrap_ratio(above: np.ndarray, below: np.ndarray, seed: int = 0) -> Ratio | None:
    """mean(above) / mean(below), both `[B]`, resampled in pairs; None where the divisor is not positive."""
    if not below.mean() > 0:
        return None
    drawn = np.random.default_rng(seed).integers(len(below), size=(RESAMPLES, len(below)))
    divisors = below[drawn].mean(1)
    values = above[drawn].mean(1)[divisors > 0] / divisors[divisors > 0]
    low, high = np.quantile(values, [0.025, 0.975])
    return Ratio(float(above.mean() / below.mean()), float(low), float(high))


def warning(test: ShuffleTest, steps: int) -> Panel:
    """Advice for a model that ignores its actions."""
    assert test.total is not None, "there is nothing to warn of without a measurement"
    total = f"{test.total.value:.4f} [{test.total.low:.4f}, {test.total.high:.4f}]"
    spread = ", ".join(f"{value:.3g}" for value in test.action_std)
    causes = (
        f"With the actions of other windows its loss is {total} times that with the true ones,",
        f"and no term grows by {100 * (LEAST_RATIO - 1):.0f} % for certain. What it imagines will not depend on them.",
        "Likely causes:",
        "* the actions in the data hardly vary, or always follow from the observation: see `worldloom inspect DATA`",
        f"* their declared range is wrong, so that scaled to [-1, 1] they nearly vanish (spread here: {spread})",
        "* actions and observations are shifted against each other by a row or more",
        f"* {steps} updates are too few: the loss of the dynamics falls last",
    )
    return Panel("\n".join(causes), title="THIS MODEL IGNORES ITS ACTIONS", border_style="bold red", title_align="left")


def _window_losses(model: WorldModel, segment: Segment, seed: int) -> dict[str, Tensor]:
    """The weighed loss of each window, `[B]`, in total and by term."""
    torch.manual_seed(seed)
    terms = weigh_windows(model.loss(segment), segment.mask)
    weighed = {name: model.loss_weights[name] * term for name, term in terms.items()}
    return {"total": torch.stack(list(weighed.values())).sum(0), **weighed}


def _derangement(count: int, seed: int) -> Tensor:
    """A permutation that leaves nothing in place: each member of a random cycle gets its neighbour's."""
    cycle = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    permutation = torch.empty_like(cycle)
    permutation[cycle] = cycle.roll(1)
    return permutation


def _join(parts: Sequence[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    return {name: torch.cat([part[name] for part in parts]).double().cpu().numpy() for name in parts[0]}
