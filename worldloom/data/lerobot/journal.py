"""The journal of a dataset being written: finished episodes one file each, later folded into LeRobot's big files.

An episode is `.journal/NNNNNN.parquet` (and an mp4 per camera stored as video), renamed into place when it is complete.
`fold` moves episodes, a file's worth at a time, into data/, videos/ and meta/. New files never touch old ones; the
replacement of meta/info.json is the commit, and only then are the episodes' journal files deleted. So a crash at any
instant leaves either the journal or the dataset whole, and folding again finishes the work.
"""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from worldloom.data import durable
from worldloom.errors import UserError

FOLDER, HEAD, LOCK, FACTS = ".journal", "info.json", "lock", b"worldloom"


@dataclass(frozen=True)
class Entry:
    """One finished episode in the journal: its parquet, and its mp4 per video feature."""

    number: int
    path: Path
    videos: dict[str, Path]

    def sizes(self) -> dict[str, int]:
        """Bytes of the rows (under "") and of each video."""
        return {"": self.path.stat().st_size, **{f: p.stat().st_size for f, p in self.videos.items()}}

    def delete(self) -> None:
        for path in (self.path, *self.videos.values()):
            durable.remove(path)

    def read(self) -> pa.Table:
        """The rows, with the facts (task, statistics) as JSON in the schema's metadata. Raises `UserError`."""
        try:
            return pq.read_table(self.path)
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{self.path}: this finished episode cannot be read ({error}). Delete that file."
            ) from error


class Journal:
    """The `.journal` folder of one dataset."""

    def __init__(self, root: Path):
        self.root = root
        self.folder = root / FOLDER

    @property
    def head(self) -> dict[str, Any] | None:
        """info.json as it was when recording began, before any episode was folded; None if nothing was recorded."""
        path = self.folder / HEAD
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except ValueError as error:
            raise UserError(f"{path}: is not JSON ({error}). Restore it, or delete {self.folder}.") from error

    def entries(self, video_features: list[str]) -> list[Entry]:
        """The finished episodes in the order of their numbers, some of which may be missing."""
        paths = {int(path.stem): path for path in self.folder.glob("[0-9]*.parquet")}
        return [Entry(n, paths[n], {f: self.video_path(n, f) for f in video_features}) for n in sorted(paths)]

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"

    def video_path(self, number: int, feature: str) -> Path:
        return self.folder / f"{number:06d}.{feature}.mp4"

    def clear(self, keep_lock: bool) -> None:
        """Delete the journal, the head last: without it there is nothing left to recover."""
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir(), key=lambda p: p.name == HEAD):
            if not (keep_lock and path.name == LOCK):
                durable.remove(path)
        if not keep_lock:
            durable.remove_folder(self.folder)


def lock(root: Path) -> int | None:
    """Claim a dataset for writing: a file descriptor to close when done, or None when a living process has it."""
    path = root / FOLDER / LOCK
    while True:
        durable.make_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        # Its writer may have finished, and deleted the file, between our opening and locking it.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
        os.close(descriptor)
