"""The gridworlds of Sutton & Barto (2018), chapter 8: a maze to plan in, and two whose walls move when one knows them.

R C rows and columns. A place is a cell, shown as one of R * C; walls are cells nobody ever stands on.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from worldloom.errors import UserError, unknown

# S start, G goal, # wall. The second drawing is the maze after it has changed.
LAYOUTS: dict[str, tuple[str, ...]] = {
    "dyna": (
        ".......#G|..#....#.|S.#....#.|..#......|.....#...|.........",
    ),
    "blocking": (
        "........G|.........|.........|########.|.........|...S.....",
        "........G|.........|.........|.########|.........|...S.....",
    ),
    "shortcut": (
        "........G|.........|.........|.########|.........|...S.....",
        "........G|.........|.........|.#######.|.........|...S.....",
    ),
}  # fmt: skip
CHANGES = {"dyna": 0, "blocking": 1000, "shortcut": 3000}
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))


def make(*, image_size: int = 64, layout: str = "dyna", change_after: int | None = None) -> gymnasium.Env:
    """`maze`. The key "state" is the place, one-hot `[R * C]`; the actions are up, down, left and right.

    A move into a wall or off the edge has no effect. Reaching the goal gives reward 1 and terminates; all else gives 0.
    After `change_after` steps of this environment, over all episodes (by default the book's 1,000 for `blocking` and
    3,000 for `shortcut`), the maze changes. Raises `UserError` for a layout that is not known.
    """
    if layout not in LAYOUTS:
        raise unknown("layout of a maze", layout, LAYOUTS)
    after = CHANGES[layout] if change_after is None else change_after
    if after < 0:
        raise UserError(f"maze: change_after is {after}, but it must be 0 or more steps")
    return Maze(LAYOUTS[layout], after, image_size or 64)


class Maze(gymnasium.Env[Any, Any]):
    """The world behind `maze`."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]
    action_names = ("up", "down", "left", "right")

    def __init__(self, drawings: tuple[str, ...], change_after: int, image_size: int):
        self.grids = [np.array([list(line) for line in drawing.split("|")]) for drawing in drawings]
        self.change_after, self.image_size, self.render_mode = change_after, image_size, "rgb_array"
        self.taken = 0  # steps since this environment was made
        self.observation_space = spaces.Discrete(self.grids[0].size)
        self.action_space = spaces.Discrete(len(MOVES))

    @property
    def grid(self) -> np.ndarray:
        """The maze as it is now, `[R, C]`."""
        return self.grids[-1] if self.taken >= self.change_after else self.grids[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self._find("S")
        return self._observation(), {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        there = self.place + np.array(MOVES[int(action)])
        inside = (there >= 0).all() and (there < self.grid.shape).all()
        if inside and self.grid[tuple(there)] != "#":
            self.place = there
        self.taken += 1
        arrived = self.grid[tuple(self.place)] == "G"
        return self._observation(), float(arrived), bool(arrived), False, {}

    def render(self) -> np.ndarray:
        """uint8 `[H, W, 3]`."""
        colours = {".": (240, 240, 240), "S": (200, 215, 240), "#": (60, 64, 80), "G": (88, 196, 120)}
        picture = np.array([[colours[cell] for cell in row] for row in self.grid], np.uint8)
        picture[tuple(self.place)] = (196, 72, 60)
        size = self.image_size
        rows, columns = (np.arange(size) * count // size for count in self.grid.shape)
        return picture[rows][:, columns]

    def _find(self, mark: str) -> np.ndarray:
        return np.argwhere(self.grid == mark)[0]

    def _observation(self) -> int:
        return int(self.place[0] * self.grid.shape[1] + self.place[1])
