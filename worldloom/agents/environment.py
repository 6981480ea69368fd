"""Conversion between an environment and an agent: observations in, actions out, and a check that the two fit.

B environments, A action size, N categories, C H W image channels, height, width. Environments use numpy, one step at a
time, images `[H, W, C]` and actions in their own units. Agents use tensors `[B, ...]`, images `[C, H, W]` and actions
in model units.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldloom.console import say_once
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.envs.adapt import AdaptedEnv
from worldloom.envs.describe import describe
from worldloom.errors import UserError

# Bounds that went through JSON and float32 may differ in the last digit.
ROUNDING = 1e-4


def to_obs(
    rows: Sequence[dict[str, np.ndarray]],
    spec: DataSpec,
    device: torch.device | str = "cpu",
    tasks: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """The observations of B environments as one `obs` of the keys in `spec`, images uint8 `[B, C, H, W]`.

    `tasks` are the language tasks from the environments' `reset`, for a model that observes a "task". Raises
    `UserError` where an observation lacks a key, or has another shape than `spec` says.
    """
    obs = {}
    for key, key_spec in spec.obs.items():
        if key_spec.kind == "category":
            array = one_hot(tasks or [""] * len(rows), key_spec)
        else:
            array = np.stack([read_key(row, key, key_spec) for row in rows])
        if key_spec.kind == "image":
            array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        obs[key] = torch.from_numpy(array).to(device)
    return obs


def read_key(row: dict[str, np.ndarray], key: str, spec: KeySpec) -> np.ndarray:
    """One key of one environment's observation, `[D]` or `[H, W, C]`."""
    if key not in row:
        raise UserError(f"the environment shows {', '.join(row)}, but the model observes {key!r}: add it")
    wanted = (*spec.shape[1:], spec.shape[0]) if spec.kind == "image" else spec.shape
    if row[key].shape != wanted:
        raise UserError(f"the environment shows {key!r} as {row[key].shape}, but it must be {wanted}: fix it")
    return row[key]


def one_hot(tasks: Sequence[str], spec: KeySpec) -> np.ndarray:
    """Language tasks as float32 `[B, N]`, zeros where there is none and for one that the model does not know."""
    names = spec.names or ()
    encoded = np.zeros((len(tasks), len(names)), np.float32)
    for row, task in enumerate(tasks):
        if task and task not in names:
            known = ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            say_once(f"WARNING: the environment's task {task!r} is unknown to the model, which knows {known}")
        elif task:
            encoded[row, names.index(task)] = 1
    return encoded


def to_env(action: Tensor, spec: DataSpec) -> list[Any]:
    """Actions `[B, A]` in model units as the environments take them, one each: a choice, or a float32 `[A]`.

    Continuous ones are in the environment's own units and clipped to the declared range, which a sum in float32 may
    leave by its last digit. Raises `UserError` for an action that is not finite.
    """
    rows = action.detach().float().cpu().numpy()
    if not np.isfinite(rows).all():
        raise UserError(f"the agent's action is {rows[~np.isfinite(rows).all(1)][0].tolist()}: it was not sent")
    if spec.action.kind == "discrete":
        return [int(row) for row in rows.argmax(1)]
    rows = spec.action.unscale(rows)
    if spec.action.low is not None and spec.action.high is not None:
        rows = np.clip(rows, np.asarray(spec.action.low, np.float32), np.asarray(spec.action.high, np.float32))
    return list(rows)


def check_fits(env: AdaptedEnv, spec: DataSpec) -> None:
    """Raise `UserError` when `env` lacks an observation key of a model of `spec`, or takes other actions.

    The environment may have more keys than the model, and allow actions beyond the model's range.
    """
    given = describe(env)
    for key, wanted in spec.obs.items():
        if wanted.kind != "category":
            _check_key(env.name, key, wanted, given.obs)
    _check_action(env, spec.action, given.action)


def _check_key(name: str, key: str, wanted: KeySpec, given: dict[str, KeySpec]) -> None:
    found = given.get(key)
    if found is None:
        hint = "make it with --options pixels=true" if wanted.kind == "image" else "make it as for the recording"
        raise UserError(f"{name} shows {', '.join(given)}, but the model observes {key!r} ({wanted.kind}): {hint}")
    if (found.kind, found.shape) != (wanted.kind, wanted.shape):
        raise UserError(
            f"{name} shows {key!r} as {found.kind} {found.shape}, but the model was trained on {wanted.kind} "
            f"{wanted.shape}: make the environment as it was when the data were recorded"
        )


def _check_action(env: AdaptedEnv, wanted: ActionSpec, taken: ActionSpec) -> None:
    if (taken.kind, taken.size) != (wanted.kind, wanted.size):
        raise UserError(
            f"{env.name} takes {taken.size} {taken.kind} actions, but the model was trained with "
            f"{wanted.size} {wanted.kind} ones: choose the environment that its data came from"
        )
    if wanted.kind == "discrete" or wanted.low is None or wanted.high is None:
        return
    assert isinstance(env.action_space, spaces.Box)
    low, high = np.asarray(wanted.low), np.asarray(wanted.high)
    slack = ROUNDING * np.maximum(np.abs(low), np.abs(high))
    outside = (low < env.action_space.low - slack) | (high > env.action_space.high + slack)
    for index in np.flatnonzero(outside)[:1]:
        raise UserError(
            f"{env.name} takes action {index} in [{env.action_space.low[index]:g}, {env.action_space.high[index]:g}], "
            f"but the model was trained with [{low[index]:g}, {high[index]:g}]: its actions would mean something else"
        )
