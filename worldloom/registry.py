"""Explicit lazy registries: a name leads to `"module:attribute"`, imported only when it is asked for."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from worldloom.errors import MissingExtra, unknown


class Registry(Mapping[str, Any]):
    """`name -> object`, resolved on first use so that listing names imports nothing.

    Adding a thing to a folder is its file plus one line in that folder's registry.
    """

    def __init__(self, what: str, entries: Mapping[str, str]):
        self.what = what
        self.entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        if name not in self.entries:
            raise unknown(self.what, name, self.entries)
        module, attribute = self.entries[name].split(":")
        return getattr(import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def require(module: str, extra: str) -> Any:
    """Import an optional `module`, or raise `MissingExtra` with the line that installs `extra`."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"this needs the package {error.name!r}, which is not installed. "
            f"Type: pip install 'worldloom[{extra}]' -c constraints.txt"
        ) from error
