"""Environments by name: each keeps the convention, and a wrong name, option or missing package says what to type."""

from typing import Any

import numpy as np
import pytest

from worldloom.envs import ENVIRONMENTS, check_env, make_env
from worldloom.envs.carracing import gas_or_brake
from worldloom.errors import MissingExtra, UserError

SHIPPED: list[tuple[str, str, dict[str, Any]]] = [
    ("vizdoom", "doom", {}),
    ("Box2D", "carracing", {}),
    ("Box2D", "carracing", {"pedal": True}),
    ("gym_pusht", "pusht", {}),
    ("dm_control", "dmc:cartpole-swingup", {}),
    ("dm_control", "dmc:reacher-easy", {"pixels": True, "action_repeat": 2}),
    ("ale_py", "atari:ms_pacman", {}),
    ("minigrid", "minigrid:DoorKey-5x5-v0", {}),
    ("minigrid", "minigrid:MiniGrid-FourRooms-v0", {"view": "world"}),
    ("gymnasium", "gym:CartPole-v1", {}),
    ("gymnasium", "point", {}),
    ("gymnasium", "maze", {}),
    ("gymnasium", "point", {"pixels": True}),
    ("pygame", "gym:CartPole-v1", {"pixels": True}),
    ("pygame", "gym:CartPole-v1", {"pixels": True, "state": False}),
]


def make_or_skip(package: str, name: str, **options: Any) -> Any:
    pytest.importorskip(package, reason=f"{name} needs the package {package}")
    try:
        return make_env(name, **options)
    except UserError as error:
        if "neither EGL nor OSMesa" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize(("package", "name", "options"), SHIPPED)
def test_every_shipped_environment_passes_the_conformance_suite(
    package: str, name: str, options: dict[str, Any]
) -> None:
    env = make_or_skip(package, name, **options)
    check_env(env, steps=30)
    assert env.fps > 0
    env.close()


def test_every_registered_environment_is_tested() -> None:
    assert {name.partition(":")[0] for _, name, _ in SHIPPED} == set(ENVIRONMENTS)


def test_pictures_have_the_size_that_was_asked_for() -> None:
    for size, shape in ((32, (32, 32, 3)), (0, (210, 160, 3))):
        env = make_or_skip("ale_py", "atari:pong", image_size=size)
        obs, _ = env.reset()
        assert obs["image"].shape == shape


@pytest.mark.parametrize(("skip", "fps"), [(4, 15.0), (1, 60.0)])
def test_atari_states_the_rate_of_its_frame_skip(skip: int, fps: float) -> None:
    assert make_or_skip("ale_py", "atari:pong", frame_skip=skip).fps == fps


def test_dm_control_truncates_and_never_terminates_and_repeats_actions() -> None:
    env = make_or_skip("dm_control", "dmc:cartpole-balance", action_repeat=100)
    env.reset(seed=0)
    answers = [env.step(np.zeros(1, np.float32)) for _ in range(10)]
    assert [truncated for *_, truncated, _ in answers] == [False] * 9 + [True]
    assert not any(terminated for _, _, terminated, _, _ in answers)
    assert max(reward for _, reward, *_ in answers) > 1, "the rewards of repeated steps add up"
    assert env.fps == 1.0


def test_the_mission_of_a_grid_world_is_its_task_and_not_a_key() -> None:
    env = make_or_skip("minigrid", "minigrid:DoorKey-5x5-v0")
    obs, info = env.reset()
    assert "key" in info["task"]
    assert set(obs) == {"image", "direction"}
    assert env.action_names[:3] == ("left", "right", "forward")


def test_the_first_reset_uses_the_seed_of_make_env() -> None:
    first = [make_env("tests.envs.fakes:make_counter", seed=seed).reset()[0]["state"][1] for seed in (3, 3, 4)]
    assert first[0] == first[1] != first[2]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dom", {}, "Did you mean 'doom'"),
        ("carracin:x", {}, "Did you mean 'carracing'"),
        ("doom:x", {}, "takes nothing after a colon"),
        ("carracing", {"pedal": True, "continuous": False}, "continuous=false has choices"),
        ("dmc", {}, "write dmc:TASK"),
        ("doom", {"max_step": 3}, "Did you mean 'max_steps'"),
        ("gym:CartPol-v1", {}, "Did you mean 'CartPole-v1'"),
        ("gym:CartPole-v1", {"wind": 3}, "cannot be made with"),
        ("dmc:cheeta-run", {}, "Did you mean 'cheetah-run'"),
        ("atari:pang", {}, "Did you mean 'pong'"),
        ("minigrid:DoorKy-5x5-v0", {}, "Did you mean 'MiniGrid-DoorKey-5x5-v0'"),
        ("minigrid:Empty-5x5-v0", {"view": "agnt"}, "Did you mean 'agent'"),
        ("tests.envs.fakes:make_conter", {}, "Did you mean 'make_counter'"),
        ("tests.envs.fakes:make_counter", {"gaol": 3}, "Did you mean 'goal'"),
        ("tests.envs.fakes:always_two", {"obs": 1, "rng": 2}, "returned a int, not a gymnasium.Env"),
    ],
)
def test_a_wrong_name_or_option_offers_the_right_one(name: str, options: dict[str, Any], words: str) -> None:
    package = {"dmc": "dm_control", "atari": "ale_py", "minigrid": "minigrid"}.get(name.partition(":")[0])
    if package:
        pytest.importorskip(package)
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        make_env(name, **options)
    assert words in str(caught.value)


def test_a_missing_package_answers_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vizdoom", None)
    with pytest.raises(MissingExtra, match=r"pip install 'worldloom\[doom\]' -c constraints\.txt"):
        make_env("doom")


@pytest.mark.parametrize(("pedal", "gas_and_brake"), [(1.0, (1, 0)), (0.3, (0.3, 0)), (0.0, (0, 0)), (-0.2, (0, 0.2))])
def test_one_pedal_never_gives_gas_and_brakes_at_once(pedal: float, gas_and_brake: tuple[float, float]) -> None:
    taken = gas_or_brake(np.array([-0.5, pedal], np.float32))
    assert taken.tolist() == pytest.approx([-0.5, *gas_and_brake])
