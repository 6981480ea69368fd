"""The DeepMind Control Suite: continuous control in MuJoCo, from vectors or from pixels.

D size of the flattened observation, A action size.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from worldloom.envs.headless import draw_fast, require_rendering, without_screen
from worldloom.errors import UserError, unknown
from worldloom.registry import require

BEST_CAMERA = {"quadruped": 2}


def make(
    task: str,
    /,
    *,
    image_size: int = 64,
    pixels: bool = False,
    state: bool = True,
    action_repeat: int = 1,
    camera: int | None = None,
) -> gymnasium.Env:
    """`dmc:<domain>-<task>`, for instance `dmc:cheetah-run`. Keys: "state" `[D]`, and "image" when `pixels`."""
    without_screen()
    suite = require("dm_control.suite", "dmc")
    names = {f"{domain}-{name}": (domain, name) for domain, name in suite.ALL_TASKS}
    if task not in names:
        raise unknown("dm_control task", task, names)
    if not (pixels or state):
        raise UserError(f"dmc:{task} would show nothing: ask for pixels=true or state=true")
    if action_repeat < 1:
        raise UserError(f"dmc:{task}: action_repeat is {action_repeat}, but it must be 1 or more")
    if pixels:
        require_rendering(f"dmc:{task}")
    domain, name = names[task]
    view = BEST_CAMERA.get(domain, 0) if camera is None else camera
    inner = suite.load(domain, name)
    return ControlSuite(inner, image_size or 240, pixels, state, action_repeat, view)


class ControlSuite(gymnasium.Env[Any, Any]):
    """One dm_control task. Episodes last 1,000 control steps and are truncated; a few tasks can also terminate."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}  # type: ignore[misc]

    def __init__(self, inner: Any, image_size: int, pixels: bool, state: bool, action_repeat: int, camera: int):
        self.inner, self.render_mode = inner, "rgb_array"
        self.image_size, self.pixels, self.state = image_size, pixels, state
        self.action_repeat, self.camera = action_repeat, camera
        self.metadata = {**self.metadata, "render_fps": 1 / (inner.control_timestep() * action_repeat)}  # type: ignore[misc]
        plain = require("dm_control.rl.control", "dmc").Task
        self.terminates = type(inner.task).get_termination is not plain.get_termination
        draw_fast(inner.physics.model)
        action = inner.action_spec()
        low, high = (np.broadcast_to(edge, action.shape) for edge in (action.minimum, action.maximum))
        self.action_space = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self.observation_space = spaces.Dict(self._spaces())

    def _spaces(self) -> dict[str, spaces.Space]:
        found: dict[str, spaces.Space] = {}
        if self.pixels:
            found["image"] = spaces.Box(0, 255, (self.image_size, self.image_size, 3), np.uint8)
        if self.state:
            size = sum(int(np.prod(spec.shape)) for spec in self.inner.observation_spec().values())
            found["state"] = spaces.Box(-np.inf, np.inf, (size,), np.float32)
        return found

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            # dm_control offers no other way to seed an environment that exists.
            self.inner.task._random = np.random.RandomState(seed)
        return self._observation(self.inner.reset()), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        reward = 0.0
        for _ in range(self.action_repeat):
            step = self.inner.step(action)
            reward += step.reward or 0.0
            if step.last():
                break
        terminated = step.last() and step.discount == 0
        return self._observation(step), reward, bool(terminated), bool(step.last() and not terminated), {}

    def render(self) -> np.ndarray:
        """uint8 `[H, W, 3]`"""
        return self.inner.physics.render(self.image_size, self.image_size, camera_id=self.camera)

    def close(self) -> None:
        self.inner.close()

    def _observation(self, step: Any) -> dict[str, np.ndarray]:
        obs = {"image": self.render()} if self.pixels else {}
        if self.state:
            obs["state"] = np.concatenate([np.ravel(part) for part in step.observation.values()]).astype(np.float32)
        return obs
