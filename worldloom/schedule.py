"""How a training goes: how long (`Budget`), how fast (`OptimizerSettings`), in which `Phase`s, how often it reports.

Small values that a command's settings or a model family make and a trainer takes; neither needs to know the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from worldloom.limits import Bound, above, at_least


@dataclass(frozen=True)
class Budget:
    """How many updates, how many minutes, or both: whichever comes first. Without either it has no end."""

    steps: Annotated[int | None, at_least(1)] = None
    minutes: Annotated[float | None, above(0)] = None

    def progress(self, steps: int, seconds: float) -> float:
        """The share that is spent after `steps` updates in `seconds` of training, in [0, 1]."""
        by_steps = 0.0 if self.steps is None else _share(steps, self.steps)
        by_time = 0.0 if self.minutes is None else _share(seconds, 60 * self.minutes)
        return min(max(by_steps, by_time), 1.0)


@dataclass(frozen=True)
class OptimizerSettings:
    """How an update moves the weights.

    The learning rate rises in `warmup` updates to `lr` and ends at `final_lr` of it. A parameter's gradient norm is
    held below `clip` times its own norm (0: not at all). `ema_decay` is that of the weights that are evaluated and
    saved; 0 uses the trained ones.
    """

    lr: Annotated[float, at_least(0)] = 1e-3
    warmup: Annotated[int, at_least(0)] = 50
    final_lr: Annotated[float, at_least(0)] = 0.1
    clip: Annotated[float, at_least(0)] = 0.3
    weight_decay: Annotated[float, at_least(0)] = 0.0
    ema_decay: Annotated[float, Bound(low=0, below=1)] = 0.0


@dataclass(frozen=True)
class Reporting:
    """Updates between lines of the log, checkpoints and previews (0: none), and how many checkpoints are kept."""

    log_every: Annotated[int, at_least(1)] = 50
    checkpoint_every: Annotated[int, at_least(1)] = 500
    keep: Annotated[int, at_least(1)] = 2
    preview_every: Annotated[int, at_least(0)] = 1000


@dataclass(frozen=True)
class Phase:
    """A stretch of a training with an objective of its own, as a family declares it. Optimiser state begins anew.

    `objective` names a method of the model that returns loss terms as `loss` does. `modules` are the prefixes of the
    parameters that train ("tokenizer"; none: all). A phase takes `share` of what the phases with `steps` of their own
    leave of the budget. Of its schedule, what is None is as the training's settings say.
    """

    name: str = "all"
    objective: str = "loss"
    modules: tuple[str, ...] = ()
    share: Annotated[float, above(0)] = 1.0
    steps: Annotated[int | None, at_least(0)] = None
    lr: Annotated[float | None, at_least(0)] = None
    warmup: Annotated[int | None, at_least(0)] = None
    final_lr: Annotated[float | None, at_least(0)] = None

    def trains(self, parameter: str) -> bool:
        """Whether the parameter of this full name trains."""
        return not self.modules or any(f"{parameter}.".startswith(f"{module}.") for module in self.modules)

    def schedule(self, settings: OptimizerSettings) -> OptimizerSettings:
        """`settings` with the phase's own schedule."""
        own = {name: getattr(self, name) for name in ("lr", "warmup", "final_lr")}
        return replace(settings, **{name: value for name, value in own.items() if value is not None})


def phase_budget(phases: Sequence[Phase], budget: Budget, steps: int, seconds: float) -> Budget:
    """What the first of `phases`, the ones to come, may spend when `steps` and `seconds` of the whole are spent."""
    first, later = phases[0], phases[1:]
    share = 1.0 if first.steps is not None else first.share / sum(p.share for p in phases if p.steps is None)
    minutes = None if budget.minutes is None else share * max(budget.minutes - seconds / 60, 0.0)
    if first.steps is not None or budget.steps is None:
        return Budget(first.steps, minutes)
    left = budget.steps - steps - sum(phase.steps or 0 for phase in later)
    return Budget(max(round(share * left), 0), minutes)


def _share(spent: float, limit: float) -> float:
    return spent / limit if limit else 1.0
