"""Explicit lazy registries: a name leads to `"module:attribute"`, imported only when it is asked for.

A *known* name stands in this package, or in an entry point of an installed one. A *reference*, `module:attribute`, is
anybody's file, and importing it runs it. It is followed only where the user of this process named it himself (`typed`,
`allow`), or where an installed package has an entry point that is the same. `registry[name]` keeps to that, so it can
be asked for any name that a run, an agent or a dataset holds.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from importlib import import_module, metadata
from inspect import isabstract, isclass
from pathlib import Path
from typing import Any

from worldloom.errors import MissingExtra, NotAllowed, UserError, origin, unknown

_allowed: set[str] = set()


def is_reference(name: str) -> bool:
    """Whether a name is of the form `module:attribute`."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name) is not None


def allow(*references: str) -> None:
    """Let each `module:attribute` be imported in this process, wherever a file names it. Raises `UserError`.

    Only for what the user typed, or what a program of his says in its source: never pass what was read from a file.
    """
    for reference in references:
        if not is_reference(reference):
            raise UserError(f"{reference!r} cannot be allowed: write it as module:attribute")
    _allowed.update(references)


def allow_typed(*names: str | None) -> None:
    """`allow` those that are references among `names` that the user typed; known names need no leave."""
    allow(*(name for name in names if name is not None and is_reference(name)))


def is_allowed(reference: str) -> bool:
    """Whether the user of this process named `reference` himself."""
    return reference in _allowed


class Registry(Mapping[str, Any]):
    """`name -> object`, resolved on first use so that listing names imports nothing.

    Adding a thing to a folder is its file plus one line in that folder's registry. An installed package adds to it by
    an entry point of the `group`. What comes from outside must be a `kind`: a subclass of that class, or with
    `instances` an object of it; without a kind something that can be called.
    """

    def __init__(
        self, what: str, entries: Mapping[str, str], group: str = "", kind: str = "", *, instances: bool = False
    ):
        self.what, self.group, self.kind, self.instances = what, group, kind, instances
        self.entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        """Raises `UserError` for an unknown name, and `NotAllowed` for a reference that only a file can have named."""
        if name in self.entries:
            return _attribute(*self.entries[name].split(":"))
        if is_reference(name) and name in _allowed:
            return self.adopt(name, load_reference(name, self.what, self))
        return self.adopt(name, self._plugin(name).load(self.what))

    def typed(self, name: str) -> Any:
        """What the user of this process named himself: a reference of his is allowed from then on."""
        allow_typed(name)
        return self[name]

    def adopt(self, name: str, thing: Any) -> Any:
        """What came from outside, once it is known to be of the right kind. Raises `UserError`."""
        if not self.kind:
            if not callable(thing):
                raise UserError(f"{self.what} {name!r} is a {type(thing).__name__}, but it must be callable")
            return thing
        kind = _attribute(*self.kind.split(":"))
        fits = isinstance(thing, kind) if self.instances else isclass(thing) and issubclass(thing, kind)
        if not fits:
            found = f"the class {thing.__name__}" if isclass(thing) else f"a {type(thing).__name__}"
            wanted = f"an object of {_path(kind)}" if self.instances else f"a subclass of {_path(kind)}"
            raise UserError(f"{self.what} {name!r} is {found}, but it must be {wanted}")
        if isabstract(thing):
            missing = ", ".join(sorted(thing.__abstractmethods__))
            raise UserError(f"{self.what} {name!r} does not define {missing}, which {_path(kind)} asks for")
        return thing

    @property
    def plugins(self) -> "tuple[Plugin, ...]":
        """The entry points of installed packages. A name of our own is always ours."""
        found = installed(self.group, tuple(sys.path), os.getcwd()) if self.group else ()
        return tuple(plugin for plugin in found if plugin.name not in self.entries)

    def _plugin(self, name: str) -> "Plugin":
        found = [plugin for plugin in self.plugins if name in (plugin.name, plugin.value)]
        if not found and is_reference(name):
            raise NotAllowed(self.what, name)
        if not found:
            raise unknown(self.what, name, self)
        if len({plugin.value for plugin in found}) > 1:
            both = " and ".join(f"{plugin.package} ({plugin.value})" for plugin in found)
            raise UserError(f"{self.what} {name!r} comes from {both}: uninstall one, or type the module:attribute")
        return found[0]

    @property
    def form(self) -> str:
        """How your own one is typed."""
        return "module:object" if self.instances else "module:Class" if self.kind else "module:function"

    def __contains__(self, name: object) -> bool:
        return name in self.entries or any(name == plugin.name for plugin in self.plugins)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.entries, *(plugin.name for plugin in self.plugins))))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True)
class Plugin:
    """One entry point: its `name`, the `module:attribute` it stands for, and the package that has it."""

    name: str
    value: str
    package: str

    def load(self, what: str) -> Any:
        """Import it. Raises `UserError` naming the package and its error."""
        try:
            return _attribute(*self.value.split(":"))
        except UserError:
            raise
        except Exception as error:  # anything may come out of somebody else's module
            raise UserError(
                f"{what} {self.name!r} of the package {self.package} cannot be imported from {self.value}: "
                f"{origin(error)}. Everything else works without it"
            ) from error


@lru_cache
def installed(group: str, path: tuple[str, ...], here: str) -> tuple[Plugin, ...]:
    """The entry points of a group, sorted by name, of the packages on the import path `path`.

    Not of those in `here`, the current folder: it may be a run folder, which decides nothing.
    """
    elsewhere = [place for place in path if place and Path(place).resolve() != Path(here).resolve()]
    packages: dict[str, metadata.Distribution] = {}
    for package in metadata.distributions(path=elsewhere):
        packages.setdefault(package.name, package)  # of two versions on the path Python imports the first
    return tuple(
        sorted(
            (
                Plugin(point.name, point.value.partition("[")[0].strip(), f"{name} {package.version}")
                for name, package in packages.items()
                for point in package.entry_points
                if point.group == group and is_reference(point.value.partition("[")[0].strip())
            ),
            key=lambda plugin: plugin.name,
        )
    )


def load_reference(reference: str, what: str, known: Mapping[str, Any] | tuple[str, ...]) -> Any:
    """The object that `module:attribute` names; modules are also looked for in the current folder.

    For names that may be imported, and for no others. Raises `UserError` when there is no such module (offering the
    nearest of the `known` names, as a wrong name is the likelier mistake), when importing it fails, and when it has no
    such attribute.
    """
    module_name, _, attribute = reference.partition(":")
    if os.getcwd() not in sys.path:
        # A console script starts with its own folder in sys.path, not with the one the user stands in.
        sys.path.insert(0, os.getcwd())
    try:
        module = import_module(module_name)
    except UserError:
        raise
    except Exception as error:
        is_absent = isinstance(error, ModuleNotFoundError) and (module_name + ".").startswith(f"{error.name}.")
        if is_absent:
            near = unknown(what, module_name, known)
            raise UserError(f"{near} Nor is there a module {module_name!r} here for {reference!r}.") from error
        raise UserError(f"{what} {reference!r}: importing {module_name!r} failed: {origin(error)}") from error
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        names = [n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")]
        raise unknown(f"{what} of module {module_name!r}", attribute, names) from error


def require(module: str, extra: str) -> Any:
    """Import an optional `module`, or raise `MissingExtra` with the line that installs `extra`."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"this needs the package {error.name!r}, which is not installed. "
            f"Type: pip install 'worldloom[{extra}]' -c constraints.txt"
        ) from error


def _attribute(module: str, attribute: str) -> Any:
    return reduce(getattr, attribute.split("."), import_module(module))


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
