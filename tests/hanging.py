"""An environment that takes its time: `tests.hanging:make`, whose steps, or resets, never come back."""

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Hanging(gymnasium.Env[Any, Any]):
    """Two numbers that never change. The first reset is quick, for those who look at the environment beforehand."""

    metadata: dict[str, Any] = {"render_fps": 10}  # noqa: RUF012, as gymnasium declares it
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, where: str):
        self.where = where

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        if self.where == "reset":
            time.sleep(600)
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.where == "step":
            time.sleep(600)
        return np.zeros(2, np.float32), 0.0, False, False, {}


def make(where: str = "step") -> gymnasium.Env:
    return Hanging(where)
