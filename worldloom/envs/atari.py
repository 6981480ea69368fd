"""Atari 2600 games by the Arcade Learning Environment, whose package holds the games."""

from typing import Any

import gymnasium

from worldloom.errors import UserError, unknown
from worldloom.registry import require


def make(
    game: str, /, *, frame_skip: int = 4, sticky_actions: float = 0.25, all_actions: bool = False
) -> gymnasium.Env:
    """`atari:<game>`, for instance `atari:pong` or `atari:ms_pacman`. Observation: the 210 x 160 screen.

    The protocol of Machado et al. 2018: `frame_skip` frames per step, the last action repeated with probability
    `sticky_actions`, no end at the loss of a life. Losing the game terminates, half an hour of play truncates.
    """
    ale = require("ale_py", "atari")
    ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
    known = require("ale_py.roms", "atari").get_all_rom_ids()
    asked = game.lower().replace("-", "_")
    if asked not in known:
        raise unknown("Atari game", game, known)
    if frame_skip < 1:
        raise UserError(f"atari:{game}: frame_skip is {frame_skip}, but it must be 1 or more")
    gymnasium.register_envs(ale)
    title = "".join(part.capitalize() for part in asked.split("_"))
    env = gymnasium.make(
        f"ALE/{title}-v5",
        frameskip=frame_skip,
        repeat_action_probability=sticky_actions,
        full_action_space=all_actions,
        disable_env_checker=True,
    )
    inner: Any = env.unwrapped
    inner.action_names = tuple(name.lower() for name in inner.get_action_meanings())
    # ALE states half the console's 60 frames a second, whatever the frame skip.
    inner.metadata = {**inner.metadata, "render_fps": 60 / frame_skip}
    return env
