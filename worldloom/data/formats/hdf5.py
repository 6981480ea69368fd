"""Reading HDF5 files so that a cut or damaged one answers with one line. h5py is optional and imported on use.

h5py raises many kinds of errors from a damaged file, at any access; so every access passes through here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from worldloom.data.episode import BrokenEpisode
from worldloom.data.formats.columns import SKIP
from worldloom.errors import UserError
from worldloom.registry import require

SUFFIXES = (".hdf5", ".h5", ".hdf")
MAGIC = b"\x89HDF\r\n\x1a\n"
DAMAGE = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError)


def is_hdf5(path: Path) -> bool:
    """True for a file that begins as HDF5 does, whole or cut; needs no h5py."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """The file as an `h5py.File`, read only. Raises `UserError` for one that is missing, cut or not HDF5."""
    h5py = require("h5py", "hdf5")
    try:
        file = h5py.File(path, "r")
    except DAMAGE as error:
        raise UserError(
            f"{path} cannot be read as HDF5 ({_short(error)}); it is cut or damaged: fetch it again"
        ) from error
    with file:
        yield file


def names(group: Any, where: str) -> list[str]:
    """What a group holds. Raises `BrokenEpisode` when that cannot be read."""
    try:
        return list(group)
    except DAMAGE as error:
        raise _broken(where, error) from error


def child(group: Any, name: str, where: str) -> Any:
    """The group or dataset `name` of `group`. Raises `BrokenEpisode` when it is missing or unreadable."""
    try:
        if name in group and group[name] is not None:
            return group[name]
        held = ", ".join(group) or "nothing"
    except DAMAGE as error:
        raise _broken(f"{where}/{name}", error) from error
    raise BrokenEpisode(f"{where} has no {name!r} (it has {held}); {SKIP}")


def array(group: Any, name: str, where: str) -> np.ndarray:
    """The dataset `name` of an episode's `group`, read whole. Raises `BrokenEpisode` when missing or unreadable."""
    found = child(group, name, where)
    try:
        return np.asarray(found[()])
    except DAMAGE as error:
        raise _broken(f"{where}/{name}", error) from error


def optional(group: Any, name: str, where: str) -> np.ndarray | None:
    """The dataset `name`, or None when there is none. Raises `BrokenEpisode` when it is there and unreadable."""
    try:
        there = name in group and hasattr(group[name], "shape")
    except DAMAGE as error:
        raise _broken(f"{where}/{name}", error) from error
    return array(group, name, where) if there else None


def shape_of(dataset: Any, where: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a dataset, not read. Raises `BrokenEpisode` for what is no dataset."""
    try:
        return tuple(dataset.shape), np.dtype(dataset.dtype)
    except DAMAGE as error:
        raise _broken(where, error) from error


def attributes(item: Any, where: str) -> dict[str, Any]:
    """The attributes, texts as `str`. Raises `BrokenEpisode` when they cannot be read."""
    try:
        return {name: text(value) if isinstance(value, bytes | str) else value for name, value in item.attrs.items()}
    except DAMAGE as error:
        raise _broken(f"{where}, attributes", error) from error


def text(value: Any) -> str:
    """A string attribute or element, whichever way the file stored it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _broken(where: str, error: Exception) -> BrokenEpisode:
    return BrokenEpisode(f"{where} cannot be read ({_short(error)}); {SKIP}")


def _short(error: Exception) -> str:
    return " ".join(str(error).strip("'\"").split())
