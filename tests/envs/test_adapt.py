"""The adapter: any observation becomes a dict of pictures and vectors, any action a choice or a flat vector."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldloom.envs.adapt import AdaptedEnv, adapt
from worldloom.envs.describe import describe
from worldloom.errors import UserError


class Still(gymnasium.Env[Any, Any]):
    """Shows one fixed observation of any space and remembers the last action."""

    metadata: ClassVar[dict[str, Any]] = {"render_fps": 5}  # type: ignore[misc]

    def __init__(self, shown: Any, space: spaces.Space, action: spaces.Space | None = None):
        self.shown, self.observation_space, self.action_space = shown, space, action or spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.shown, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.last_action = action
        return self.shown, 0.0, False, False, {}


def adapted(shown: Any, space: spaces.Space, action: spaces.Space | None = None, size: int = 0) -> AdaptedEnv:
    return adapt(Still(shown, space, action), "still", size)


def picture_space(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize("shape", [(20, 30, 3), (3, 20, 30), (20, 30, 1), (1, 20, 30), (20, 30), (20, 30, 4)])
def test_every_layout_of_a_picture_becomes_rgb_with_channels_last(shape: tuple[int, ...]) -> None:
    shown = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if shape[-1] == 4:
        shown[..., 3] = 255
    obs, _ = adapted(shown, picture_space(*shape)).reset()
    planes = shown if shape[0] in (1, 3) else shown.reshape(20, 30, -1).transpose(2, 0, 1)
    assert obs["image"].shape == (20, 30, 3)
    assert np.array_equal(obs["image"][:, :, 1], planes[min(1, len(planes) - 1)])


def test_shrinking_a_picture_averages_and_keeps_colours() -> None:
    shown = np.zeros((40, 80, 3), np.uint8)
    shown[:20, :, 0], shown[20:, :, 2] = 200, 100
    obs, _ = adapted(shown, picture_space(40, 80, 3), size=20).reset()
    assert obs["image"].shape == (20, 20, 3)
    assert obs["image"][4, 4].tolist() == [200, 0, 0]
    assert obs["image"][15, 4].tolist() == [0, 0, 100]


def test_nested_observations_join_their_names_and_text_is_the_task() -> None:
    space = spaces.Dict(
        {
            "arm": spaces.Dict({"angle": spaces.Box(-1, 1, (2, 2), np.float64), "gear": spaces.Discrete(3, start=1)}),
            "mission": spaces.Text(20),
            "small": picture_space(7, 7, 3),
        }
    )
    shown = {"arm": {"angle": np.eye(2), "gear": 3}, "mission": "lift", "small": np.ones((7, 7, 3), np.uint8)}
    obs, info = adapted(shown, space).reset()
    assert info["task"] == "lift"
    assert obs["arm_angle"].tolist() == [1, 0, 0, 1]
    assert obs["arm_gear"].tolist() == [0, 0, 1]
    assert obs["small"].shape == (147,), "seven pixels are symbols, not a picture"
    assert all(value.dtype == np.float32 for value in obs.values())


def test_what_was_seen_does_not_change_when_the_environment_reuses_its_buffer() -> None:
    shown = {"image": np.zeros((20, 20, 3), np.uint8), "state": np.zeros(2, np.float32)}
    env = adapted(shown, spaces.Dict({"image": picture_space(20, 20, 3), "state": spaces.Box(-1, 1, (2,))}))
    obs, _ = env.reset()
    shown["image"] += 9
    shown["state"] += 1
    assert obs["image"].max() == 0
    assert obs["state"].max() == 0


def test_actions_reach_the_environment_in_its_own_form() -> None:
    box = adapted(np.zeros(1), spaces.Box(-1, 1, (1,)), spaces.Box(-2, 2, (2, 2), np.float64))
    box.step(np.array([0, 1, 2, -2], np.float32))
    assert box.env.last_action.tolist() == [[0, 1], [2, -2]]  # type: ignore[attr-defined]
    choice = adapted(np.zeros(1), spaces.Box(-1, 1, (1,)), spaces.Discrete(3, start=5))
    choice.step(0)
    assert choice.env.last_action == 5  # type: ignore[attr-defined]


def test_the_description_has_names_bounds_rate_and_channels_first() -> None:
    env = adapted(np.zeros((20, 30, 3), np.uint8), picture_space(20, 30, 3), spaces.Box(-2, 3, (2,)))
    spec = describe(env)
    assert spec.obs["image"].shape == (3, 20, 30)
    assert (spec.action.low, spec.action.high, spec.fps) == ((-2.0, -2.0), (3.0, 3.0), 5.0)
    assert spec.has_reward
    assert spec.has_end
    assert describe(adapted(np.zeros(1), spaces.Box(-1, 1, (1,)))).action.names == ("0", "1")
    open_range = adapted(np.zeros(1), spaces.Box(-1, 1, (1,)), spaces.Box(-np.inf, np.inf, (2,)))
    assert describe(open_range).action.low is None


def test_an_environment_that_never_terminates_says_so() -> None:
    env = Still(np.zeros(1), spaces.Box(-1, 1, (1,)))
    env.terminates = False  # type: ignore[attr-defined]
    assert not describe(adapt(env, "still")).has_end


@pytest.mark.parametrize(
    ("space", "action", "words"),
    [
        (spaces.Graph(spaces.Box(-1, 1, (1,)), None), None, "Graph space"),
        (spaces.Dict({"note": spaces.Text(3)}), None, "neither an image nor a vector"),
        (spaces.Box(-1, 1, (1,)), spaces.Text(4), "made of Discrete, MultiDiscrete, MultiBinary and Box"),
    ],
)
def test_a_space_that_has_no_vector_form_is_named_with_the_fix(
    space: spaces.Space, action: spaces.Space | None, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        adapted(np.zeros(1), space, action)


def test_a_missing_rate_and_a_missing_name_are_errors() -> None:
    env = Still(np.zeros(1), spaces.Box(-1, 1, (1,)))
    env.metadata = {}
    with pytest.raises(UserError, match="render_fps"):
        adapt(env, "still")
    env = Still(np.zeros(1), spaces.Box(-1, 1, (1,)))
    env.action_names = ("only one",)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="1 names, but the action has 2"):
        adapt(env, "still")


def test_a_slash_in_a_name_becomes_what_a_dataset_can_store_and_a_clash_is_told() -> None:
    number = spaces.Box(-1, 1, (1,))
    obs, _ = adapted({"arm/angle": np.zeros(1)}, spaces.Dict({"arm/angle": number})).reset()
    assert list(obs) == ["arm_angle"]
    with pytest.raises(UserError, match="two observations would both be called one of arm_angle"):
        adapted({}, spaces.Dict({"arm_angle": number, "arm": spaces.Dict({"angle": number})}))
