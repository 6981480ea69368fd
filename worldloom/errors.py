"""What worldloom says when an input is wrong: one line naming the thing, the value and the fix."""

import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Self


class UserError(ValueError):
    """An input the user can fix. The command line prints its one line and exits with 2, without a traceback."""

    def __init__(self, message: str):
        # What a library said may be part of the message, and may be several lines.
        super().__init__(" ".join(line.strip() for line in message.splitlines()).strip())


class MissingExtra(UserError, ImportError):
    """An optional dependency is not installed; the message holds the exact line to type."""


class NotAllowed(UserError):
    """A `module:attribute` that would be imported, and so run, is named by a file and was not allowed by the user."""

    def __init__(self, what: str, name: str, file: Path | None = None, fix: str = ""):
        self.what, self.name, self.fix = what, name, fix or f"add --allow {name} (in Python: worldloom.allow({name!r}))"
        super().__init__(
            f"{f'{file} names the' if file else 'the'} {what} {name!r}, which was not imported, because importing it "
            f"runs it: if you trust it, {self.fix}"
        )

    def named_in(self, file: Path) -> Self:
        """The same error, saying in which file the name stands."""
        return type(self)(self.what, self.name, file, self.fix)


def origin(error: Exception) -> str:
    """An error of somebody else's code, with the line it came from."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})"


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not registered, offering the nearest right one and the whole list."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {what} {name!r}. {hint}Known: {', '.join(names)}.")
