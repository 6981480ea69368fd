"""The `DataSpec` of what an environment will record.

A action size, C H W image channels, height, width.
"""

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.envs.adapt import ActionSpace, AdaptedEnv


def describe(env: AdaptedEnv) -> DataSpec:
    """Images become channels first `(C, H, W)`; `has_end` is false only where `env.terminates` is false."""
    has_end = not env.env.has_wrapper_attr("terminates") or bool(env.env.get_wrapper_attr("terminates"))
    obs = {key: describe_key(space) for key, space in env.observation_space.spaces.items()}
    return DataSpec(
        {**obs, **signal_keys(reward=True, terminated=has_end)},
        describe_action(env.action_space, env.action_names),
        env.fps,
    )


def describe_key(space: spaces.Space) -> KeySpec:
    assert space.shape is not None
    if space.dtype == np.uint8:
        height, width, channels = space.shape
        return KeySpec("image", (channels, height, width))
    return KeySpec("vector", space.shape)


def describe_action(space: ActionSpace, given: tuple[str, ...] | None) -> ActionSpec:
    """Choices are numbered where the environment does not name them; an open range has no bounds."""
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


SIGNALS = (Signal("success", ("success", "is_success"), bool), Signal("cost", ("cost",), np.float32))
