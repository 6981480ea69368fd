"""Dyna in the book's mazes: what was imagined need not be walked."""

import numpy as np
import pytest

from worldloom.envs import make_env
from worldloom.envs.describe import describe
from worldloom.errors import UserError
from worldloom.learning.dyna_q import DynaConfig, DynaQ
from worldloom.models import build


def episodes(planning: int, seed: int, count: int) -> list[int]:
    env, lengths = make_env("maze"), []
    learner = DynaQ(build("tabular", describe(env)), DynaConfig(planning=planning), seed)  # type: ignore[arg-type]
    for _ in range(count):
        place, ended, taken = int(env.reset()[0]["state"].argmax()), False, 0
        while not ended and taken < 5000:
            action = learner.act(place)
            obs, reward, ended, _, _ = env.step(action)
            learner.learn(place, action, reward, int(obs["state"].argmax()), ended)
            place, taken = int(obs["state"].argmax()), taken + 1
        lengths.append(taken)
    return lengths


def test_fifty_imagined_steps_save_most_of_the_walking() -> None:
    thinking, acting = (np.mean([episodes(n, seed, 8)[3:] for seed in range(3)]) for n in (50, 0))
    assert thinking < 30  # the optimum is 14, the book's curve is there after about three episodes
    assert acting > 3 * thinking


def test_curiosity_imagines_what_was_never_tried() -> None:
    env = make_env("maze")
    model = build("tabular", describe(env))
    learner = DynaQ(model, DynaConfig(planning=200, bonus=0.1), seed=0)  # type: ignore[arg-type]
    learner.learn(18, 3, 0.0, 19, False)
    assert (learner.values[18, :3] > 0).all()  # what was tried this very moment is nothing to be curious about
    assert (np.delete(learner.values, 18, 0) == 0).all()


@pytest.mark.parametrize(("name", "value"), [("planning", -1), ("explore", 1.5), ("bonus", -0.1), ("discount", 2.0)])
def test_numbers_nobody_can_learn_with_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=name):
        DynaConfig(**{name: value})  # type: ignore[arg-type]
