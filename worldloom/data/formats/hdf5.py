"""Opening HDF5 files so that a cut or foreign one answers with one line. h5py is optional and imported on use."""

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
    except OSError as error:
        raise UserError(
            f"{path} cannot be read as HDF5 ({_short(error)}); it is cut or damaged: fetch it again"
        ) from error
    with file:
        yield file


def array(group: Any, name: str, where: str) -> np.ndarray:
    """The dataset `name` of an episode's `group`, read whole. Raises `BrokenEpisode` when missing or unreadable."""
    if name not in group:
        raise BrokenEpisode(f"{where} has no {name!r} (it has {', '.join(group) or 'nothing'}); {SKIP}")
    try:
        return np.asarray(group[name][()])
    except (OSError, KeyError, RuntimeError) as error:
        raise BrokenEpisode(f"{where}/{name} cannot be read ({_short(error)}); {SKIP}") from error


def text(value: Any) -> str:
    """A string attribute or element, whichever way the file stored it."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _short(error: Exception) -> str:
    return str(error).strip("'\"").split("\n")[0]
