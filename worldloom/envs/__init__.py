"""What can be recorded and played. Adding an environment is its file and one line here, or your own `module:function`.

Every environment is a gymnasium environment whose observation is a dict: images uint8 `[H, W, 3]` as gymnasium users
expect, vectors float32 `[D]` (a recorded dataset is channels first). Actions are Discrete or a flat Box
(`worldloom.envs.actions`).
"""

from collections.abc import Iterable
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldloom.envs.check import check_env
from worldloom.errors import NotAllowed, UserError, origin, unknown
from worldloom.registry import Registry, is_allowed

if TYPE_CHECKING:
    from worldloom.envs.adapt import AdaptedEnv

__all__ = ["ENVIRONMENTS", "check_env", "make_env"]

ENVIRONMENTS = Registry(
    "environment",
    {
        "atari": "worldloom.envs.atari:make",
        "carracing": "worldloom.envs.carracing:make",
        "dmc": "worldloom.envs.dmc:make",
        "doom": "worldloom.envs.doom:make",
        "gym": "worldloom.envs.registered:make",
        "minigrid": "worldloom.envs.minigrid:make",
        "maze": "worldloom.envs.maze:make",
        "point": "worldloom.envs.point:make",
        "pusht": "worldloom.envs.pusht:make",
    },
    group="worldloom.environments",
)


def make_env(name: str, *, image_size: int = 64, seed: int = 0, **options: Any) -> "AdaptedEnv":
    """An environment by name: `doom`, `dmc:cheetah-run`, `gym:CartPole-v1`, or your own `module:function`.

    Images are square with a side of `image_size` pixels (0 keeps their own size). The first `reset` without a seed uses
    `seed`. `options` go to the environment's own function. A `module:function` is imported, so a `name` that was read
    from a file must pass `require_known` first. Raises `UserError` for a name or an option that does not exist, and
    `MissingExtra` when the environment's package is not installed.
    """
    from worldloom.envs.adapt import adapt  # late, as gymnasium need not be loaded to know the names above

    head, _, argument = name.partition(":")
    if head in ENVIRONMENTS:
        factory = ENVIRONMENTS[head]
    elif argument:
        factory, argument = ENVIRONMENTS.typed(name), ""
    else:
        raise unknown("environment", name, ENVIRONMENTS)
    return adapt(_call(name, factory, argument, image_size, options), name, image_size, seed)


def require_known(name: str, options: Iterable[str], file: Path) -> None:
    """Raise `NotAllowed` if making an environment, as `file` names it, would import a module of anybody's choice.

    A colon behind the first one is such a module too, as in `gym:module:Env-v0`, and so may one in an option be.
    """
    head, _, argument = name.partition(":")
    is_ours = head in ENVIRONMENTS and not any(":" in word for word in (argument, *options))
    if ":" in name and not is_ours and not is_allowed(name):
        typed = " ".join((name, *(("--options", *options) if options else ())))
        raise NotAllowed("environment", name, file, f"type --env {typed}")


def _call(name: str, factory: Any, argument: str, image_size: int, options: dict[str, Any]) -> Any:
    """Call a factory by its signature: a positional-only parameter takes what follows the colon."""
    parameters = signature(factory).parameters
    positional = [p for p in parameters if parameters[p].kind is Parameter.POSITIONAL_ONLY]
    head = name.partition(":")[0]
    if positional and not argument:
        raise UserError(f"environment {name!r} needs a {positional[0]}: write {head}:{positional[0].upper()}")
    if argument and not positional:
        raise UserError(f"environment {head!r} takes nothing after a colon, but {name!r} was asked for: write {head}")
    if not any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
        known = [p for p in parameters if p not in positional and p != "image_size"]
        for option in options:
            if option not in known:
                raise unknown(f"option of environment {name!r}", option, known)
    if "image_size" in parameters:
        options = {"image_size": image_size, **options}
    try:
        return factory(argument, **options) if positional else factory(**options)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"
        raise UserError(f"environment {name!r} cannot be made with {given}: {origin(error)}") from error
