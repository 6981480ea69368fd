"""MiniGrid and BabyAI: grid worlds with keys, doors and a mission in words (Chevalier-Boisvert et al. 2023)."""

from difflib import get_close_matches
from typing import Any

import gymnasium

from worldloom.envs.headless import without_screen
from worldloom.errors import unknown
from worldloom.registry import require

CELLS_IN_VIEW = 7


def make(id: str, /, *, image_size: int = 64, view: str = "agent") -> gymnasium.Env:
    """`minigrid:<id>`, for instance `minigrid:DoorKey-5x5-v0`; the prefix "MiniGrid-" may be left out.

    Keys: "image", the view of the agent (`view="agent"`) or the whole grid (`view="world"`), and "direction", a one-hot
    of the four. The mission is the episode's task. The goal or lava terminates, the environment's own limit truncates.
    """
    without_screen()
    wrappers = require("minigrid.wrappers", "minigrid")
    views = {"agent": wrappers.RGBImgPartialObsWrapper, "world": wrappers.RGBImgObsWrapper}
    if view not in views:
        raise unknown("view of a MiniGrid world", view, views)
    env = gymnasium.make(full_id(id), disable_env_checker=True)
    inner: Any = env.unwrapped
    inner.action_names = tuple(action.name for action in inner.actions)
    cells = CELLS_IN_VIEW if view == "agent" else max(inner.width, inner.height)
    # Tiles are drawn a little too large rather than too small, as shrinking keeps the lines.
    return views[view](env, tile_size=max(-(-(image_size or 224) // cells), 4))


def full_id(id: str) -> str:
    """The registered id for a short or full one; raises `UserError` with the nearest ones."""
    known = [name for name in gymnasium.registry if name.startswith(("MiniGrid-", "BabyAI-"))]
    for candidate in (id, f"MiniGrid-{id}"):
        if candidate in known:
            return candidate
    near = get_close_matches(f"MiniGrid-{id}", known, 6, 0.4) or known[:6]
    raise unknown("MiniGrid world", id, near)
