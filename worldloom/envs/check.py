"""The public conformance suite of environments: run it on your own before recording a night's worth of data."""

from typing import TYPE_CHECKING, Any

import numpy as np

from worldloom.errors import UserError

if TYPE_CHECKING:
    import gymnasium

    from worldloom.envs.adapt import AdaptedEnv
    from worldloom.envs.policy import RandomPolicy

Step = tuple[dict[str, np.ndarray], float, bool, bool]


def check_env(env: "gymnasium.Env", steps: int = 200, seed: int = 0) -> None:
    """Play `steps` random steps twice and raise `UserError` at the first promise that `env` breaks.

    Promised are: a dict of pictures and vectors that stay within their spaces (keys, shapes, dtypes, bounds) and are
    finite; a finite reward; `terminated` and `truncated` as booleans; a reset after every end; and that a seed and the
    actions decide everything.
    """
    from worldloom.envs.adapt import adapt  # late, as in `worldloom.envs`

    adapted = adapt(env, type(env.unwrapped).__name__, image_size=0)
    _check_raw_step(adapted)
    first, second = (_rollout(adapted, steps, seed) for _ in range(2))
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        for key in one[0]:
            if not np.array_equal(one[0][key], other[0][key]):
                raise _fault(adapted, number, f"observation {key!r} differs between two runs of seed {seed}")
        if one[1:] != other[1:]:
            raise _fault(adapted, number, f"two runs of seed {seed} gave {one[1:]} and {other[1:]}")


def _random_policy(env: "AdaptedEnv") -> "RandomPolicy":
    from worldloom.envs.policy import RandomPolicy

    return RandomPolicy(env.action_space)


def _check_raw_step(env: "AdaptedEnv") -> None:
    """What the adapter would smooth over: the shapes of the answers of `reset` and `step`."""
    inner, action = env.env, _random_policy(env)({}, np.random.default_rng(0))
    answer: Any = inner.reset(seed=0)
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
        raise UserError(f"{env.name}: reset returned {type(answer).__name__}; it must return (observation, info dict)")
    answer = inner.step(env.acts.send(action))
    if not (isinstance(answer, tuple) and len(answer) == 5):
        fix = "(observation, reward, terminated, truncated, info)"
        raise UserError(f"{env.name}: step returned {type(answer).__name__} of the wrong length; it must return {fix}")
    for name, value in zip(("terminated", "truncated"), answer[2:4], strict=True):
        if not isinstance(value, bool | np.bool_):
            raise UserError(f"{env.name}: {name} is {value!r}, a {type(value).__name__}; it must be a bool")


def _rollout(env: "AdaptedEnv", steps: int, seed: int) -> list[Step]:
    rng, policy = np.random.default_rng(seed), _random_policy(env)
    obs, _ = env.reset(seed=seed)
    played: list[Step] = [(obs, 0.0, False, False)]
    for number in range(1, steps + 1):
        _check_obs(env, played[-1][0], number - 1)
        if played[-1][2] or played[-1][3]:
            played.append((env.reset()[0], 0.0, False, False))
            continue
        obs, reward, terminated, truncated, _ = env.step(policy(obs, rng))
        if not np.isfinite(reward):
            raise _fault(env, number, f"the reward is {reward}; it must be finite")
        played.append((obs, reward, terminated, truncated))
    return played


def _check_obs(env: "AdaptedEnv", obs: dict[str, np.ndarray], number: int) -> None:
    for key, space in env.observation_space.spaces.items():
        value = obs[key]
        if value.shape != space.shape or value.dtype != space.dtype:
            got = f"{value.dtype} {value.shape}, but its space says {space.dtype} {space.shape}"
            raise _fault(env, number, f"observation {key!r} is {got}")
        if not np.isfinite(value).all():
            raise _fault(env, number, f"observation {key!r} holds {value[~np.isfinite(value)][0]}; it must be finite")
        if not space.contains(value):
            low, high = value.min(), value.max()
            raise _fault(env, number, f"observation {key!r} has values in [{low}, {high}], outside {space}")


def _fault(env: "AdaptedEnv", number: int, what: str) -> UserError:
    return UserError(f"{env.name}, step {number}: {what}")
