"""From the arrays of a foreign file to the columns of an `Episode`: checked, typed, aligned. Used by every importer.

n steps (actions taken), T rows, A action size, D vector size, C H W image channels, height, width.

A foreign file counts steps: action t led to reward t. An `Episode` counts rows: row t is what was known at t and then
the action. So with n steps, `actions` go to rows 0 to n-1 and `rewards` to rows 1 to n; when the file lacks the
observation after the last action (T = n), that action and its reward have no row to show their effect in, and are left
out.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldloom.data.episode import BrokenEpisode
from worldloom.data.spec import HUGE, ActionSpec, KeySpec
from worldloom.data.spec import one_hot as encoded
from worldloom.data.validate import check_action
from worldloom.errors import UserError

LARGEST_VECTOR = 4096
SMALLEST_IMAGE = 8
ASSUMED_FPS = 20.0
SKIP = "fix the file, or leave this episode out with --skip-broken"


def key_spec(shape: tuple[int, ...], dtype: np.dtype) -> KeySpec | None:
    """How one row of `shape` is kept: uint8 `(H, W)`, `(H, W, C)` or `(C, H, W)` with sides of at least 8 as an image,
    other numbers flattened to a vector, None (leave it out) for more than 4,096 numbers and for what is not a number.
    """
    if dtype == np.uint8 and (image := image_shape(shape)):
        return KeySpec("image", image)
    size = int(np.prod(shape))
    if dtype.kind not in "fiub" or not 0 < size <= LARGEST_VECTOR:
        return None
    return KeySpec("vector", (size,))


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """`(C, H, W)` of a row that holds a grey or RGB picture, else None."""
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3:
        return None
    if shape[2] not in (1, 3) and shape[0] in (1, 3):
        shape = (shape[1], shape[2], shape[0])
    height, width, channels = shape
    return (channels, height, width) if channels in (1, 3) and min(height, width) >= SMALLEST_IMAGE else None


def observation(rows: np.ndarray, spec: KeySpec, where: str) -> np.ndarray:
    """`rows` `[T, ...]` as an image column uint8 `[T, C, H, W]` or a vector column float32 `[T, D]`.

    Raises `BrokenEpisode` when a row has another shape or type than `spec`, or a vector holds a value that is not
    finite.
    """
    if spec.kind == "image":
        return _images(rows, spec, where)
    size = int(np.prod(rows.shape[1:]))
    if size != spec.shape[0]:
        raise BrokenEpisode(f"{where} holds {size} numbers per row instead of {spec.shape[0]}; {SKIP}")
    return finite(rows.reshape(len(rows), size), where)


def _images(rows: np.ndarray, spec: KeySpec, where: str) -> np.ndarray:
    if rows.dtype != np.uint8 or image_shape(rows.shape[1:]) != spec.shape:
        raise BrokenEpisode(
            f"{where} holds {rows.dtype} pictures of {rows.shape[1:]} where the dataset's are uint8 {spec.shape} "
            f"(channels, height, width); {SKIP}"
        )
    if rows.shape[1:] == spec.shape:
        return rows
    return np.ascontiguousarray(rows.reshape(len(rows), *spec.shape[1:], spec.shape[0]).transpose(0, 3, 1, 2))


def finite(values: np.ndarray, where: str) -> np.ndarray:
    """`values` as float32, after checking that every one of them is a finite number."""
    if values.dtype.kind not in "fiub":
        raise BrokenEpisode(f"{where} holds {values.dtype} where numbers belong; {SKIP}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise BrokenEpisode(f"{where}, row {bad[0][0]}, is {values[tuple(bad[0])]}; {SKIP}")
    return values


def actions(steps: np.ndarray, rows: int, spec: ActionSpec, where: str) -> np.ndarray:
    """The actions `[n]` or `[n, ...]` of an episode of `rows` T rows, as `[T, A]` with zeros in the last row.

    Discrete choices come as integers from 0. Raises `BrokenEpisode` for a value that is not finite or outside the
    range.
    """
    column = np.zeros((rows, spec.size), np.float32)
    column[: rows - 1] = (
        one_hot(steps[: rows - 1], spec.size, where)
        if spec.kind == "discrete"
        else _continuous(steps[: rows - 1], spec, where)
    )
    return column


def one_hot(choices: np.ndarray, size: int, where: str) -> np.ndarray:
    """Integers `[n]` or `[n, 1]` in 0 to size - 1 as float32 `[n, size]`."""
    choices = finite(flat(choices)[:, 0], where)
    bad = np.flatnonzero((choices != np.round(choices)) | (choices < 0) | (choices >= size))
    if len(bad):
        raise BrokenEpisode(f"{where}, row {bad[0]}, is {choices[bad[0]]:g}, which is none of 0 to {size - 1}; {SKIP}")
    return encoded(choices.astype(int), size)


def _continuous(steps: np.ndarray, spec: ActionSpec, where: str) -> np.ndarray:
    steps = flat(steps)
    if steps.shape[1] != spec.size:
        raise BrokenEpisode(f"{where} holds {steps.shape[1]} numbers per row instead of {spec.size}; {SKIP}")
    steps = finite(steps, where)
    check_action(steps, spec, where)
    return steps


def rewards(steps: np.ndarray, rows: int, where: str) -> np.ndarray:
    """Rewards `[n]` or `[n, 1]` that followed each action, as float32 `[T]` in the row they arrived with: one later."""
    column = np.zeros(rows, np.float32)
    column[1:] = finite(flat(steps)[: rows - 1, 0], where)
    return column


def flat(values: np.ndarray) -> np.ndarray:
    """`[n, ...]` as `[n, size]`, for n = 0 too."""
    return values.reshape(len(values), int(np.prod(values.shape[1:])))


def at_end(rows: int, value: bool) -> np.ndarray:
    """A flag `[T]` that can be true in the last row only."""
    column = np.zeros(rows, bool)
    column[-1] = value
    return column


def declared_range(low: Any, high: Any) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """The bounds of an action as tuples, or None and None where one of them is so large that it means none: then the
    data must tell.
    """
    low, high = np.ravel(np.asarray(low, float)), np.ravel(np.asarray(high, float))
    if not (np.abs(np.concatenate([low, high])) < HUGE).all():
        return None, None
    return tuple(map(float, low)), tuple(map(float, high))


def file_digest(files: Iterable[Path], *facts: Any) -> str:
    """A hex digest of the names, sizes and times of `files` and of any JSON-able `facts`."""
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files)]
    return hashlib.sha256(json.dumps([stats, facts], default=str).encode()).hexdigest()[:32]


def read_json(text: str | bytes, where: str) -> Any:
    """`text` parsed, or a `UserError` that says where it stopped making sense."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({error}); fetch the dataset again") from error


def resize(column: np.ndarray, image_size: tuple[int, int] | None) -> np.ndarray:
    """An image column at `(height, width)`, area-averaged by Pillow's box filter; vectors pass through."""
    if image_size is None or column.ndim != 4 or column.shape[2:] == tuple(image_size):
        return column
    height, width = image_size
    small = np.empty((*column.shape[:2], height, width), np.uint8)
    for t, image in enumerate(column):
        for c, channel in enumerate(image):
            small[t, c] = Image.fromarray(channel).resize((width, height), Image.Resampling.BOX)
    return small
