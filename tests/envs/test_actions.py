"""Actions of any space: what is sent lies in the environment's own space, and what is recorded is what was done."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from tests.envs.gym_spaces import LEAVES, described, nested
from worldloom.data.formats.spaces import action_spec, leaves
from worldloom.envs.actions import ActionAdapter
from worldloom.envs.describe import describe_action
from worldloom.envs.policy import sample
from worldloom.errors import UserError


def same(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return isinstance(other, tuple) and all(map(same, one, other))
    return bool(np.array_equal(one, other))  # type: ignore[arg-type]


@given(nested(LEAVES), st.integers(0, 2**31), st.sampled_from([1.0, 1.5, 1e12]))
def test_whatever_is_chosen_is_sent_inside_the_space(space: spaces.Space, seed: int, beyond: float) -> None:
    acts = ActionAdapter.of(space, "world")
    action = sample(acts.space, np.random.default_rng(seed))
    if isinstance(acts.space, spaces.Box):
        action = action * np.float32(beyond)
    assert space.contains(acts.send(action))


@given(nested(LEAVES))
def test_the_ends_of_the_range_are_sent_inside_the_space(space: spaces.Space) -> None:
    acts = ActionAdapter.of(space, "world")
    if isinstance(acts.space, spaces.Box):
        for end in (acts.space.low, acts.space.high):
            assert space.contains(acts.send(np.nan_to_num(end, posinf=3.0, neginf=-3.0)))


@given(nested(LEAVES), st.integers(0, 2**31))
def test_what_is_recorded_does_again_what_was_done(space: spaces.Space, seed: int) -> None:
    acts = ActionAdapter.of(space, "world")
    action = sample(acts.space, np.random.default_rng(seed))
    taken = acts.taken(action)
    assert acts.space.contains(taken)
    assert same(acts.taken(taken), taken)
    sent, again = acts.send(action), acts.send(taken)
    assert same(sent, again) or np.allclose(np.concatenate([np.ravel(sent)]), np.ravel(again), rtol=1e-6)


@given(nested(LEAVES))
def test_an_action_is_described_alike_where_it_is_played_and_where_it_is_imported(space: spaces.Space) -> None:
    acts = ActionAdapter.of(space, "world")
    played = describe_action(acts.space, acts.names, acts.groups)
    imported = action_spec(leaves(described(space), "actions"), "data")
    assert (played.kind, played.size, played.slices) == (imported.kind, imported.size, imported.slices)
    assert played.names == imported.names
    for ours, theirs in ((played.low, imported.low), (played.high, imported.high)):
        assert (ours is None) == (theirs is None)
        assert ours is None or np.allclose(ours, theirs, rtol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "space", [spaces.Box(-1, 1, (2,)), spaces.Tuple([spaces.Box(-1, 1, (1,)), spaces.Discrete(2)])]
)
def test_an_action_that_is_not_finite_is_not_sent(space: spaces.Space, value: float) -> None:
    acts = ActionAdapter.of(space, "world")
    vector = np.zeros(acts.space.shape, np.float32)  # type: ignore[arg-type]
    vector[0] = value
    with pytest.raises(UserError, match="must be finite: it was not sent"):
        acts.send(vector)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Box(-1, 1, (0,)), "holds no number to choose"),
        (spaces.Dict({}), "holds nothing to choose"),
        (spaces.Text(5), "Text space; wrap the environment"),
        (spaces.Dict({"say": spaces.Text(5), "go": spaces.Discrete(2)}), "action say is a Text space"),
    ],
)
def test_what_has_no_vector_form_is_named(space: spaces.Space, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ActionAdapter.of(space, "world")
