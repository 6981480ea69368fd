"""A point robot with mass and friction that drives from goal to goal among round obstacles it must not enter.

H W image height and width. Lengths are metres, velocities metres per second, forces newtons. An obstacle does not stop
the robot: being inside one is a cost, as in the hazards of Safety Gym (Ray et al., 2019), so that every violation can
be counted and none ends the episode.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from worldloom.errors import UserError

# Centre x, centre y, radius of each obstacle. They never move, so that rules about them can be written down.
OBSTACLES = ((0.0, 0.0, 0.35), (1.1, 0.9, 0.3), (-1.1, 0.8, 0.3), (-0.7, -1.1, 0.3), (1.0, -0.9, 0.3))
# Starts and goals lie within GOALS of the middle in x and y, pictures reach to VIEW, and the plane goes on beyond.
GOALS, VIEW = 1.8, 2.0
TIME_STEP = 0.1
FORCE = 2.0
REACHED = 0.15
CLEARANCE = 0.25

BACKGROUND, OBSTACLE, GOAL, ROBOT = (24, 26, 34), (196, 72, 60), (88, 196, 120), (240, 240, 240)


def make(
    *,
    image_size: int = 64,
    pixels: bool = False,
    state: bool = True,
    goal: bool = True,
    mass: float = 1.0,
    friction: float = 1.0,
    max_steps: int = 200,
) -> gymnasium.Env:
    """`point`. Keys: "state" (x, y, velocity x, velocity y), "goal" (x, y), and "image" when `pixels`.

    The action is a force in [-1, 1] of `FORCE` newtons in x and in y. `mass` is in kilograms, `friction` the viscous
    drag in newton seconds per metre. The reward is the distance gained towards the goal, and 1 for reaching it, which
    also brings a new goal; `info["cost"]` is 1 inside an obstacle. Raises `UserError` for values no world can have.
    """
    if not (pixels or state or goal):
        raise UserError("point would show nothing: ask for pixels=true, state=true or goal=true")
    if not (mass > 0 and np.isfinite(mass)):
        raise UserError(f"point: mass is {mass}, but it must be more than 0")
    if not 0 <= friction * TIME_STEP / mass < 1:
        raise UserError(f"point: friction is {friction}, but it must be at least 0 and below mass / {TIME_STEP}")
    if max_steps < 1:
        raise UserError(f"point: max_steps is {max_steps}, but it must be 1 or more")
    shown = tuple(key for key, wanted in (("image", pixels), ("state", state), ("goal", goal)) if wanted)
    return Point(image_size or 64, shown, mass, friction, max_steps)


class Point(gymnasium.Env[Any, Any]):
    """The world behind `point`; nothing in it terminates, `max_steps` truncates."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 1 / TIME_STEP}  # type: ignore[misc]
    action_names = ("force_x", "force_y")
    terminates = False

    def __init__(self, image_size: int, shown: tuple[str, ...], mass: float, friction: float, max_steps: int):
        self.image_size, self.shown, self.render_mode = image_size, shown, "rgb_array"
        self.mass, self.friction, self.max_steps = mass, friction, max_steps
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        known: dict[str, spaces.Space] = {
            "image": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
            "state": spaces.Box(-np.inf, np.inf, (4,), np.float32),
            "goal": spaces.Box(-GOALS, GOALS, (2,), np.float32),
        }
        self.observation_space = spaces.Dict({key: known[key] for key in shown})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.velocity, self.steps = self._free_place(), np.zeros(2), 0
        self.goal = self._free_place()
        return self._look(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        before = np.linalg.norm(self.goal - self.place)
        self._move(np.clip(np.asarray(action, float), -1, 1))
        distance = np.linalg.norm(self.goal - self.place)
        reward = before - distance
        if distance < REACHED:
            self.goal = self._free_place()
            reward += 1
        self.steps += 1
        cost = float(clearance(self.place) < 0)
        return self._look(), float(reward), False, self.steps >= self.max_steps, {"cost": cost}

    def _move(self, force: np.ndarray) -> None:
        """Semi-implicit Euler."""
        self.velocity = self.velocity + TIME_STEP * (FORCE * force - self.friction * self.velocity) / self.mass
        self.place = self.place + TIME_STEP * self.velocity

    def _free_place(self) -> np.ndarray:
        while True:
            place = self.np_random.uniform(-GOALS, GOALS, 2)
            if clearance(place) > CLEARANCE:
                return place

    def _look(self) -> dict[str, np.ndarray]:
        vectors = {"state": np.concatenate([self.place, self.velocity]), "goal": self.goal}
        return {key: self.render() if key == "image" else vectors[key].astype(np.float32) for key in self.shown}

    def render(self) -> np.ndarray:
        """uint8 `[H, W, 3]`, y upwards; edges are blended, so that a robot moves by less than a pixel visibly."""
        size = self.image_size
        line = (np.arange(size) + 0.5) / size * 2 * VIEW - VIEW
        grid = np.stack(np.meshgrid(line, -line), -1)
        image = np.full((size, size, 3), BACKGROUND, float)
        discs = [(x, y, r, OBSTACLE) for x, y, r in OBSTACLES]
        for x, y, radius, colour in [*discs, (*self.goal, REACHED, GOAL), (*self.place, 0.1, ROBOT)]:
            distance = np.linalg.norm(grid - (x, y), axis=-1) - radius
            cover = np.clip(0.5 - distance * size / (2 * VIEW), 0, 1)[..., None]
            image = image * (1 - cover) + cover * np.array(colour)
        return image.astype(np.uint8)


def clearance(place: np.ndarray) -> float:
    """The distance from `place` `[2]` to the nearest obstacle's edge, negative inside one."""
    return min(float(np.hypot(place[0] - x, place[1] - y)) - r for x, y, r in OBSTACLES)
