"""Numbers of a planner with which a search would silently be another one."""

import math
from typing import Any

import pytest

from worldloom.errors import UserError
from worldloom.planners import PLANNERS
from worldloom.planners.clock import Clock


@pytest.mark.parametrize(
    ("planner", "wrong"),
    [
        ("cem", {"min_std": 2.0, "max_std": 1.0}),
        ("cem", {"max_std": math.nan}),
        ("cem", {"momentum": 2.0}),
        ("icem", {"decay": 0.0}),
        ("icem", {"keep": math.nan}),
        ("icem", {"colour": -1.0}),
        ("mppi", {"temperature": -1.0}),
        ("mppi", {"policy_samples": -5}),
        ("gradient", {"learning_rate": math.nan}),
        ("categorical", {"momentum": math.nan}),
    ],
)
def test_a_number_that_no_search_can_have_is_named(planner: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"{list(wrong)[-1]} (of \w+ )?is "):
        PLANNERS[planner](**wrong)


def test_an_endless_deadline_is_refused() -> None:
    with pytest.raises(UserError, match="the deadline is inf"):
        Clock(math.inf)
