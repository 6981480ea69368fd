"""Files that are either whole or not there: written under a temporary name beside their place, synced, renamed.

Everything a writer does to the disk passes through here, so that a test can stop it after any single operation.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to. It becomes `path`, durably, when the block ends; on any error it is removed."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        yield temporary
        sync(temporary)
        rename(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    sync(path.parent)


def write_json(path: Path, data: Any) -> None:
    """Replace `path` by `data` as indented JSON. NaN and infinity are refused: they are not JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=4, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def sync(path: Path) -> None:
    """Wait until the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    os.replace(source, target)


def remove(path: Path) -> None:
    """Delete a file, which may be gone already."""
    path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Delete an empty folder."""
    path.rmdir()


def make_folder(path: Path) -> None:
    """Create a folder and its parents, each entry synced into the one above."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)
