"""Where the actions of a dream come from: the recording, a random draw, or a file in the data's own units.

N actions, A action size.
"""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldloom.data.spec import ActionSpec, one_hot
from worldloom.errors import UserError, unknown


def random_actions(spec: ActionSpec, count: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform over the action space, in model units: float32 `[N, A]`."""
    if spec.kind == "discrete":
        return one_hot(rng.integers(spec.size, size=count), spec.size)
    return spec.chosen(rng.uniform(-1, 1, (count, spec.size)))


def read_actions(path: Path, spec: ActionSpec) -> np.ndarray:
    """A file of actions in model units, float32 `[N, A]`.

    `.npy`, `.csv` (a header line is skipped), `.json` (a list) or `.jsonl` (one action per line, bare or as
    `{"action": ...}`). A continuous action is A numbers in the data's own units; a discrete one is its index, its name,
    or a one-hot row. Raises `UserError` naming the file and the row.
    """
    if path.suffix not in READERS:
        raise unknown("kind of action file", path.suffix or path.name, READERS)
    if not path.exists():
        raise UserError(f"{path}: there is no such file of actions. Or use --actions recorded or --actions random.")
    try:
        rows = READERS[path.suffix](path)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as actions ({error}).") from error
    if not rows:
        raise UserError(f"{path}: holds no actions.")
    convert = _one_hot if spec.kind == "discrete" else _vector
    return np.stack([convert(row, spec, f"{path}, row {i}") for i, row in enumerate(rows)]).astype(np.float32)


def _read_npy(path: Path) -> list[Any]:
    array = np.load(path, allow_pickle=False)
    if array.ndim not in (1, 2):
        raise ValueError(f"shape {array.shape}, want [N] or [N, A]")
    return array.tolist()


def _read_csv(path: Path) -> list[Any]:
    lines = csv.reader(path.read_text(encoding="utf-8").splitlines())
    rows = [[_number(cell) for cell in line] for line in lines if line]
    # A header is a line of words over lines of numbers; discrete actions may themselves be words.
    numbers_below = len(rows) > 1 and not any(isinstance(cell, str) for cell in rows[1])
    return rows[1:] if numbers_below and all(isinstance(cell, str) for cell in rows[0]) else rows


def _read_json(path: Path) -> list[Any]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise ValueError(f"want a list of actions, got {type(rows).__name__}")
    return rows


def _read_jsonl(path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"row {number} is not JSON: {error}") from error
            rows.append(row["action"] if isinstance(row, dict) and "action" in row else row)
    return rows


READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".npy": _read_npy, ".csv": _read_csv, ".json": _read_json, ".jsonl": _read_jsonl,
}  # fmt: skip


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell.strip()


def _vector(row: Any, spec: ActionSpec, where: str) -> np.ndarray:
    values = row if isinstance(row, Sequence) and not isinstance(row, str) else [row]
    if len(values) != spec.size:
        raise UserError(f"{where}: has {len(values)} numbers, an action has {spec.size}{_named(spec)}.")
    try:
        vector = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        raise UserError(f"{where}: {row!r} is not {spec.size} numbers.") from None
    if not np.isfinite(vector).all():
        raise UserError(f"{where}: {row!r} is not finite.")
    if spec.low is not None and spec.high is not None:
        low, high = np.array(spec.low), np.array(spec.high)
        slack = 1e-5 * np.maximum(1, np.abs(high - low))
        outside = np.flatnonzero((vector < low - slack) | (vector > high + slack))
        if len(outside):
            d = int(outside[0])
            raise UserError(
                f"{where}: number {d} is {vector[d]:g}, outside {spec.low[d]:g} to {spec.high[d]:g}. "
                "Actions are in the data's own units."
            )
    return spec.scale(vector)


def _one_hot(row: Any, spec: ActionSpec, where: str) -> np.ndarray:
    if isinstance(row, Sequence) and not isinstance(row, str):
        if len(row) == spec.size > 1:
            return _checked_one_hot(row, where)
        if len(row) != 1:
            raise UserError(f"{where}: has {len(row)} entries, want one index or {spec.size} one-hot numbers.")
        row = row[0]
    if isinstance(row, str):
        if row not in (spec.names or ()):
            raise unknown(f"action in {where}", row, spec.names or ())
        row = (spec.names or ()).index(row)
    if not isinstance(row, int | float) or row != row or int(row) != row or not 0 <= row < spec.size:
        raise UserError(f"{where}: {row!r} is no index from 0 to {spec.size - 1}{_named(spec)}.")
    return one_hot(np.array(int(row)), spec.size)


def _checked_one_hot(row: Sequence[Any], where: str) -> np.ndarray:
    try:
        ordered = sorted(map(float, row))
    except (TypeError, ValueError):
        ordered = []
    if ordered != [0.0] * (len(row) - 1) + [1.0]:
        raise UserError(f"{where}: {list(row)!r} is not one-hot.")
    return np.array(row, np.float32)


def _named(spec: ActionSpec) -> str:
    return f" ({', '.join(spec.names)})" if spec.names else ""
