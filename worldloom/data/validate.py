"""Checks for everything that reads or writes episodes: a failure names the key, the row, the value and the fix."""

import numpy as np

from worldloom.data.episode import BrokenEpisode, Episode
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, mask_name
from worldloom.errors import unknown

EXTRA_DTYPES = ("bool", "int64", "float32", "float64")


def check_episode(episode: Episode, spec: DataSpec, where: str, *, last_action: bool = False) -> None:
    """Raise `BrokenEpisode` unless the episode is what `spec` says.

    `last_action` says that the last row has an action too, unless that is zeros; else it is padding and not checked.
    """
    length = len(episode)
    if length == 0:
        raise BrokenEpisode(f"{where}: has 0 rows. Leave it out.")
    if not isinstance(episode.task, str):
        raise BrokenEpisode(f"{where}: the task is {episode.task!r}, not words. Give a string, empty for none.")
    wanted = spec.arrays
    masks = {mask_name(k): s for k, s in wanted.items() if s.has_mask}
    for key in episode.obs:
        if key not in wanted and key not in masks:
            raise BrokenEpisode(str(unknown(f"observation key in {where}", key, wanted)))
    for key in (*wanted, *masks):
        if key not in episode.obs:
            raise BrokenEpisode(f"{where}: the observation {key!r} is missing. The spec has {', '.join(wanted)}.")
    for key, key_spec in wanted.items():
        check_key(episode.obs[key], key_spec, length, f"{where}, {key}")
    for key, key_spec in masks.items():
        check_array(episode.obs[key], np.bool_, (length, *key_spec.mask_shape), f"{where}, {key}")
    if (episode.action_mask is not None) != spec.action.masked:
        what = "has" if episode.action_mask is not None else "lacks"
        raise BrokenEpisode(f"{where}: {what} an action mask, but the action's masked is {spec.action.masked}.")
    if episode.action_mask is not None:
        check_array(episode.action_mask, np.bool_, (length,), f"{where}, action mask")
    check_array(episode.action, np.float32, (length, spec.action.size), f"{where}, action")
    checked = length if last_action and episode.action[-1].any() else length - 1
    done = episode.action[:checked]
    check_action(done if episode.action_mask is None else done[episode.action_mask[:checked]], spec.action, where)
    check_array(episode.reward, np.float32, (length,), f"{where}, reward")
    for name, flags in (("terminated", episode.terminated), ("truncated", episode.truncated)):
        check_array(flags, np.bool_, (length,), f"{where}, {name}")
        if flags[:-1].any():
            raise BrokenEpisode(f"{where}, row {flags.argmax()}: {name} before the last row. Split the episode there.")
    if episode.terminated[-1] and episode.truncated[-1]:
        fix = "An end on the last allowed step is an end: set truncated to False."
        raise BrokenEpisode(f"{where}, row {length - 1}: both terminated and truncated. {fix}")
    if episode.terminated.any() and not spec.has_end:
        raise BrokenEpisode(f"{where}: is terminated, but the spec has no key 'terminated'. Declare it.")
    for name, values in episode.extra.items():
        check_extra(np.asarray(values), length, f"{where}, extra {name!r}")


def check_key(values: np.ndarray, key: KeySpec, length: int, where: str) -> None:
    """Raise unless an array of an episode is what its key says."""
    if key.kind == "text":
        if values.dtype.kind != "U" or values.shape != (length,):
            raise BrokenEpisode(f"{where}: {values.dtype} {values.shape}, expected a string in each of {length} rows.")
    else:
        check_array(values, np.dtype(key.dtype).type, (length, *key.shape), where)
    if key.per == "episode" and (values != values[:1]).any():
        row = int((values != values[:1]).reshape(length, -1).any(1).argmax())
        raise BrokenEpisode(f"{where}, row {row}: changes, but it is one value for the whole episode. Make it per row.")


def check_array(array: np.ndarray, dtype: type, shape: tuple[int, ...], where: str) -> None:
    """Raise unless the array has exactly this dtype and shape and no NaN or infinity."""
    if array.dtype != dtype:
        raise BrokenEpisode(f"{where}: dtype {array.dtype}, expected {np.dtype(dtype)}. Convert it.")
    if array.shape != shape:
        raise BrokenEpisode(f"{where}: shape {array.shape}, expected {shape}. Rows or dimensions are missing or extra.")
    check_finite(array, where)


def check_extra(values: np.ndarray, length: int, where: str) -> None:
    if values.dtype.name not in EXTRA_DTYPES:
        raise BrokenEpisode(f"{where}: dtype {values.dtype}; use bool, int64 or float32.")
    check_array(values, values.dtype.type, (length,), where)


def check_finite(array: np.ndarray, where: str) -> None:
    """Raise at the first row with a NaN or infinite entry."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    place = np.argwhere(~np.isfinite(array))[0]
    entry = f"entry {place[1]} " if array.ndim > 1 and array.shape[1] > 1 else ""
    raise BrokenEpisode(
        f"{where}, row {place[0]}: {entry}is {array[tuple(place)]}. Repair the row or leave the episode out."
    )


def check_action(action: np.ndarray, spec: ActionSpec, where: str) -> None:
    """Raise at the first action that is not one-hot (discrete) or lies outside the declared range (continuous)."""
    if spec.size == 0 or len(action) == 0:
        return
    for group, place in zip(spec.parts, spec.slices.values(), strict=True):
        part = action[:, place]
        if group.kind == "discrete" and (wrong := ~((part == 0) | (part == 1)).all(1) | (part.sum(1) != 1)).any():
            row, name = int(wrong.argmax()), "action" if len(spec.parts) == 1 else f"action group {group.name!r}"
            raise BrokenEpisode(f"{where}, row {row}: the {name} {part[row].tolist()} is not a one-hot choice.")
    if spec.low is not None and spec.high is not None:
        low, high = np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32)
        slack = 1e-5 * np.maximum(1, np.abs(high - low))  # float32 rounding on the way through a file
        outside = (action < low - slack) | (action > high + slack)
        if outside.any():
            row, entry = np.argwhere(outside)[0]
            raise BrokenEpisode(
                f"{where}, row {row}: action[{entry}] is {action[row, entry]}, outside the declared range "
                f"[{low[entry]}, {high[entry]}]. Clip it, declare a wider range, or leave the episode out."
            )
