"""Limits that are declared on a field are kept, whatever holds the field, and the message names what was wrong."""

import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

import pytest

from worldloom.errors import UserError
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.learning.dyna_q import DynaConfig
from worldloom.learning.mbpo import DynaSettings
from worldloom.learning.td3_bc import TD3BCConfig
from worldloom.limits import (
    FINITE,
    LARGEST_COUNT,
    Bound,
    above,
    at_least,
    between,
    check_limits,
    odd,
    strictly_between,
)
from worldloom.models import FAMILIES
from worldloom.planners import PLANNERS

RANDOM = random.Random(0)
VALUES: list[float] = [-math.inf, math.inf, math.nan, 0, 1, 2, 3, -1, *(RANDOM.uniform(-4, 4) for _ in range(200))]


@pytest.mark.parametrize(
    ("limit", "allows"),
    [
        (at_least(1.5), lambda x: x >= 1.5),
        (above(0), lambda x: x > 0),
        (between(-1, 2), lambda x: -1 <= x <= 2),
        (strictly_between(0, 1), lambda x: 0 < x < 1),
        (Bound(low=0, below=1), lambda x: 0 <= x < 1),
        (Bound(above=0, high=1), lambda x: 0 < x <= 1),
        (FINITE, lambda x: True),
    ],
)
def test_a_number_is_refused_exactly_where_it_is_beyond_its_limit_or_not_finite(
    limit: Bound, allows: Callable[[float], bool]
) -> None:
    for value in VALUES:
        assert (limit.problem(value) is None) == (math.isfinite(value) and allows(value)), value


def test_odd_numbers_are_odd_and_counts_end_where_they_would_overflow() -> None:
    assert [n for n in range(-3, 10) if odd(3).problem(n) is None] == [3, 5, 7, 9]
    assert at_least(0).problem(LARGEST_COUNT) is None
    assert at_least(0).problem(LARGEST_COUNT + 1) == "at most 4294967295"
    assert at_least(0).problem(1e30) is None  # only a whole number counts something


@dataclass(frozen=True)
class Inner:
    share: Annotated[float, between(0, 1)] = 0.5


@dataclass(frozen=True)
class Outer:
    free: int = -7
    count: Annotated[int, at_least(1)] = 1
    maybe: Annotated[int | None, at_least(1)] = None
    inside: Annotated[int, at_least(1)] | None = None
    sides: Annotated[tuple[int, ...] | None, at_least(1)] = None
    each: tuple[Annotated[float, above(0)], ...] = ()
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "--count is 0, but must be at least 1"),
        ({"maybe": 0}, "--maybe is 0, but must be at least 1"),
        ({"inside": 0}, "--inside is 0, but must be at least 1"),
        ({"sides": (3, 0)}, "--sides is 0, but must be at least 1"),
        ({"each": (1.0, 0.0)}, "--each is 0.0, but must be above 0"),
        ({"inner": Inner(2.0)}, "--inner.share is 2.0, but must be at most 1"),
        ({"count": 0, "maybe": 0}, "--count is 0"),
    ],
)
def test_the_first_wrong_field_is_named_wherever_its_limit_stands(wrong: dict[str, Any], message: str) -> None:
    check_limits(Outer())
    check_limits(Outer(maybe=2, inside=2, sides=(1, 2), each=(0.1,)))
    with pytest.raises(UserError) as caught:
        check_limits(Outer(**wrong))
    assert str(caught.value).startswith(message)
    with pytest.raises(UserError, match="of the outer is"):
        check_limits(Outer(**wrong), "{} of the outer".format)


@dataclass(frozen=True)
class Written:
    """As a module writes it that imports annotations from __future__."""

    count: "Annotated[int, at_least(1)]" = 1


@dataclass(frozen=True)
class Foreign:
    """A class whose hints cannot be resolved here, as behind `if TYPE_CHECKING`: it declares no limit."""

    what: "Unknown | None" = None  # type: ignore[name-defined]  # noqa: F821
    inner: Written = field(default_factory=Written)


def test_hints_may_be_strings_and_those_without_a_limit_need_not_be_known() -> None:
    with pytest.raises(UserError, match=r"--inner\.count is 0"):
        check_limits(Foreign(inner=Written(0)))


CONFIGS = [
    *(replace(FAMILIES[name].sizes["debug"]) for name in FAMILIES),
    *(PLANNERS[name]() for name in PLANNERS if name != "adversarial"),
    ActorCriticConfig(),
    TD3BCConfig(),
    DynaConfig(),
    DynaSettings(),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_no_number_of_a_config_may_be_negative_or_unknown(config: Any) -> None:
    """A new hyperparameter without a limit fails here; `low` and `high` are the bounds of an action."""
    for each in fields(config):
        value = getattr(config, each.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or each.name in ("low", "high"):
            continue
        for wrong in (-1, math.nan):
            with pytest.raises(UserError, match=rf"\b{each.name}\b.*is {wrong}, but must be "):
                replace(config, **{each.name: wrong})


def test_declaring_limits_costs_no_start_up() -> None:
    told = "import worldloom.limits, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]
