"""The files of a dataset, in the order of their names: links are followed, hidden files are not ours."""

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
