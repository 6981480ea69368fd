"""From LeRobot's rows (v3.0 and v2.1 alike) to an `Episode`, with every doubt about them raised.

T rows, D vector size, A action size, C H W image channels, height, width.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from worldloom.data.episode import BrokenEpisode, Episode
from worldloom.data.formats.columns import observation, resize
from worldloom.data.lerobot.features import ACTION_MASK, SCALARS, Layout, is_choice
from worldloom.data.spec import MASK, KeySpec, one_hot
from worldloom.data.validate import EXTRA_DTYPES, check_action, check_finite

SKIP = "Restore it, or leave the episode out with --skip-broken."
FRAME = "frame_index"
FAR, LEVELS = 1e5, 64  # closer to 0, or with more values within the range, a sensor's own noise is larger
SHORT_FOR = {"i": np.int64, "u": np.int64, "f": np.float32}  # what a signal of another width is read as
Frames = Callable[[str, np.ndarray], np.ndarray]  # (feature, timestamps [T]) to uint8 [T, C, H, W]


def read_columns(path: Path, columns: list[str], where: str) -> pa.Table:
    """Columns of a whole parquet file; raises `BrokenEpisode` naming the file and what is wrong with it."""
    if not path.exists():
        raise BrokenEpisode(f"{where}: the file is missing. {SKIP}")
    try:
        names = pq.read_schema(path).names
        check_names(names, columns, where)
        return pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise BrokenEpisode(
            f"{where}: cannot be read, it is truncated or not a parquet file ({error}). {SKIP}"
        ) from error


def check_names(found: list[str], wanted: list[str], where: str) -> None:
    for name in wanted:
        if name not in found:
            raise BrokenEpisode(
                f"{where}: the column {name!r} of info.json is missing; there are {', '.join(found)}. {SKIP}"
            )


def in_order(table: pa.Table) -> pa.Table:
    """The rows of an episode by their frame_index; numbers that are absent or repeat say nothing of the order."""
    if FRAME not in table.column_names:
        return table
    frames = table[FRAME].to_numpy(zero_copy_only=False)
    if (np.diff(frames) > 0).all() or len(np.unique(frames)) < len(frames):
        return table
    return table.take(pa.array(np.argsort(frames)))


def episode_of(
    table: pa.Table, layout: Layout, task: str, where: str, image_size: tuple[int, int] | None, frames: Frames
) -> Episode:
    """The rows of one episode, checked and aligned. `frames` decodes a camera stored as video.

    With `terminal_rows` (our recordings) the last row is the terminal observation. A foreign episode ends where its
    data ends: nothing was seen of its end, so its last row is truncated, whatever next.done says.
    """
    length = len(table)
    if length == 0:
        raise BrokenEpisode(f"{where}: has 0 rows. {SKIP}")
    times = _timestamps(table, layout, where)
    obs = {}
    for key, feature in layout.obs.items():
        if layout.stored_as(feature) == "video":
            obs[key] = frames(feature, times)
        elif layout.stored_as(feature) == "image":
            obs[key] = _pictures(table[feature], layout.spec.keys[key].shape, image_size, f"{where}, {feature}")
        elif layout.spec.keys[key].kind == "image":
            values = numbers(table[feature], layout.features[feature], f"{where}, {feature}")
            rows = values.reshape(length, *layout.features[feature]["shape"])
            obs[key] = resize(observation(rows, layout.spec.keys[key], f"{where}, {feature}"), image_size)
        else:
            obs[key] = _array(table, layout, feature, layout.spec.keys[key], where)
    for name, feature in layout.masks.items():
        shape = layout.spec.keys[name.removesuffix(MASK)].mask_shape
        obs[name] = _mask(table, layout, feature, where).reshape(length, *shape)
    ended, cut = _ends(table, layout, where)
    return Episode(
        obs=obs,
        action=_action(table, layout, where),
        reward=_reward(table, layout, where),
        terminated=ended,
        truncated=cut,
        task=task,
        extra={name: _extra(table, layout, name, where) for name in layout.extra},
        action_mask=_mask(table, layout, ACTION_MASK, where)[:, 0] if layout.spec.action.masked else None,
    )


def _array(table: pa.Table, layout: Layout, feature: str, key: KeySpec, where: str) -> np.ndarray:
    """A feature as its key has it; a plain vector where nothing else is declared."""
    if key.kind == "text":
        return np.array(["" if words is None else str(words) for words in table[feature].to_pylist()])
    values = _vector(table, layout, feature, where)
    return values if key.kind == "vector" else values.reshape(len(values), *key.shape).astype(key.dtype)


def _mask(table: pa.Table, layout: Layout, feature: str, where: str) -> np.ndarray:
    """`[T, N]` bool."""
    return numbers(table[feature], layout.features[feature], f"{where}, {feature}") != 0


def _reward(table: pa.Table, layout: Layout, where: str) -> np.ndarray:
    """Rewards moved to the rows they arrived with: nothing arrived with the first, and the last has no row."""
    reward = np.zeros(len(table), np.float32)
    if layout.reward:
        reward[1:] = _vector(table, layout, layout.reward, where)[:-1, 0]
    return reward


def _extra(table: pa.Table, layout: Layout, name: str, where: str) -> np.ndarray:
    """A further signal on its own row, next.success and its like too: moved, a flag on the last row would be lost."""
    feature = layout.extra[name]
    values = numbers(table[feature], layout.features[feature], f"{where}, {feature}")[:, 0]
    check_finite(values, f"{where}, {feature}")
    return values if values.dtype.name in EXTRA_DTYPES else values.astype(SHORT_FOR[values.dtype.kind])


def _ends(table: pa.Table, layout: Layout, where: str) -> tuple[np.ndarray, np.ndarray]:
    terminated, truncated = np.zeros(len(table), bool), np.zeros(len(table), bool)
    if not layout.terminal_rows:
        truncated[-1] = True
        return terminated, truncated
    flags = {}
    for name in ("next.done", "next.truncated"):
        flags[name] = numbers(table[name], layout.features[name], f"{where}, {name}")[:, 0].astype(bool)
        if flags[name][:-1].any():
            raise BrokenEpisode(f"{where}, row {flags[name].argmax()}: {name} before the last row. {SKIP}")
    truncated[-1] = flags["next.truncated"][-1]
    terminated[-1] = flags["next.done"][-1] and not truncated[-1]
    return terminated, truncated


def _action(table: pa.Table, layout: Layout, where: str) -> np.ndarray:
    spec = layout.spec.action
    if spec.size == 0:
        return np.zeros((len(table), 0), np.float32)
    where = f"{where}, action"
    parts = [numbers(table[name], layout.features[name], f"{where}, {name}") for name in layout.actions]
    values = parts[0] if len(parts) == 1 else np.concatenate([part.astype(np.float32) for part in parts], 1)
    if spec.kind == "discrete" and is_choice(layout.features[layout.actions[0]]):
        choice = values[:, 0].astype(np.int64) - layout.first_choice
        outside = (choice < 0) | (choice >= spec.size)
        if outside.any():
            row = int(outside.argmax())
            first, found = layout.first_choice, values[row, 0]
            raise BrokenEpisode(
                f"{where}, row {row}: choice {found} is outside {first} to {first + spec.size - 1}. {SKIP}"
            )
        return one_hot(choice, spec.size)
    action = values.astype(np.float32)
    check_finite(action, where)
    padded = layout.terminal_rows or not action[-1].any()
    check_action(action[:-1] if padded else action, spec, where.removesuffix(", action"))
    return action


def _vector(table: pa.Table, layout: Layout, feature: str, where: str) -> np.ndarray:
    """A numeric feature as float32 `[T, D]`."""
    exact = numbers(table[feature], layout.features[feature], f"{where}, {feature}")
    values = exact.astype(np.float32)
    check_finite(values, f"{where}, {feature}")
    if feature not in layout.beyond_float32 and loses_digits(exact):
        layout.beyond_float32.append(feature)
    return values


def loses_digits(values: np.ndarray) -> bool:
    """Whether a column of 64-bit numbers `[T, D]` is so far from 0 that float32 has few values within its range."""
    if values.dtype.itemsize < 8 or not len(values):
        return False
    low, high = values.min(0).astype(np.float64), values.max(0).astype(np.float64)
    largest = np.maximum(np.abs(low), np.abs(high))
    return bool(((largest > FAR) & (high > low) & (high - low < LEVELS * np.spacing(largest.astype(np.float32)))).any())


def _timestamps(table: pa.Table, layout: Layout, where: str) -> np.ndarray:
    """Seconds `[T]` float64, which must grow from row to row; made from the frame rate where the column is absent."""
    if "timestamp" not in layout.features:
        return np.arange(len(table)) / layout.spec.fps
    times = numbers(table["timestamp"], layout.features["timestamp"], f"{where}, timestamp")[:, 0].astype(np.float64)
    check_finite(times, f"{where}, timestamp")
    times = _from_zero(times, layout.spec.fps)
    steps = np.diff(times)
    if (steps <= 0).any():
        row = int((steps <= 0).argmax()) + 1
        what = "repeats" if times[row] == times[row - 1] else "goes back"
        raise BrokenEpisode(
            f"{where}, row {row}: the timestamp {what}, {times[row]:.4f} s after {times[row - 1]:.4f} s. {SKIP}"
        )
    return times


def _from_zero(times: np.ndarray, fps: float) -> np.ndarray:
    """Seconds since the first row, of a clock that began elsewhere: by the rate where float32 is too coarse for it."""
    if len(times) < 2 or times[0] < 1:
        return times
    coarse = np.spacing(np.float32(times[-1])) > 0.1 / fps
    return np.arange(len(times)) / fps if coarse else times - times[0]


def numbers(column: pa.ChunkedArray, feature: dict[str, Any], where: str) -> np.ndarray:
    """A scalar or (nested) list column as `[T, D]` in its own dtype. Raises on nulls, wrong lengths or dtypes."""
    size, length = int(np.prod(feature["shape"])), len(column)
    array = column.combine_chunks()
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    if array.null_count:
        row = pc.index(array.is_null(), True).as_py()
        raise BrokenEpisode(f"{where}, row {row}: the value is missing (null). {SKIP}")
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        _check_lengths(array, feature["shape"][0], where)
    while hasattr(array, "flatten") and not pa.types.is_struct(array.type) and pa.types.is_nested(array.type):
        array = array.flatten()
    values = array.type
    if not (pa.types.is_integer(values) or pa.types.is_floating(values) or pa.types.is_boolean(values)):
        raise BrokenEpisode(f"{where}: the column holds {values}, info.json says {feature['dtype']}. {SKIP}")
    if pa.types.is_floating(values) and feature["dtype"] in SCALARS and "float" not in feature["dtype"]:
        raise BrokenEpisode(f"{where}: the column holds {values}, info.json says {feature['dtype']}. {SKIP}")
    if array.null_count or len(array) != length * size:
        raise BrokenEpisode(
            f"{where}: {len(array)} values in {length} rows, info.json says shape {feature['shape']}. {SKIP}"
        )
    return array.to_numpy(zero_copy_only=False).reshape(length, size)


def _check_lengths(array: pa.Array, wanted: int, where: str) -> None:
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    if (lengths != wanted).any():
        row = int((lengths != wanted).argmax())
        raise BrokenEpisode(f"{where}, row {row}: has {lengths[row]} entries, info.json says {wanted}. {SKIP}")


def _pictures(
    column: pa.ChunkedArray, shape: tuple[int, ...], image_size: tuple[int, int] | None, where: str
) -> np.ndarray:
    """Encoded images to uint8 `[T, C, H, W]`, box-filtered to `image_size` if given."""
    if not pa.types.is_struct(column.type) or column.type.get_field_index("bytes") < 0:
        raise BrokenEpisode(f"{where}: the column holds {column.type}, not encoded images. {SKIP}")
    files = column.combine_chunks().field("bytes")
    height, width = image_size or shape[1:]
    pictures = np.empty((len(files), shape[0], height, width), np.uint8)
    for row, file in enumerate(files):
        pictures[row] = _picture(file.as_py(), shape, (height, width), f"{where}, row {row}")
    return pictures


def is_deep(image: Image.Image) -> bool:
    """Whether its pixels do not fit into uint8, as those of depth in millimetres."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def deep_features(files: Sequence[Path], features: dict[str, Any]) -> list[str]:
    """The features of one channel whose first picture in the first of `files` has more than 8 bits."""
    found = []
    for name, feature in features.items():
        if feature["dtype"] != "image" or 1 not in feature["shape"] or not files:
            continue
        with contextlib.suppress(pa.ArrowException, OSError, LookupError, SyntaxError, ValueError, TypeError):
            first = next(pq.ParquetFile(files[0]).iter_batches(1, columns=[name]), None)
            with Image.open(io.BytesIO(first.to_pylist()[0][name]["bytes"])) as image:  # type: ignore[union-attr]
                found += [name] if is_deep(image) else []
    return found


def _picture(file: bytes | None, shape: tuple[int, ...], size: tuple[int, int], where: str) -> np.ndarray:
    if file is None:
        raise BrokenEpisode(f"{where}: the image is missing. {SKIP}")
    try:
        with Image.open(io.BytesIO(file)) as image:
            if is_deep(image):
                raise BrokenEpisode(f"{where}: the image has more than 8 bits a channel ({image.mode}). {SKIP}")
            picture = image.convert("L" if shape[0] == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenEpisode(f"{where}: the image cannot be decoded ({error}). {SKIP}") from error
    if picture.size != (shape[2], shape[1]):
        found = f"{picture.height} x {picture.width}"
        raise BrokenEpisode(f"{where}: the image is {found}, info.json says {shape[1]} x {shape[2]}. {SKIP}")
    if picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BOX)
    pixels = np.asarray(picture)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
