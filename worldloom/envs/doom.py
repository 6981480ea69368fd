"""ViZDoom's take_cover, as in World Models (Ha & Schmidhuber 2018, arXiv 1803.10122): dodge fireballs as long as
possible.

Departures from the paper: the picture is rendered without the status bar instead of being cropped above it, and the
action is a choice of left, stay and right instead of a number in [-1, 1] that is cut at -1/3 and 1/3 into these three.
"""

import contextlib
import os
import tempfile
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from worldloom.errors import UserError
from worldloom.registry import require

BUTTONS = ([1.0, 0.0], [0.0, 0.0], [0.0, 1.0])
SPARE_HEALTH = 1000
TICS_PER_SECOND = 35


def make(*, max_steps: int = 2100, action_repeat: int = 1) -> gymnasium.Env:
    """`doom`. The default of 2,100 tics is one minute of Doom at 35 tics a second.

    With `action_repeat` a step holds its action for so many tics; only the last of their pictures is observed.
    """
    if action_repeat < 1:
        raise UserError(f"doom: action_repeat is {action_repeat}, but it must be 1 or more")
    return DoomTakeCover(max_steps, action_repeat)


class DoomTakeCover(gymnasium.Env[Any, Any]):
    """One step is `action_repeat` tics. +1 for every tic played; death terminates, the time limit truncates.

    Observation: uint8 `[120, 160, 3]`. Actions: 0 move left, 1 stay, 2 move right.

    ViZDoom shows nothing once a player is dead, so the terminal picture, with the fireball that hit, would be lost. The
    player therefore carries spare health, and the episode ends when the damage reaches what would have killed. The
    pictures and the tic of death are the same as in the plain game, bit for bit.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": TICS_PER_SECOND}  # type: ignore[misc]
    action_names = ("left", "stay", "right")

    def __init__(self, max_steps: int, action_repeat: int):
        self.max_steps, self.action_repeat, self.render_mode = max_steps, action_repeat, "rgb_array"
        self.metadata = {**self.metadata, "render_fps": TICS_PER_SECOND / action_repeat}  # type: ignore[misc]
        self.action_space = spaces.Discrete(len(BUTTONS))
        self.observation_space = spaces.Box(0, 255, (120, 160, 3), np.uint8)
        self._health = require("vizdoom", "doom").GameVariable.HEALTH
        self._folder = tempfile.TemporaryDirectory(prefix="worldloom-doom-")
        self._game = start_game(self._folder.name)
        self._time = 0
        self._picture = np.zeros((120, 160, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._game.set_seed(int(self.np_random.integers(2**31)))
        self._game.new_episode()
        self._game.send_game_command(f"give health {SPARE_HEALTH}")  # takes effect within the first tic
        self._time = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward, terminated, truncated = 0.0, False, False
        for _ in range(self.action_repeat):
            reward += self._game.make_action(BUTTONS[action])
            self._time += 1
            terminated = bool(self._game.get_game_variable(self._health) <= SPARE_HEALTH)
            truncated = not terminated and self._time >= self.max_steps
            if terminated or truncated:
                break
        return self._observation(), reward, terminated, truncated, {}

    def render(self) -> np.ndarray:
        """uint8 `[120, 160, 3]`"""
        return self._picture

    def close(self) -> None:
        self._game.close()
        self._folder.cleanup()

    def _observation(self) -> np.ndarray:
        # Copied because ViZDoom hands out its own buffer, which the next tic overwrites.
        self._picture = self._game.get_state().screen_buffer.copy()
        return self._picture


def start_game(folder: str) -> Any:
    """A running ViZDoom with take_cover loaded; the engine writes its own files into `folder`."""
    vizdoom = require("vizdoom", "doom")
    game = vizdoom.DoomGame()
    game.load_config(os.path.join(vizdoom.scenarios_path, "take_cover.cfg"))
    game.set_doom_config_path(os.path.join(folder, "vizdoom.ini"))
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_available_game_variables([vizdoom.GameVariable.HEALTH])
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_episode_timeout(0)
    game.set_mode(vizdoom.Mode.PLAYER)
    with contextlib.chdir(folder):
        game.init()
    return game
