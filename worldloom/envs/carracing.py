"""Gymnasium's CarRacing-v3: drive a random track seen from above."""

import gymnasium

from worldloom.envs.headless import without_screen
from worldloom.registry import require


def make(*, max_steps: int = 1000, continuous: bool = True, domain_randomize: bool = False) -> gymnasium.Env:
    """`carracing`. Observation: the 96 x 96 picture with its bar of dials. Action: steer in [-1, 1], gas and brake in
    [0, 1], or five choices when not `continuous`. Reward: -0.1 a step, 1000 / (number of tiles) per tile visited.
    Leaving the field or finishing the lap terminates, `max_steps` truncates.
    """
    without_screen()
    require("Box2D", "box2d")
    require("pygame", "box2d")
    env = gymnasium.make(
        "CarRacing-v3",
        max_episode_steps=max_steps,
        disable_env_checker=True,
        continuous=continuous,
        domain_randomize=domain_randomize,
    )
    names = ("steer", "gas", "brake") if continuous else ("stay", "right", "left", "gas", "brake")
    env.unwrapped.action_names = names  # type: ignore[attr-defined]
    return env
