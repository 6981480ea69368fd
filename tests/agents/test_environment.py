from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.agents.fakes import make_coin, make_toy
from tests.toy import toy_spec
from worldloom.agents.environment import check_fits, to_env, to_obs
from worldloom.data.spec import ActionSpec, KeySpec
from worldloom.envs.adapt import AdaptedEnv, adapt
from worldloom.errors import UserError


def toy(**options: object) -> AdaptedEnv:
    return adapt(make_toy(**options), "toy", 16)  # type: ignore[arg-type]


def test_observations_become_one_batch_with_channels_first() -> None:
    rows: list[dict[str, np.ndarray]] = [
        {"state": np.array([i, 2], np.float32), "image": np.full((16, 16, 3), i, np.uint8)} for i in range(3)
    ]
    rows[1]["image"][2, 5, 1] = 77
    obs = to_obs(rows, toy_spec())
    assert {k: (v.dtype, tuple(v.shape)) for k, v in obs.items()} == {
        "image": (torch.uint8, (3, 3, 16, 16)),
        "state": (torch.float32, (3, 2)),
    }
    assert obs["image"][1, 1, 2, 5] == 77
    assert obs["state"][:, 0].tolist() == [0, 1, 2]


def test_a_task_is_one_hot_and_an_unknown_one_is_zeros_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    spec = toy_spec().with_obs({"task": KeySpec("category", (2,), names=("sit", "run"))})
    assert to_obs([{}, {}], spec, tasks=["run", ""])["task"].tolist() == [[0, 1], [0, 0]]
    assert to_obs([{}], spec, tasks=["fly"])["task"].tolist() == [[0, 0]]
    assert "the environment's task 'fly' is unknown to the model, which knows 'sit', 'run'" in capsys.readouterr().err


def test_actions_arrive_in_the_environments_units_and_inside_its_range() -> None:
    rows = to_env(torch.tensor([[1.0, -0.5], [1.0000001, -3.0]]), toy_spec())
    assert [row.tolist() for row in rows] == [[2.0, -1.0], [2.0, -2.0]]
    assert all(row.dtype == np.float32 and toy().action_space.contains(row) for row in rows)


def test_a_choice_is_a_whole_number() -> None:
    rows = to_env(torch.eye(4)[[2, 0]], toy_spec(discrete=True))
    assert rows == [2, 0]
    assert all(isinstance(row, int) for row in rows)


@pytest.mark.parametrize("discrete", [False, True])
def test_the_world_the_data_came_from_fits(discrete: bool) -> None:
    check_fits(toy(discrete=discrete), toy_spec(discrete=discrete))


def test_a_wider_range_of_actions_fits_too() -> None:
    check_fits(toy(reach=3.0), toy_spec())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"discrete": True}, "takes 4 discrete actions, but the model was trained with 2 continuous ones"),
        ({"reach": 1.0}, r"takes action 0 in \[-1, 1\], but the model was trained with \[-2, 2\]"),
        ({"pixels": False}, "observes 'image'.*pixels=true"),
    ],
)
def test_another_world_is_refused_with_what_differs(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_fits(toy(**options), toy_spec())


def test_other_shapes_of_observations_are_refused() -> None:
    with pytest.raises(UserError, match=r"'state' as vector \(1,\), but the model was trained on vector \(2,\)"):
        check_fits(make_coin(), toy_spec().with_obs({"state": toy_spec().obs["state"]}))
    with pytest.raises(UserError, match=r"'image' as image \(3, 16, 16\)"):
        check_fits(toy(), toy_spec(image_size=32))


def test_actions_without_a_range_are_passed_on_as_they_are() -> None:
    spec = replace(toy_spec(), action=ActionSpec("continuous", 2))
    assert to_env(torch.tensor([[5.0, -7.0]]), spec)[0].tolist() == [5.0, -7.0]
