"""Long arrays in a file, read a slice at a time: `.npz` members and HDF5 datasets behind one face.

A visual OGBench file holds 12 GB of pictures in one compressed member, so a member is never loaded whole: its zip
stream is read forward as episodes are asked for in order, and started over when one is asked for out of order.
"""

import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from worldloom.data.formats.hdf5 import DAMAGE, is_hdf5, open_hdf5
from worldloom.errors import UserError

# What zipfile, zlib and numpy's header reader raise from damaged bytes.
ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
)


class Arrays(ABC):
    """Named arrays of one file. `shapes` and `types` are known on opening."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, np.dtype]

    @abstractmethod
    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Entries `start` to `stop` (default: all). Raises `OSError` when the file is damaged there."""


class HDF5Arrays(Arrays):
    """The datasets of an HDF5 file, those in groups under `group/name`."""

    def __init__(self, path: Path):
        self.path = path
        self.shapes, self.types = {}, {}
        with open_hdf5(path) as file:
            try:
                file.visititems(self._note)
            except DAMAGE as error:
                raise UserError(f"{path} cannot be read as HDF5 ({error}); it is damaged: fetch it again") from error

    def _note(self, name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            self.shapes[name], self.types[name] = item.shape, item.dtype

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        with open_hdf5(self.path) as file:
            try:
                return np.asarray(file[name][start:stop])
            except DAMAGE as error:
                raise OSError(str(error)) from error


class NpzArrays(Arrays):
    """The members of an `.npz` file. Raises `UserError` for one that is cut, no zip, or holds pickled objects."""

    def __init__(self, path: Path):
        self.path = path
        self.shapes, self.types = {}, {}
        self.streams: dict[str, tuple[IO[bytes], int]] = {}
        try:
            self.zip = zipfile.ZipFile(path)
            for member in self.zip.namelist():
                if member.endswith(".npy"):
                    self._open(member.removesuffix(".npy"))
        except UserError:
            raise
        except ZIP_DAMAGE as error:
            raise UserError(f"{path} cannot be read as npz ({error}); it is cut or damaged: fetch it again") from error

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        shape, dtype = self.shapes[name], self.types[name]
        start, stop, _ = slice(start, stop).indices(shape[0] if shape else 0)
        row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
        stream, begin = self.streams[name]
        try:
            stream.seek(begin + start * row_bytes)
            data = stream.read((stop - start) * row_bytes)
        except ZIP_DAMAGE as error:
            raise OSError(str(error)) from error
        if len(data) < (stop - start) * row_bytes:
            raise OSError(f"it ends at row {start + len(data) // max(row_bytes, 1)} of {shape[0]}")
        return np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])

    def _open(self, name: str) -> None:
        stream = self.zip.open(name + ".npy")
        major, _ = npy.read_magic(stream)
        header = npy.read_array_header_1_0(stream) if major == 1 else npy.read_array_header_2_0(stream)
        shape, fortran, dtype = header
        if dtype.hasobject:
            raise UserError(f"{self.path}: {name!r} holds pickled Python objects, which are never loaded; save numbers")
        if fortran and len(shape) > 1:
            raise UserError(f"{self.path}: {name!r} is stored column by column; save it with np.ascontiguousarray")
        self.shapes[name], self.types[name] = shape, dtype
        self.streams[name] = stream, stream.tell()


def open_arrays(path: Path) -> Arrays:
    """The file's arrays, by what the file is."""
    return HDF5Arrays(path) if is_hdf5(path) else NpzArrays(path)
