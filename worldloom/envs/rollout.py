"""One whole episode of one environment, as rows. No environment ever resets itself here, so no row crosses an episode.

T rows (one more than steps), A action size, C H W image channels, height, width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

from worldloom.data.episode import Episode
from worldloom.data.spec import one_hot
from worldloom.envs.adapt import ActionSpace, AdaptedEnv
from worldloom.envs.describe import SIGNALS
from worldloom.envs.policy import Policy, checked
from worldloom.errors import UserError


@dataclass
class RecordedRows:
    """The observations, actions and outcomes so far, one list entry per row."""

    obs: list[dict[str, np.ndarray]] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    infos: list[dict[str, Any]] = field(default_factory=list)
    task: str = ""


def play_episode(
    env: AdaptedEnv,
    policy: Policy,
    seed: np.random.SeedSequence,
    *,
    policy_name: str = "policy",
    max_steps: int | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Episode:
    """Play from reset to the end: T + 1 rows for T steps, the last one the terminal observation with a zero action.

    The episode depends on `seed` alone. Reaching `max_steps` truncates, unless the episode ends there anyway. Raises
    `UserError` for an observation that does not fit its space, a value that is not finite, or an action outside the
    action space; `on_step` may raise to stop.
    """
    env_seed, policy_seed = seed.spawn(2)
    rng = np.random.default_rng(policy_seed)
    if hasattr(policy, "reset"):
        policy.reset()
    rows, terminated, truncated = RecordedRows(), False, False
    obs, info = env.reset(seed=int(env_seed.generate_state(1)[0] >> 1))
    rows.obs.append(obs)
    rows.task = str(info.get("task", ""))
    while not (terminated or truncated):
        action = env.acts.taken(checked(policy(obs, rng), env.action_space, policy_name))
        obs, reward, terminated, truncated, step_info = env.step(action)
        rows.obs.append(obs)
        rows.actions.append(action)
        rows.rewards.append(reward)
        rows.infos.append(step_info)
        at_limit = max_steps is not None and len(rows.actions) >= max_steps
        # Gymnasium's TimeLimit reports both when the end falls on the last allowed step: it is an end.
        truncated = not terminated and (truncated or at_limit)
        on_step()
    return to_episode(env, rows, terminated, truncated)


def to_episode(env: AdaptedEnv, rows: RecordedRows, terminated: bool, truncated: bool) -> Episode:
    """Stack the rows, images channels first `[T, C, H, W]`, and check what cannot be trusted blindly."""
    obs = {key: stack(rows.obs, key, space, env.name) for key, space in env.observation_space.spaces.items()}
    reward = np.array([0.0, *rows.rewards], np.float32)
    require_finite(reward, "reward", env.name)
    last = np.arange(len(reward)) == len(reward) - 1
    return Episode(
        obs=obs,
        action=stack_actions(rows.actions, env.action_space),
        reward=reward,
        terminated=last & terminated,
        truncated=last & truncated,
        task=rows.task,
        extra=stack_signals(rows.infos),
    )


def stack(rows: list[dict[str, np.ndarray]], key: str, space: spaces.Space, name: str) -> np.ndarray:
    """One observation key over time, checked against its space."""
    for row, obs in enumerate(rows):
        if obs[key].shape != space.shape or obs[key].dtype != space.dtype:
            got = f"{obs[key].dtype} {obs[key].shape}"
            raise UserError(
                f"{name}: observation {key!r} in row {row} is {got}, but its space says {space.dtype} {space.shape}"
            )
    values = np.stack([obs[key] for obs in rows])
    if space.dtype == np.uint8:
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    require_finite(values, f"observation {key!r}", name)
    return values


def require_finite(values: np.ndarray, what: str, name: str) -> None:
    if np.isfinite(values).all():
        return
    row, *place = np.argwhere(~np.isfinite(values))[0]
    where = f", entry {place[0]}" if place else ""
    value = values[(row, *place)]
    raise UserError(f"{name}: {what} in row {row}{where} is {value}; an episode must be finite: fix the environment")


def stack_actions(actions: list[Any], space: ActionSpace) -> np.ndarray:
    """float32 `[T, A]`: choices as one-hot, and zeros in the last row, where nothing was done any more."""
    if isinstance(space, spaces.Discrete):
        chosen = one_hot(np.asarray(actions, int), int(space.n))
    else:
        chosen = np.stack(actions)
    return np.concatenate([chosen, np.zeros_like(chosen[:1])])


def stack_signals(infos: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The signals that any `info` carried, 0 in steps without; like a reward, row t + 1 holds what step t brought."""
    found: dict[str, np.ndarray] = {}
    for signal in SIGNALS:
        values = [signal.read(info) for info in infos]
        if any(value is not None for value in values):
            found[signal.name] = np.array([0.0, *(value or 0.0 for value in values)]).astype(signal.dtype)
    return found
