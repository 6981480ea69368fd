"""The `DataSpec` of what an environment will record.

A action size, C H W image channels, height, width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from gymnasium import spaces

from worldloom.data.spec import ActionGroup, ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.envs.adapt import ActionSpace, AdaptedEnv, one_number
from worldloom.errors import UserError


def describe(env: AdaptedEnv) -> DataSpec:
    """Images become channels first `(C, H, W)`; `has_end` is false only where `env.terminates` is false."""
    has_end = not env.env.has_wrapper_attr("terminates") or bool(env.env.get_wrapper_attr("terminates"))
    obs = {key: describe_key(space) for key, space in env.observation_space.spaces.items()}
    return DataSpec(
        {**obs, **signal_keys(reward=True, terminated=has_end)},
        describe_action(env.action_space, env.action_names or env.acts.names, env.acts.groups),
        env.fps,
    )


def describe_key(space: spaces.Space) -> KeySpec:
    assert space.shape is not None
    if space.dtype == np.uint8:
        height, width, channels = space.shape
        return KeySpec("image", (channels, height, width))
    return KeySpec("vector", space.shape)


def describe_action(
    space: ActionSpace, given: tuple[str, ...] | None, groups: tuple[ActionGroup, ...] = ()
) -> ActionSpec:
    """Choices are numbered where the environment does not name them; an open range has no bounds."""
    if groups:
        return ActionSpec.of(groups)
    if isinstance(space, spaces.Discrete):
        size = int(space.n)
        return ActionSpec("discrete", size, names=given or tuple(map(str, range(size))))
    bounded = bool(np.isfinite([space.low, space.high]).all())
    low, high = (tuple(map(float, edge)) if bounded else None for edge in (space.low, space.high))
    return ActionSpec("continuous", len(space.low), names=given, low=low, high=high)


@dataclass(frozen=True)
class Signal:
    """A per-row signal that environments report in `info`, and the names they use for it."""

    name: str
    aliases: tuple[str, ...]
    dtype: type

    def read(self, info: Mapping[str, Any]) -> float | None:
        """Its value in a step's `info`: a number, an array that holds one, or None for "not yet". None without it."""
        alias = next((name for name in self.aliases if info.get(name) is not None), None)
        if alias is None:
            return None
        value = one_number(info[alias], f"info[{alias!r}]")
        if not isfinite(value):
            raise UserError(f"info[{alias!r}] is {value}, but it must be finite: fix the environment")
        return value


SIGNALS = (Signal("success", ("success", "is_success"), bool), Signal("cost", ("cost",), np.float32))
