"""Observations of any space: the same keys and shapes recorded and imported, and nothing unlike its space taken."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.envs.gym_spaces import LEAVES, described, nested
from tests.envs.test_adapt import adapted, picture_space
from worldloom.data.formats.spaces import leaf_spec, leaves
from worldloom.envs.adapt import find_leaves
from worldloom.envs.describe import describe_key
from worldloom.errors import UserError

PICTURES = st.one_of(
    st.tuples(st.integers(8, 20), st.integers(8, 20), st.sampled_from([1, 3])),
    st.tuples(st.sampled_from([1, 3]), st.integers(8, 20), st.integers(8, 20)),
    st.tuples(st.integers(8, 20), st.integers(8, 20)),
).map(lambda shape: picture_space(*shape))


def keys(space: spaces.Space) -> dict[str, Any] | str:
    try:
        found = find_leaves(space, "world", 0)
    except UserError as error:
        return "twice" if "would both be called" in str(error) else str(error)
    return {key: (spec.kind, spec.shape) for key, leaf in found.items() if (spec := describe_key(leaf.space))}


@given(nested(st.one_of(LEAVES, PICTURES)))
def test_a_world_has_the_same_keys_recorded_and_imported(space: spaces.Space) -> None:
    recorded = keys(space)
    found = [(leaf.key, leaf_spec(leaf.space)) for leaf in leaves(described(space), "observations")]
    imported = {key: (spec.kind, spec.shape) for key, spec in found if spec is not None}
    assert recorded in ("twice", imported)


@settings(max_examples=50)
@given(nested(st.one_of(LEAVES, PICTURES)), st.integers(0, 2**31))
def test_every_observation_of_a_space_can_be_read(space: spaces.Space, seed: int) -> None:
    if isinstance(keys(space), str):
        return
    space.seed(seed)
    shown = space.sample()
    env = adapted(shown, space)
    obs, _ = env.reset()
    for key, value in obs.items():
        of = env.observation_space.spaces[key]
        assert (value.shape, value.dtype) == (of.shape, of.dtype)


@pytest.mark.parametrize("shape", [(4, 84, 84), (2, 20, 30), (12, 20, 30), (20, 30, 2), (20, 30, 12), (4, 20, 30, 3)])
def test_stacked_pictures_are_refused_with_a_hint(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"a stack of pictures.*leave frame stacking out"):
        adapted(np.zeros(shape, np.uint8), picture_space(*shape))


def test_a_fourth_channel_that_is_no_alpha_is_refused() -> None:
    shown = np.full((20, 30, 4), 255, np.uint8)
    assert adapted(shown, picture_space(20, 30, 4)).reset()[0]["image"].shape == (20, 30, 3)
    shown[3, 4, 3] = 7
    with pytest.raises(UserError, match="fourth channel that is not opaque"):
        adapted(shown, picture_space(20, 30, 4)).reset()


@pytest.mark.parametrize(
    ("shown", "space", "words"),
    [
        (np.zeros(3), spaces.Box(-1, 1, (2,)), r"is float64 \(3,\), but its space says float32 \(2,\)"),
        (np.zeros((20, 20, 3)) + 0.5, picture_space(20, 20, 3), "from 0.5 to 0.5, but its space says uint8"),
        (np.zeros((30, 20, 3), np.uint8), picture_space(20, 30, 3), r"\(30, 20, 3\), but its space says"),
        (np.array(["a", "b"]), spaces.Box(-1, 1, (2,)), "but its space says"),
        (7, spaces.Discrete(3, start=5), None),
        (4, spaces.Discrete(3, start=5), "is 4, which is no choice"),
        (-1, spaces.Discrete(3), "is -1, which is no choice"),
        (np.array([0, 5]), spaces.MultiDiscrete([2, 5]), "which is no choice"),
        (np.array([0]), spaces.MultiDiscrete([2, 5]), "which is no choice"),
    ],
)
def test_an_observation_unlike_its_space_is_refused(shown: Any, space: spaces.Space, words: str | None) -> None:
    env = adapted(shown, space)
    if words is None:
        env.reset()
        return
    with pytest.raises(UserError, match=words):
        env.reset()


def test_a_part_without_numbers_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    space = spaces.Dict({"state": spaces.Box(-1, 1, (2,)), "spare": spaces.Box(-1, 1, (0, 3))})
    env = adapted({"state": np.zeros(2, np.float32), "spare": np.zeros((0, 3), np.float32)}, space)
    assert list(env.reset()[0]) == ["state"]
    assert "the observation 'spare' has the shape (0, 3)" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds no number"):
        adapted(np.zeros(0, np.float32), spaces.Box(-1, 1, (0,)))


def test_many_choices_take_the_memory_of_their_rows() -> None:
    env = adapted(29_999, spaces.Discrete(30_000))
    assert env.reset()[0]["state"].nonzero()[0].tolist() == [29_999]
