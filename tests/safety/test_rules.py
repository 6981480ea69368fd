"""Rules are signed margins in the units of the data, and one that cannot be read is refused."""

import math
from math import inf, nan

import pytest
import torch

from tests.safety.worlds import SPEC
from worldloom.errors import UserError
from worldloom.safety.rules import (
    ActionLimit,
    Box,
    Circle,
    Forbidden,
    Limit,
    Never,
    Predicate,
    Rule,
    check_rules,
    own_units,
    shortfalls,
)

PLACES = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.5, -0.5]])
ACTIONS = torch.zeros(4, 1)


def margin(rule: Rule) -> list[float]:
    return rule.margin({"state": PLACES}, ACTIONS).tolist()


def test_a_limit_is_the_distance_to_the_nearer_end() -> None:
    assert margin(Limit("state", 0, low=-1, high=1.5)) == [1.0, -0.5, 1.0, 1.0]
    assert margin(Limit("state", 1, low=0)) == [0.0, 0.0, 3.0, -0.5]


def test_a_circle_is_left_by_its_edge() -> None:
    rule = Forbidden("state", (0, 1), Circle((0.0, 0.0), 1.0), clearance=0.5)
    assert margin(rule) == pytest.approx([-1.5, 0.5, 1.5, 0.5**0.5 - 1.5])


def test_a_box_is_left_by_the_nearest_face_and_corners_are_round() -> None:
    rule = Forbidden("state", (0, 1), Box((-1.0, -1.0), (1.0, 1.0)))
    assert margin(rule) == pytest.approx([-1.0, 1.0, 2.0, -0.5])
    corner = rule.margin({"state": torch.tensor([[4.0, 5.0]])}, torch.zeros(1, 1))
    assert corner.item() == pytest.approx(5.0)


def test_an_action_is_judged_in_the_units_of_the_data() -> None:
    rule = ActionLimit(0, high=3.0)
    assert rule.margin({}, own_units(torch.tensor([[0.5], [1.0]]), SPEC.action)).tolist() == [1.0, -1.0]


def test_a_signal_that_must_never_be_has_the_margin_of_its_log_odds() -> None:
    found = Never("cost").margin({"cost": torch.tensor([0.5, 0.1, 0.9, 0.0, 1.0])}, torch.zeros(5, 1))
    assert found[:3].tolist() == pytest.approx([0.0, math.log(9), -math.log(9)], abs=1e-5)
    assert bool(found.isfinite().all()), "certainty is a number too"
    assert found[3] > 10
    assert found[4] < -10


def test_a_signal_is_missed_only_where_it_is_and_was_thought_improbable() -> None:
    rules = (Never("cost"), Limit("state", 0, high=1.0))
    predicted = torch.tensor([[3.0, 0.5], [3.0, 0.5], [-2.0, 0.5], [nan, 0.5]])
    true = torch.tensor([[-9.0, 0.2], [9.0, 0.7], [-9.0, 0.5], [9.0, 0.5]])
    found = shortfalls(rules, predicted, true)
    torch.testing.assert_close(found[:, 0], torch.tensor([3.0, 0.0, 0.0, nan]), equal_nan=True)
    torch.testing.assert_close(found[:, 1], predicted[:, 1] - true[:, 1])


def test_a_predicate_may_answer_with_yes_or_no() -> None:
    assert margin(Predicate("right", lambda values, _: values["state"][..., 0] > 0.1, ("state",))) == [-1, 1, -1, 1]
    assert margin(Predicate("far", lambda values, _: values["state"].norm(dim=-1) - 1, ("state",)))[2] == 2.0


def test_a_predicate_that_returns_no_margin_a_row_is_named() -> None:
    with pytest.raises(UserError, match="'far' returned"):
        margin(Predicate("far", lambda values, _: values["state"], ("state",)))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Limit("stat", 0, high=1), "Did you mean 'state'"),
        (Limit("state", 2, high=1), "has 2 entries, 0 to 1, so no entry 2"),
        (Limit("state", -1, high=1), "so no entry -1"),
        (Forbidden("state", (0, 5), Circle((0.0, 0.0), 1.0)), "no entry 5"),
        (ActionLimit(1, high=1), "the action has 1 entries"),
        (Never("state"), "'state' is of kind vector, but the rule needs a flag"),
        (Predicate("mine", lambda values, _: values["speed"], ("speed",)), "unknown key 'speed'"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(rule: Rule, words: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        check_rules([rule], SPEC, ("state",))
    assert words in str(caught.value)


def test_no_rules_or_two_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="no rules"):
        check_rules([], SPEC, ("state",))
    with pytest.raises(UserError, match="two rules are called"):
        check_rules([Limit("state", 0, high=1), Limit("state", 0, high=1)], SPEC, ("state",))


@pytest.mark.parametrize("ends", [(1.0, 0.0), (float("nan"), 1.0), (float("-inf"), float("inf"))])
def test_impossible_bounds_are_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="low must lie below high"):
        Limit("state", 0, *ends)


@pytest.mark.parametrize(
    "region", [Circle((nan, 0.0), 1.0), Circle((0.0, 0.0), inf), Box((0.0, 0.0), (1.0, inf)), Box((0.0,), (1.0, 1.0))]
)
def test_a_region_that_is_nowhere_is_refused(region: Circle | Box) -> None:
    with pytest.raises(UserError, match=r"finite|lies|lie below|region of"):
        Forbidden("state", (0, 1), region)


def test_a_region_of_other_dimensions_is_refused() -> None:
    with pytest.raises(UserError, match="2 entries, but a region of 3"):
        Forbidden("state", (0, 1), Circle((0.0, 0.0, 0.0), 1.0))
