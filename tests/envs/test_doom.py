"""Doom is the plain take_cover game, with the one picture that ViZDoom does not show."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldloom.envs import make_env
from worldloom.envs.doom import BUTTONS, start_game
from worldloom.errors import UserError

vizdoom = pytest.importorskip("vizdoom", reason="doom needs the package vizdoom")
LEFT, STAY, RIGHT = 0, 1, 2


@pytest.fixture(scope="module")
def doom() -> Iterator[Any]:
    env = make_env("doom", image_size=0)
    yield env
    env.close()


def plain_pictures(folder: Path, seed: int) -> list[np.ndarray]:
    """The same game without spare health, until it is over; standing still."""
    game = start_game(str(folder))
    game.set_seed(seed)
    game.new_episode()
    pictures = []
    while not game.is_episode_finished():
        pictures.append(game.get_state().screen_buffer.copy())
        game.make_action(BUTTONS[STAY])
    game.close()
    return pictures


def test_pictures_and_the_tic_of_death_are_those_of_the_plain_game(doom: Any, tmp_path: Path) -> None:
    obs, _ = doom.reset(seed=5)
    seed = int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(5))).integers(2**31))
    plain = plain_pictures(tmp_path, seed)
    assert len(plain) > 50
    for tic, picture in enumerate(plain):
        assert np.array_equal(obs["image"], picture), f"the picture of tic {tic} differs"
        obs, reward, terminated, truncated, _ = doom.step(STAY)
        assert reward == 1
        assert (terminated, truncated) == (tic == len(plain) - 1, False)
    assert obs["image"].std() > 0
    assert not np.array_equal(obs["image"], plain[-1]), "the terminal picture is a new one"


def test_the_time_limit_truncates_and_does_not_terminate() -> None:
    env = make_env("doom", max_steps=3)
    env.reset(seed=0)
    assert [env.step(STAY)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    env.close()


def test_a_repeated_action_pays_its_tics_and_stops_at_death_or_the_time_limit() -> None:
    def tics(repeat: int, max_steps: int) -> list[float]:
        env = make_env("doom", max_steps=max_steps, action_repeat=repeat)
        env.reset(seed=5)
        rewards, over = [], False
        while not over:
            _, reward, terminated, truncated, _ = env.step(STAY)
            rewards, over = [*rewards, reward], terminated or truncated
        env.close()
        return rewards

    plain, held = tics(1, 2100), tics(4, 2100)
    assert sum(held) == len(plain), "death comes in the same tic"
    assert set(held[:-1]) == {4.0}
    assert tics(4, 6) == [4.0, 2.0]
    with pytest.raises(UserError, match="action_repeat is 0"):
        make_env("doom", action_repeat=0)


def test_left_and_right_move_opposite_ways(doom: Any) -> None:
    def wall_after(action: int) -> np.ndarray:
        doom.reset(seed=1)
        for _ in range(12):
            obs, *_ = doom.step(action)
        return obs["image"].astype(int)

    still, left, right = (wall_after(action) for action in (STAY, LEFT, RIGHT))
    assert min(abs(left - still).mean(), abs(right - still).mean(), abs(left - right).mean()) > 1
    assert doom.action_names == ("left", "stay", "right")


def test_the_engine_leaves_nothing_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = make_env("doom")
    env.reset()
    env.close()
    assert os.listdir(tmp_path) == []
