"""gym-pusht: push a T-shaped block onto its outline with a round finger (Chi et al. 2023, Diffusion Policy)."""

from typing import Any

import gymnasium
from gymnasium import spaces

from worldloom.envs.headless import without_screen
from worldloom.registry import require


def make(*, image_size: int = 64, max_steps: int = 300) -> gymnasium.Env:
    """`pusht`. Observation: the scene from above and the finger's place in [0, 512]. Action: where the finger shall go,
    in [0, 512]. Reward: the share of the outline that is covered. Success terminates, `max_steps` truncates.
    """
    without_screen()
    require("gym_pusht", "pusht")
    side = image_size or 96
    env = gymnasium.make(
        "gym_pusht/PushT-v0",
        obs_type="pixels_agent_pos",
        observation_width=side,
        observation_height=side,
        max_episode_steps=max_steps,
        disable_env_checker=True,
    )
    env.unwrapped.action_names = ("x", "y")  # type: ignore[attr-defined]
    return UsualNames(env)


class UsualNames(gymnasium.ObservationWrapper):
    """The two keys under the names that every other environment uses."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        inner = env.observation_space
        self.observation_space = spaces.Dict({"image": inner["pixels"], "state": inner["agent_pos"]})  # type: ignore[index]

    def observation(self, observation: Any) -> dict[str, Any]:
        return {"image": observation["pixels"], "state": observation["agent_pos"]}
