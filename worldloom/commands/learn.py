"""The command `worldloom learn`: a subcommand for every method."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Annotated, Any, Union

from tyro.conf import arg, subcommand

from worldloom.console import say
from worldloom.errors import UserError
from worldloom.learning.method import Method
from worldloom.learning.methods import METHODS
from worldloom.learning.settings import Learning
from worldloom.registry import allow, allow_typed, is_reference


def learn(settings: Learning) -> None:
    """Learn to act in an environment while acting in it, or inside a trained model."""
    allow(*settings.allow)
    names = [getattr(settings, name, "") for name in ("method", "env", "family")]
    allow_typed(*names, *(override.partition("=")[2] for override in getattr(settings, "overrides", ())))
    METHODS[settings.method].run(settings)


def with_methods(arguments: Sequence[str]) -> Callable[[Any], None]:
    """`learn` with a subcommand for every known method, and for the `module:object` that `arguments` begin with."""
    typed = [name for name in arguments[:1] if is_reference(name)]
    made = {name: find_method(name, name in arguments[:1]) for name in (*METHODS, *typed)}
    known = tuple(Annotated[each.settings, subcommand(name)] for name, each in made.items() if each is not None)

    def subcommands(settings: Any) -> None:
        learn(settings)

    subcommands.__doc__ = learn.__doc__
    subcommands.__annotations__["settings"] = Annotated[Union[known], arg(name="")]  # noqa: UP007, made at run time
    return subcommands


def find_method(name: str, is_asked: bool) -> Method | None:
    """The method of that name. One that is not asked for and cannot be had, such as a broken plugin, is only named."""
    try:
        method: Method = METHODS.typed(name) if is_asked else METHODS[name]
        check_name(method, name)
        return method
    except UserError as error:
        if is_asked:
            raise
        say(f"WARNING: {error}")
        return None


def check_name(method: Method, name: str) -> None:
    """Raise `UserError` unless `learn.json` will hold a name under which the method is found again."""
    if getattr(method.settings, "method", None) != name:
        raise UserError(f'learning method {name!r}: write method = "{name}" in {method.settings.__name__}')
    assert {"env", "out", "resume"} <= {each.name for each in fields(method.settings)}
