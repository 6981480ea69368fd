"""Which phases a training goes through, and whether its budget is enough for them."""

from collections.abc import Sequence
from dataclasses import replace

from worldloom.errors import UserError, unknown
from worldloom.limits import LARGEST_COUNT, check_limits
from worldloom.model import WorldModel
from worldloom.schedule import Budget, Phase


def plan_phases(model: WorldModel, budget: Budget, phase_steps: Sequence[str]) -> tuple[tuple[Phase, ...], Budget]:
    """The family's phases with `phase_steps`, each NAME=N, and the budget of all of them together.

    A phase in which nothing is left to train, as all it trains is in frozen parts, is left out. Raises `UserError` for
    a phase that does not exist or has nothing to train, and where the budget does not fit.
    """
    check_phases(model)
    given, phases = parse_steps(phase_steps), type(model).phases
    for name in given:
        if name not in {phase.name for phase in phases}:
            raise unknown(f"phase of family {model.family!r}", name, [phase.name for phase in phases])
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    left = [phase for phase in phases if any(phase.trains(name) for name in names)]
    frozen = f" (frozen: {', '.join(model.frozen)})" if model.frozen else ""
    for name in given.keys() - {phase.name for phase in left}:
        raise UserError(f"--phase-steps {name}={given[name]}: that phase has nothing to train{frozen}: leave it away")
    if not left:
        raise UserError(f"family {model.family!r} has nothing to train{frozen}")
    left = [replace(phase, steps=given.get(phase.name, phase.steps)) for phase in left]
    return tuple(left), fit_budget(left, budget)


def check_phases(model: WorldModel) -> None:
    """Raise `UserError` where the family's phases name what its model does not have."""
    names = [name for name, _ in model.named_parameters()]
    for phase in type(model).phases:
        where = f"phase {phase.name!r} of family {model.family!r}"
        check_limits(phase, lambda name, where=where: f"{where}: {name}")  # type: ignore[misc]
        if not callable(getattr(model, phase.objective, None)):
            raise UserError(f"{where}: the model has no method {phase.objective!r}, which its objective names")
        for module in phase.modules:
            if not any(replace(phase, modules=(module,)).trains(name) for name in names):
                raise UserError(f"{where}: no parameter is in {module!r}, which it names to be trained")


def fit_budget(phases: Sequence[Phase], budget: Budget) -> Budget:
    """`budget`, with the sum of the phases' own steps where it names none. Raises `UserError` where it cannot be."""
    own = sum(phase.steps or 0 for phase in phases)
    sharing = [phase.name for phase in phases if phase.steps is None]
    if sharing and budget == Budget():
        raise UserError(f"phase {sharing[0]!r} has no budget: give --phase-steps {sharing[0]}=N, --steps or --minutes")
    if budget.steps is None:
        return budget if sharing else replace(budget, steps=own)
    if own > budget.steps or (own < budget.steps and not sharing):
        taken = ", ".join(f"{phase.name} {phase.steps}" for phase in phases if phase.steps is not None)
        raise UserError(f"--steps is {budget.steps}, but the phases take {own} ({taken}): change --phase-steps")
    return budget


def parse_steps(entries: Sequence[str]) -> dict[str, int]:
    """Each NAME=N. Raises `UserError` for anything else and a name given twice."""
    steps: dict[str, int] = {}
    for entry in entries:
        name, _, number = entry.partition("=")
        if not name or not number.isdecimal() or int(number) > LARGEST_COUNT:
            raise UserError(f"--phase-steps {entry!r}: write it as NAME=N with a number of updates")
        if name in steps:
            raise UserError(f"--phase-steps {entry!r}: {name} is given twice: drop one")
        steps[name] = int(number)
    return steps
