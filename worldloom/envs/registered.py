"""Anything registered with gymnasium."""

import os
from difflib import get_close_matches
from typing import Any

import gymnasium
from gymnasium import error, spaces
from gymnasium.wrappers import AddRenderObservation

from worldloom.envs.headless import draw_fast, require_rendering, without_screen
from worldloom.errors import MissingExtra, UserError, unknown


def make(
    id: str,
    /,
    *,
    image_size: int = 64,
    pixels: bool = False,
    state: bool = True,
    max_steps: int | None = None,
    fps: float | None = None,
    **options: Any,
) -> gymnasium.Env:
    """`gym:<id>`, for instance `gym:CartPole-v1`; `gym:my_package:MyEnv-v0` imports `my_package` first.

    `pixels` adds the rendered picture as the key "image"; without `state` it is all there is. `fps` states the steps
    per second where the environment does not. Further `options` go to the environment's constructor.
    """
    if not (pixels or state):
        raise UserError(f"gym:{id} would show nothing: ask for pixels=true or state=true")
    without_screen()
    if pixels and image_size and drawn_by_mujoco(id):
        options = {"width": image_size, "height": image_size, **options}
    try:
        env = gymnasium.make(
            id,
            max_episode_steps=max_steps,
            disable_env_checker=True,
            render_mode="rgb_array" if pixels else None,
            **options,
        )
    except (error.NameNotFound, error.NamespaceNotFound, error.VersionNotFound, error.DeprecatedEnv) as wrong:
        raise unknown("gymnasium environment", id, nearest_ids(id)) from wrong
    except error.DependencyNotInstalled as missing:
        raise MissingExtra(f"gym:{id}: {missing}") from missing
    except ModuleNotFoundError as missing:
        line = f"Type: pip install {missing.name} -c constraints.txt"
        raise MissingExtra(f"gym:{id} needs the package {missing.name!r}, which is not installed. {line}") from missing
    except (TypeError, error.Error) as wrong:
        raise UserError(f"gym:{id} cannot be made with {options or 'no options'}: {wrong}") from wrong
    return with_pixels(with_fps(env, fps), id, state) if pixels else with_fps(env, fps)


def drawn_by_mujoco(id: str) -> bool:
    """Whether gymnasium's own MuJoCo classes draw it, which can draw at any size at once and faster at a small one."""
    known = gymnasium.registry.get(id)
    return known is not None and str(known.entry_point).startswith("gymnasium.envs.mujoco")


def nearest_ids(id: str) -> list[str]:
    known = list(gymnasium.registry)
    return get_close_matches(id, known, 6, 0.4) or known[:6]


def with_fps(env: gymnasium.Env, fps: float | None) -> gymnasium.Env:
    """State the rate: as asked, as in the metadata, or from the simulator's own time step."""
    step_seconds = getattr(env.unwrapped, "dt", None)
    if fps is None and not env.metadata.get("render_fps") and isinstance(step_seconds, float) and step_seconds > 0:
        fps = 1 / step_seconds
    if fps is not None:
        env.unwrapped.metadata = {**env.metadata, "render_fps": fps}
    return env


def with_pixels(env: gymnasium.Env, id: str, state: bool) -> gymnasium.Env:
    """The rendered picture beside the observation or, without `state`, instead of it; MuJoCo's by the fast recipe."""
    model = getattr(env.unwrapped, "model", None)
    if hasattr(model, "light_castshadow"):
        require_rendering(f"gym:{id}")
        os.environ.setdefault("MUJOCO_GL", "egl")
        draw_fast(model)
    env.reset(seed=0)  # AddRenderObservation draws one picture to learn its size
    if not state:
        return AddRenderObservation(env, render_only=True)
    is_dict = isinstance(env.observation_space, spaces.Dict)
    return AddRenderObservation(env, render_only=False, render_key="image", **({} if is_dict else {"obs_key": "state"}))
