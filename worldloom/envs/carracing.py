"""Gymnasium's CarRacing-v3: drive a random track seen from above."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from worldloom.envs.headless import without_screen
from worldloom.errors import UserError
from worldloom.registry import require

BRAKE = 0.2  # enough to stop, and not so much that who presses at random never drives


def make(
    *, max_steps: int = 1000, continuous: bool = True, domain_randomize: bool = False, pedal: bool = False
) -> gymnasium.Env:
    """`carracing`. Observation: the 96 x 96 picture with its bar of dials. Action: steer in [-1, 1], gas and brake in
    [0, 1], or five choices when not `continuous`. Reward: -0.1 a step, 1000 / (number of tiles) per tile visited.
    Leaving the field or finishing the lap terminates, `max_steps` truncates.

    With `pedal` there are two actions, steer and a pedal in [-0.2, 1] that gives gas above zero and brakes below.
    """
    without_screen()
    require("Box2D", "box2d")
    require("pygame", "box2d")
    if pedal and not continuous:
        raise UserError("carracing: pedal=true is half of a continuous action, and continuous=false has choices")
    env = gymnasium.make(
        "CarRacing-v3",
        max_episode_steps=max_steps,
        disable_env_checker=True,
        continuous=continuous,
        domain_randomize=domain_randomize,
    )
    names: tuple[str, ...] = ("steer", "gas", "brake") if continuous else ("stay", "right", "left", "gas", "brake")
    if pedal:
        space = Box(np.array([-1, -BRAKE], np.float32), np.ones(2, np.float32))
        env, names = gymnasium.wrappers.TransformAction(env, gas_or_brake, space), ("steer", "pedal")
    env.unwrapped.action_names = names  # type: ignore[attr-defined]
    return env


def gas_or_brake(action: np.ndarray) -> np.ndarray:
    """What CarRacing-v3 takes, `[3]`, of steer and pedal `[2]`."""
    steer, pedal = action
    return np.array([steer, max(pedal, 0), max(-pedal, 0)], np.float32)
