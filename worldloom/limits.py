"""Limits of numbers, declared where the number is: `steps: Annotated[int, at_least(1)]`, checked by `check_limits`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from math import inf, isfinite
from typing import Any, get_args, get_type_hints

from worldloom.errors import UserError

LARGEST_COUNT = 2**32 - 1  # a whole number above it was never meant, and would overflow further on


@dataclass(frozen=True)
class Bound:
    """What a number must keep: `low <= x <= high`, where `above` and `below` exclude the ends. Always finite."""

    low: float = -inf
    high: float = inf
    above: float = -inf
    below: float = inf
    odd: bool = False

    def problem(self, value: float) -> str | None:
        """What `value` should be, or None if it is within the limit."""
        high = min(self.high, LARGEST_COUNT) if isinstance(value, int) else self.high
        if not isfinite(value):
            return "a finite number"
        if not value >= self.low:
            return f"at least {self.low:g}"
        if not value > self.above:
            return f"above {self.above:g}"
        if not value < self.below:
            return f"below {self.below:g}"
        if not value <= high:
            return f"at most {high:,.10g}".replace(",", "")
        return "odd" if self.odd and value % 2 == 0 else None


FINITE = Bound()


def at_least(low: float) -> Bound:
    return Bound(low=low)


def between(low: float, high: float) -> Bound:
    """Both ends are allowed."""
    return Bound(low=low, high=high)


def above(low: float) -> Bound:
    return Bound(above=low)


def strictly_between(low: float, high: float) -> Bound:
    return Bound(above=low, below=high)


def odd(low: int) -> Bound:
    """An odd number from `low` on."""
    return Bound(low=low, odd=True)


def as_flag(name: str) -> str:
    """`batch_size` as it is typed: `--batch-size`."""
    return "--" + name.replace("_", "-")


def check_limits(settings: Any, name_of: Callable[[str], str] = as_flag) -> None:
    """Raise `UserError` for the first field of the dataclass `settings`, or of one inside it, beyond its `Bound`.

    None was not given, and every number of a tuple is checked. `name_of` makes the name in the message of the field's.
    """
    for name, value, limit in _declared(settings):
        for number in value if isinstance(value, tuple) else (value,):
            problem = limit.problem(number) if number is not None else None
            if problem:
                raise UserError(f"{name_of(name)} is {number}, but must be {problem}")


def _declared(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any, Bound]]:
    kind: Any = type(settings)  # mypy takes a type for something that cannot be hashed
    for name, limits in _limits_of(kind).items():
        value = getattr(settings, name)
        if is_dataclass(value):
            yield from _declared(value, f"{prefix}{name}.")
        yield from ((prefix + name, value, limit) for limit in limits)


@cache
def _limits_of(kind: Any) -> dict[str, tuple[Bound, ...]]:
    """The limits of each field that a dataclass is given, in the order of the fields."""
    hints: dict[str, Any] = {each.name: each.type for each in fields(kind)}
    if any(isinstance(hint, str) and "Annotated" in hint for hint in hints.values()):
        hints = get_type_hints(kind, include_extras=True)  # its module imports annotations from __future__
    return {each.name: tuple(_limits_in(hints[each.name])) for each in fields(kind) if each.init}


def _limits_in(hint: Any) -> Iterator[Bound]:
    """Wherever a type hint holds them: `Annotated[int | None, limit]` as well as `Annotated[int, limit] | None`."""
    for part in get_args(hint):
        if isinstance(part, Bound):
            yield part
        else:
            yield from _limits_in(part)
