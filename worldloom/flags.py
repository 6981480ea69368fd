"""Flags that several commands share: names that a registry lists, and what may be imported although only a file names
it.
"""

from typing import Annotated, Any

from tyro.conf import UseAppendAction, arg

from worldloom.console import say
from worldloom.registry import Registry

# Flags of the last release, by command, and what they are called now.
RENAMED = {"plan": {"--floors": "--baselines", "--no-floors": "--no-baselines"}}

Allow = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(
        metavar="MODULE:ATTRIBUTE",
        help="Import this, although a run, an agent or a policy names it and not you: a family, a planner, an "
        "objective, a learning method or an environment of your own. Importing a module runs it.",
    ),
]


def renamed(command: str, arguments: list[str]) -> list[str]:
    """`arguments` of a command with old flags under their new names; a notice says so for each."""
    names, current = RENAMED.get(command, {}), []
    for argument in arguments:
        flag = names.get(argument.replace("_", "-"), argument)
        if flag != argument:
            say(f"{argument}: is called {flag} now; the old name goes with the next release")
        current.append(flag)
    return current


def named(registry: Registry, help: str, *more: str, **settings: Any) -> Any:
    """An option that takes a name of `registry`, or one of `more`: `--help` lists them, installed packages' too."""

    def text() -> str:
        return f"{help}: {', '.join((*more, *registry))}, or your own {registry.form}."

    return arg(help=text, **settings)  # type: ignore[call-overload]  # tyro takes a function, asked with --help only
