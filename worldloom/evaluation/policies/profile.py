"""Where a decision's milliseconds go: the sections of its clock, summed over all decisions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch

from worldloom.planners.clock import Clock

# In the order in which they happen; planners may count under further names.
SECTIONS = ("observe", "policy", "sample", "imagine", "objective", "constraints", "gradient", "refit")


@dataclass
class Profile:
    """Hands out the clocks of decisions and keeps them: `PlanningAgent(make_clock=profile.clock)`.

    On a GPU the clock waits for its work whenever it is read, so that a section holds its own time; decisions then take
    a little longer than without a profile.
    """

    device: torch.device
    clocks: list[Clock] = field(default_factory=list)

    def clock(self, deadline: float | None = None) -> Clock:
        self.clocks.append(Clock(deadline, self._now))
        return self.clocks[-1]

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return perf_counter()

    def summary(self, decisions: Sequence[float]) -> dict[str, dict[str, float]]:
        """Mean and median milliseconds of each section, and its share of `decisions`, the milliseconds of each call.

        "other" is what no section holds: tensors in and out, the agent's own bookkeeping.
        """
        names = [*SECTIONS, *sorted({name for clock in self.clocks for name in clock.sections} - set(SECTIONS))]
        spent = {name: np.array([clock.sections.get(name, 0.0) for clock in self.clocks]) for name in names}
        total = np.asarray(decisions)
        spent["other"] = total - sum(spent.values())
        spent["decision"] = total
        return {
            name: {
                "mean": float(times.mean()),
                "p50": float(np.median(times)),
                "share": float(times.sum() / total.sum()),
            }
            for name, times in spent.items()
        }


def table(summary: dict[str, dict[str, float]], env_step: float) -> list[str]:
    """The profile as lines; sections that never happened are left out."""
    lines = [f"  {'a decision, ms':<20}{'mean':>10}{'p50':>10}{'share':>9}"]
    for name, row in summary.items():
        if row["mean"] > 0:
            lines.append(f"  {name:<20}{row['mean']:>10.3f}{row['p50']:>10.3f}{row['share']:>9.1%}")
    return [*lines, f"  {'env step':<20}{env_step:>10.3f}"]
