"""Pictures without a screen: what must be set before the drawing libraries are first imported."""

import os
from ctypes.util import find_library
from typing import Any

from worldloom.errors import UserError


def without_screen() -> None:
    """Keep pygame silent and off any display, and let MuJoCo draw through EGL, or OSMesa where there is no EGL."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if not os.environ.get("DISPLAY"):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("MUJOCO_GL", mujoco_backend())


def mujoco_backend() -> str:
    """The best software renderer this machine has for MuJoCo: "egl", "osmesa" or "disable"."""
    if find_library("EGL"):
        return "egl"
    return "osmesa" if find_library("OSMesa") else "disable"


def require_rendering(name: str) -> None:
    """Raise `UserError` when MuJoCo cannot draw on this machine."""
    if os.environ.get("MUJOCO_GL") == "disable":
        fix = "install EGL (Debian and Ubuntu: apt-get install libegl1 libgl1), or ask for pixels=false"
        raise UserError(f"{name}: pixels need a renderer, and neither EGL nor OSMesa is here; {fix}")


def draw_fast(model: Any) -> None:
    """Make MuJoCo's software rendering several times faster: no shadows, reflections or antialiasing.

    Call it before the first picture is drawn: the renderer reads these once. At 64 pixels the difference is invisible.
    """
    model.light_castshadow[:] = 0
    model.mat_reflectance[:] = 0
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0
