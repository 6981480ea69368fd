"""Folders that are either whole or absent: filled under a hidden name, synced to disk and then renamed.

A kill, a power cut or a full disk at any instant leaves what was there before.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

from worldloom.data import durable
from worldloom.errors import UserError

HIDDEN = ".partial-"


def split_step(name: Path) -> tuple[Path, int | None]:
    """The run and the step that FOLDER@STEP names, None without one; a folder that is really called so is a run."""
    match = re.fullmatch(r"(.+)@([0-9]+)", str(name))
    return (name, None) if match is None or name.exists() else (Path(match[1]), int(match[2]))


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder `path` hold exactly `files`, all or none. Raises `OSError`, having left what was there."""
    partial = path.with_name(HIDDEN + path.name)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            write_and_sync(partial / name, data)
        durable.sync(partial)
        remove_folder(path)
        durable.rename(partial, path)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    durable.sync(path.parent)


def unused(path: Path) -> Path:
    """`path`, or the first of `path`-2, `path`-3 and so on that does not exist."""
    names = chain([path.name], (f"{path.name}-{number}" for number in count(2)))
    return next(folder for folder in map(path.with_name, names) if not folder.exists())


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Hold a run folder, made if need be, for this process alone: the lock dies with it. A folder left empty goes.

    Raises `UserError` when another process trains into it.
    """
    is_new = not run.exists()
    durable.make_folder(run)
    descriptor = os.open(run, os.O_RDONLY)
    try:
        if not _lock(descriptor):
            raise UserError(f"{run}: another process is training into it: wait for it, or choose another --out")
        yield
    finally:
        if is_new and run.is_dir() and not any(run.iterdir()):
            durable.remove_folder(run)
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_and_sync(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    durable.sync(path)


def remove_folder(path: Path) -> None:
    """Remove a folder so that half of it is never seen under its own name."""
    if path.exists():
        hidden = path.with_name(f"{HIDDEN}old-{path.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        durable.rename(path, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def remove_partial(folder: Path) -> None:
    """Clear away what a killed process left unfinished in `folder`."""
    for path in folder.glob(HIDDEN + "*"):
        shutil.rmtree(path, ignore_errors=True)
