"""The files of a dataset, in the order of their names: links are followed, hidden files are not ours."""

import hashlib
import os
from pathlib import Path


def files_below(path: Path) -> list[Path]:
    """All files at or below `path` whose names, and whose folders' names, do not begin with a dot.

    Folders that are links are entered, as data version control makes them, and each real folder once.
    """
    if path.is_file():
        return [path]
    found, entered = [], set()
    for folder, folders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in entered else [name for name in folders if not name.startswith(".")]
        found += [] if real in entered else [Path(folder, name) for name in names if not name.startswith(".")]
        entered.add(real)
    return sorted(file for file in found if file.is_file())


def identity(path: Path) -> str:
    """A digest of the names and sizes of all files, and of the content of a dataset's meta/info.json.

    Unlike a fingerprint it stays the same when the files are copied or touched, so a dataset is known again elsewhere.
    """
    info = path / "meta/info.json"
    digest = hashlib.sha256(info.read_bytes() if info.is_file() else b"")
    for file in files_below(path):
        name = file.name if path.is_file() else file.relative_to(path)
        digest.update(f"{name}\0{file.stat().st_size}\n".encode())
    return digest.hexdigest()
