"""results/must_show.json: the figures that an issue asks for, each with its target, command and file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .page import Table, measured, yes

TEXT = ("issue_title", "name", "command", "file")
NUMBERS = ("value", "low", "high")  # `low` and `high` are null where there is no interval
KEYS = (*TEXT, *NUMBERS, "target", "reached")


def check(rows: Any, root: Path) -> None:
    """Raises ValueError, naming the row and the fix, unless `rows` are as `acceptance` shows them.

    `file` is a file of results/, or the path of a test, both from `root`.
    """
    if not isinstance(rows, list):
        raise ValueError(f"must_show.json holds {type(rows).__name__}; write a list of rows")
    for index, row in enumerate(rows):
        for fault in faults(row, root):
            raise ValueError(f"must_show.json, row {index}: {fault}")


def faults(row: Any, root: Path) -> list[str]:
    """What is wrong with one row, in words."""
    if not isinstance(row, dict) or set(row) != set(KEYS):
        return [f"needs exactly the keys {', '.join(KEYS)}; has {sorted(row) if isinstance(row, dict) else row!r}"]
    found = [f"{key} is {row[key]!r}; write a text" for key in TEXT if not (isinstance(row[key], str) and row[key])]
    found += [f"{key} is {row[key]!r}; write a number" for key in NUMBERS if not numeric(row[key], key != "value")]
    if not isinstance(row["target"], int | float | str) or isinstance(row["target"], bool):
        found.append(f"target is {row['target']!r}; write a number, or a text with its unit")
    if not isinstance(row["reached"], bool):
        found.append(f"reached is {row['reached']!r}; write true or false")
    if not found and not exists(row["file"], root):
        found.append(f"file {row['file']!r} does not exist; name a file of results/ or a test")
    return found


def numeric(value: Any, may_be_null: bool) -> bool:
    return (value is None and may_be_null) or (isinstance(value, int | float) and not isinstance(value, bool))


def exists(file: str, root: Path) -> bool:
    """Whether `file` is a file of results/ (with or without the folder), or a test (`tests/x.py::test_y`)."""
    path = file.split("::")[0]
    return (root / "results" / path).is_file() or (path.startswith(("results/", "tests/")) and (root / path).is_file())


def acceptance(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table; a sentence where there are none."""
    if not rows:
        return "No figure is listed yet."
    columns = ("issue", "figure", "value", "target", "reached", "command", "file")
    cells = [
        (r["issue_title"], r["name"], interval(r), aim(r["target"]), yes(r["reached"]), f"`{r['command']}`", link(r))
        for r in rows
    ]
    return str(Table(columns, cells))


def interval(row: Mapping[str, Any]) -> str:
    value = measured(row["value"])
    return value if row["low"] is None else f"{value} [{measured(row['low'])}, {measured(row['high'])}]"


def aim(target: float | str) -> str:
    return target if isinstance(target, str) else measured(target)


def link(row: Mapping[str, Any]) -> str:
    path = row["file"].split("::")[0]
    return f"[`{row['file']}`](../{path if '/' in path else f'results/{path}'})"
