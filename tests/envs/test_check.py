"""check_env finds each broken promise in an environment that keeps all the others."""

from typing import Any

import numpy as np
import pytest

from tests.envs.fakes import Counter
from worldloom.envs import check_env
from worldloom.errors import UserError


class Forgetful(Counter):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=None)


class NoInfo(Counter):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class OldStep(Counter):
    def step(self, action: int) -> Any:
        return super().step(action)[:4]


class NumberAsEnd(Counter):
    def step(self, action: int) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, int(terminated), truncated, info


class Unpayable(Counter):
    def step(self, action: int) -> Any:
        obs, _, *rest = super().step(action)
        return obs, float("nan"), *rest


class Growing(Counter):
    def look(self) -> dict[str, np.ndarray]:
        obs = super().look()
        return {**obs, "state": np.append(obs["state"], 0).astype(np.float32)}


class TooFar(Counter):
    def look(self) -> dict[str, np.ndarray]:
        obs = super().look()
        return {**obs, "state": obs["state"] + np.float32(1e6)}


class Hole(Counter):
    def look(self) -> dict[str, np.ndarray]:
        obs = super().look()
        return {**obs, "state": obs["state"] * np.float32(np.nan)}


def test_an_environment_that_keeps_every_promise_passes() -> None:
    check_env(Counter())


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (Forgetful, "differs between two runs of seed 0"),
        (NoInfo, "must return .observation, info dict."),
        (OldStep, "terminated, truncated, info"),
        (NumberAsEnd, "terminated is 0, a int"),
        (Unpayable, "the reward is nan"),
        (Growing, r"'state' is float32 \(3,\), but its space says float32 \(2,\)"),
        (TooFar, "outside Box"),
        (Hole, "holds nan"),
    ],
)
def test_a_broken_promise_is_named(broken: type[Counter], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_env(broken())
