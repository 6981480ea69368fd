"""Tiny environments and policies, named as `tests.envs.fakes:...`. Workers import this file, so no torch here."""

import multiprocessing
import os
import signal
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces


class Counter(gymnasium.Env[Any, Any]):
    """Counts up by what it is told (0, 1 or 2) until it has counted `goal` or more; pays what it counted.

    Image: everywhere as bright as the count. State: the count and the number that the seed drew.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_fps": 10}  # type: ignore[misc]
    action_names = ("rest", "one", "two")

    def __init__(self, goal: int = 12):
        self.goal = goal
        self.action_space = spaces.Discrete(3)
        image, state = spaces.Box(0, 255, (20, 20, 3), np.uint8), spaces.Box(-1e4, 1e4, (2,), np.float32)
        self.observation_space = spaces.Dict({"image": image, "state": state})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.count, self.drawn = 0, int(self.np_random.integers(10_000))
        return self.look(), {"task": "count"}

    def look(self) -> dict[str, np.ndarray]:
        state = np.array([self.count, self.drawn], np.float32)
        return {"image": np.full((20, 20, 3), self.count, np.uint8), "state": state}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.count += action
        done = self.count >= self.goal
        return self.look(), float(action), done, False, {"success": done, "cost": float(action == 2)}


def make_counter(goal: int = 12) -> gymnasium.Env:
    return Counter(goal)


class Uneven(Counter):
    """Slower the smaller the drawn number, so that episodes finish in another order than they began in."""

    def step(self, action: int) -> Any:
        time.sleep(0.03 * (1 - self.drawn / 10_000))
        return super().step(action)


class Slow(Counter):
    """Takes its time, so that there is something to interrupt."""

    def step(self, action: int) -> Any:
        time.sleep(0.01)
        return super().step(action)


class Fragile(Counter):
    """Goes wrong in the way `fault` names once the count reaches 5, in episodes whose seed drew an odd number."""

    def __init__(self, fault: str = "raise"):
        super().__init__()
        self.fault = fault

    def step(self, action: int) -> Any:
        obs, reward, *rest = super().step(action)
        if self.count < 5 or self.drawn % 2 == 0:
            return obs, reward, *rest
        if self.fault == "raise":
            raise RuntimeError("the wheel fell off")
        if self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "nan":
            obs["state"][1] = np.nan
        if self.fault == "reward":
            reward = float("inf")
        if self.fault == "shape":
            obs["state"] = obs["state"][:1]
        return obs, reward, *rest


def always_two(obs: dict[str, np.ndarray], rng: np.random.Generator) -> int:
    return 2


def outside(obs: dict[str, np.ndarray], rng: np.random.Generator) -> int:
    return 7


class Alternating:
    """A policy with a memory: rest, one, rest, one, from the start of every episode."""

    def __init__(self, action_space: spaces.Discrete):
        self.size = int(action_space.n)

    def reset(self) -> None:
        self.steps = 0

    def __call__(self, obs: dict[str, np.ndarray], rng: np.random.Generator) -> int:
        self.steps += 1
        return (self.steps + 1) % 2


class Parent(gymnasium.Env[Any, Any]):
    """A simulator with a process of its own, whose number it shows, and which never ends by itself."""

    metadata: ClassVar[dict[str, Any]] = {"render_fps": 10}  # type: ignore[misc]
    observation_space = spaces.Box(0, 1e7, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
        self.child.start()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.array([self.child.pid], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.array([self.child.pid], np.float32), 0.0, True, False, {}


def make_parent() -> gymnasium.Env:
    return Parent()
