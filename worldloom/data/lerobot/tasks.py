"""The language task of each episode: from its own row of metadata, or else from the task_index of its data rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldloom.data.lerobot.row_index import data_files


def tasks_of(path: Path, rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The tasks of the episodes that `rows` describe, in order; an empty list where there is none."""
    found = [_told(row.get("tasks")) for row in rows]
    if all(found):
        return found
    by_row = _tasks_in_rows(path)
    return [tasks or by_row.get(row["episode_index"], []) for tasks, row in zip(found, rows, strict=True)]


def not_represented(tasks: Sequence[Sequence[str]]) -> list[str]:
    """What is lost of episodes with several tasks: an episode has one here."""
    several = sum(len(each) > 1 for each in tasks)
    which = "1 episode" if several == 1 else f"{several:,} episodes"
    return [f"all but the first task of {which} with several"] if several else []


def _told(tasks: Any) -> list[str]:
    """A list of texts as LeRobot writes it, or one text."""
    told = [tasks] if isinstance(tasks, str) else list(tasks) if isinstance(tasks, list | tuple) else []
    return [str(task) for task in told if task]


def _tasks_in_rows(path: Path) -> dict[int, list[str]]:
    """Of each episode, in the order in which its rows tell them. Empty where no row tells a task by a known number."""
    names = _names(path / "meta")
    found: dict[int, list[str]] = {}
    for file in data_files(path / "data") if names else ():
        try:
            table = pq.read_table(file, columns=["episode_index", "task_index"])
            columns = [table[name].to_numpy() for name in ("episode_index", "task_index")]
        except (pa.ArrowException, OSError, KeyError):
            continue  # a broken file is reported when one of its episodes is read
        pairs, first = np.unique(np.stack(columns, 1), axis=0, return_index=True)
        for episode, task in pairs[np.argsort(first)].tolist():
            told = found.setdefault(int(episode), [])
            told += [names[task]] if task in names and names[task] not in told else []
    return found


def _names(meta: Path) -> dict[int, str]:
    """meta/tasks.parquet: numbers and texts, the latter under an index of pandas where LeRobot wrote it."""
    try:
        table = pq.read_table(meta / "tasks.parquet")
        texts = next(name for name in table.column_names if name != "task_index")
        return dict(zip(table["task_index"].to_pylist(), map(str, table[texts].to_pylist()), strict=True))
    except (pa.ArrowException, OSError, KeyError, StopIteration):
        return {}
