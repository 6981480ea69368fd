"""Flags that several commands share: names that a registry lists, and what may be imported although only a file names
it.
"""

from typing import Annotated, Any

from tyro.conf import UseAppendAction, arg

from worldloom.registry import Registry

Allow = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(
        metavar="MODULE:ATTRIBUTE",
        help="Import this, although a run, an agent or a policy names it and not you: a family, a planner, an "
        "objective, a learning method or an environment of your own. Importing a module runs it.",
    ),
]


def named(registry: Registry, help: str, *more: str, **settings: Any) -> Any:
    """An option that takes a name of `registry`, or one of `more`: `--help` lists them, installed packages' too."""

    def text() -> str:
        return f"{help}: {', '.join((*more, *registry))}, or your own {registry.form}."

    return arg(help=text, **settings)  # type: ignore[call-overload]  # tyro takes a function, asked with --help only
