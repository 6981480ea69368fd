"""A scripted world as small as can be, for `make.py` to record: a dot in a square, sent to one side or the other.

H W image height and width.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

SIZE = 16
SIDES = {"to the left": -1.0, "to the right": 1.0}


class Dot(gymnasium.Env[Any, Any]):
    """Pushed by its action, rewarded for coming nearer to its side, at which the episode ends. The middle costs 1."""

    metadata: ClassVar[dict[str, Any]] = {"render_fps": 10}  # type: ignore[misc]
    action_names = ("right", "up")

    def __init__(self) -> None:
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
                "state": spaces.Box(-np.inf, np.inf, (2,), np.float32),
                "mission": spaces.Text(20),
            }
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.4, 0.4, 2)
        self.mission = sorted(SIDES)[int(self.np_random.random() < 0.5)]
        return self.look(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        before = self.left
        self.place = np.clip(self.place + 0.3 * np.asarray(action, float), -1, 1)
        arrived = self.left < 0.4
        inside = bool(np.abs(self.place).max() < 0.3)
        info = {"success": arrived, "cost": float(inside)}
        return self.look(), float(before - self.left), arrived, False, info

    @property
    def left(self) -> float:
        """How far its side is away."""
        return abs(SIDES[self.mission] - float(self.place[0]))

    def look(self) -> dict[str, Any]:
        line = np.linspace(-1, 1, SIZE)
        distance = (line[None] - self.place[0]) ** 2 + (line[:, None] + self.place[1]) ** 2
        dot = np.exp(-distance / 0.1)
        image = (np.stack([dot, 0.5 * dot, np.full_like(dot, 0.25)], -1) * 255).astype(np.uint8)
        # In units of its own, so that a normaliser that is lost shows.
        return {"image": image, "state": (self.place * [50, 1] + [100, -3]).astype(np.float32), "mission": self.mission}


def make_dot() -> gymnasium.Env:
    return Dot()


def wander(obs: dict[str, np.ndarray], rng: np.random.Generator) -> int:
    """Through the maze `blocking`: to the right and up, as its goal lies there, and elsewhere now and then."""
    return int(rng.choice(4, p=(0.42, 0.08, 0.08, 0.42)))
