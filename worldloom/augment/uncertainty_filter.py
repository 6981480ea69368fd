"""The uncertainty filter: branches end where an ensemble's members disagree more than on held-out real actions.

B branches, H horizon.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from worldloom.augment.branches import Branches, recorded
from worldloom.augment.start_states import BranchWindow, StartStates
from worldloom.data.cache import CachedDataset
from worldloom.model import WorldModel

DISAGREEMENT = "disagreement"
NUM_BRANCHES = 256


@dataclass(frozen=True)
class UncertaintyFilter:
    """Steps whose disagreement is above `threshold` are not kept.

    The threshold is the quantile `keep` of the disagreement in `steps` imagined steps with the recorded actions. They
    start from held-out real rows of `episodes` episodes and are as long as branches, so a share `keep` of the recorded
    steps would pass.
    """

    keep: float
    threshold: float
    episodes: int
    steps: int

    @classmethod
    def fit(
        cls,
        model: WorldModel,
        dataset: CachedDataset,
        held_out: Sequence[int],
        window: BranchWindow,
        keep: float,
        rng: np.random.Generator,
    ) -> Self:
        starts = StartStates.draw(model, dataset, held_out, window, NUM_BRANCHES, rng)
        branches = recorded(model, starts, window.horizon, rng)
        known = np.arange(window.horizon) < branches.steps[:, None]
        values = disagreement(model, branches)[known]
        return cls(keep, float(np.quantile(values, keep)), len(held_out), len(values))

    def rejects(self, model: WorldModel, branches: Branches) -> np.ndarray:
        """Whether each step is too uncertain, bool `[B, H]`; so is one whose disagreement is not finite."""
        return ~(disagreement(model, branches) <= self.threshold)

    def describe(self) -> dict[str, Any]:
        """For the data card."""
        return {
            "keep": self.keep,
            "threshold": round(self.threshold, 6),
            "held_out_episodes": self.episodes,
            "held_out_steps": self.steps,
        }


def disagreement(model: WorldModel, branches: Branches) -> np.ndarray:
    """The members' disagreement at each step, `[B, H]`."""
    return model.decode(branches.states, DISAGREEMENT).float().cpu().numpy()
