"""Policies: random actions that are held, and one's own by name."""

from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from worldloom.envs.policy import RandomPolicy, checked, load_policy
from worldloom.errors import UserError

CHOICE, BOX = spaces.Discrete(3), spaces.Box(np.array([-1, 0], np.float32), np.array([1, np.inf], np.float32))


def test_random_actions_are_held_for_one_to_hold_steps_and_cover_the_space() -> None:
    policy, rng = RandomPolicy(spaces.Discrete(1000), hold=4), np.random.default_rng(0)
    actions = [policy({}, rng) for _ in range(2000)]
    changes = np.flatnonzero(np.diff(actions)) + 1
    held = np.diff(changes)
    assert set(held.tolist()) == {1, 2, 3, 4}
    assert min(actions) < 100
    assert max(actions) > 900


def test_random_actions_lie_in_the_box_and_an_open_side_is_normal() -> None:
    policy, rng = RandomPolicy(BOX, hold=1), np.random.default_rng(0)
    actions = np.stack([policy({}, rng) for _ in range(500)])
    assert all(BOX.contains(action) for action in actions)
    assert actions[:, 0].min() < -0.9
    assert actions[:, 0].max() > 0.9
    assert 1 < actions[:, 1].max() < 6


def test_the_same_generator_gives_the_same_actions() -> None:
    runs = [[RandomPolicy(CHOICE)({}, np.random.default_rng(seed)) for _ in range(5)] for seed in (1, 1)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("action", "space"),
    [(3, CHOICE), (-1, CHOICE), (0.5, CHOICE), ("left", CHOICE), ([2, 0], BOX), ([0, np.nan], BOX), ([0], BOX)],
)
def test_an_action_outside_the_space_is_an_error_with_its_value(action: object, space: spaces.Box) -> None:
    with pytest.raises(UserError, match="mine:play") as caught:
        checked(action, space, "mine:play")
    assert repr(action) in str(caught.value)


def test_actions_inside_the_space_are_taken_in_any_number_type() -> None:
    assert checked(np.float32(2), CHOICE, "p") == 2
    assert checked([0.5, 7], BOX, "p").dtype == np.float32


def test_a_policy_is_found_by_name_and_a_class_is_made_with_the_action_space() -> None:
    assert load_policy("tests.envs.fakes:always_two", CHOICE)({}, np.random.default_rng()) == 2
    assert load_policy("tests.envs.fakes:Alternating", CHOICE).size == 3  # type: ignore[attr-defined]


def test_a_wrong_policy_says_what_is_possible(tmp_path: Path) -> None:
    for name, words in (("randm", "Did you mean 'random'"), ("nowhere.at.all:x", "nowhere.at.all")):
        with pytest.raises(UserError, match=words):
            load_policy(name, CHOICE)
    with pytest.raises(UserError, match=r"without agent\.json"):
        load_policy(str(tmp_path), CHOICE)
    (tmp_path / "agent.json").write_text('{"kind": "wizard"}')
    with pytest.raises(UserError, match="unknown kind of saved agent 'wizard'"):
        load_policy(str(tmp_path), CHOICE)
    (tmp_path / "agent.json").write_text('{"kind": ')
    with pytest.raises(UserError, match="not a saved agent's description"):
        load_policy(str(tmp_path), CHOICE)
