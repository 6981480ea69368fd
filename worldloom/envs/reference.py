"""`module:function` names that a user types: their own environments, policies and agents."""

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from worldloom.errors import UserError, unknown


def load_object(reference: str, what: str, known: Iterable[str]) -> Any:
    """The object that `module:function` names; modules are also looked for in the current folder.

    Raises `UserError` when there is no such module (offering the nearest of the `known` names, as a wrong name is the
    likelier mistake) or when the module has no such attribute. An import that fails inside the module is let through.
    """
    module_name, _, attribute = reference.partition(":")
    if os.getcwd() not in sys.path:
        # A console script starts with its own folder in sys.path, not with the one the user stands in.
        sys.path.insert(0, os.getcwd())
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        near = unknown(what, module_name, known)
        raise UserError(f"{near} Nor is there a module {module_name!r} here for {reference!r}.") from error
    if not hasattr(module, attribute):
        names = [n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")]
        raise unknown(f"function of module {module_name!r}", attribute, names)
    return getattr(module, attribute)
