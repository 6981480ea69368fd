"""The dictionary between LeRobot's features (meta/info.json) and our `DataSpec`, in both directions.

"observation.state" is the key "state", "observation.image" is "image", "observation.images.left" is "left". The reward
that arrives with the next row is next.reward; next.done, next.truncated and next.success lie on their own row.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import numpy as np

from worldloom.data.spec import ActionGroup, ActionSpec, DataSpec, KeySpec, mask_name, short, signal_keys, tuples
from worldloom.errors import UserError

ACTION_MASK = "action.mask"
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
REWARDS = ("next.reward", "next.rewards", "reward", "rewards")
ENDS = ("next.done", "next.truncated", "next.terminated", "done", "truncated", "terminated")
SCALARS = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
)


@dataclass(frozen=True)
class Layout:
    """Which stored feature feeds which part of an episode. `extra` maps a name to its feature (next.x before x)."""

    spec: DataSpec
    obs: dict[str, str]
    extra: dict[str, str]
    reward: str | None
    terminal_rows: bool
    features: dict[str, dict[str, Any]]
    ignored: tuple[str, ...]

    def stored_as(self, feature: str) -> str:
        """How a feature is stored: "video", "image" or a numeric dtype."""
        return self.features[feature]["dtype"]

    def shape_of(self, feature: str) -> tuple[int, ...]:
        """The shape of an observation feature, as its key has it."""
        return next(self.spec.keys[key].shape for key, name in self.obs.items() if name == feature)

    @property
    def masks(self) -> dict[str, str]:
        """The feature of each mask of an observation."""
        names = [mask_name(key) for key in self.obs if self.spec.keys[key].has_mask]
        return {name: stored_name(name, "flag") for name in names}

    @property
    def columns(self) -> list[str]:
        """The parquet columns an episode needs."""
        wanted = ["episode_index", *self.obs.values(), *self.extra.values(), *([self.reward] if self.reward else [])]
        wanted += [*self.masks.values(), *([ACTION_MASK] if self.spec.action.masked else [])]
        wanted += [name for name in ("timestamp", "frame_index", "action") if name in self.features]
        wanted += ["next.done", "next.truncated"] if self.terminal_rows else []
        return [name for name in wanted if self.features.get(name, {}).get("dtype") != "video"]


def stored_name(key: str, kind: str) -> str:
    """The feature an observation key is stored as: the inverse of `key_of`."""
    if key.startswith("observation."):
        return key
    return f"observation.images.{key}" if kind == "image" and key != "image" else f"observation.{key}"


def key_of(feature: str) -> str:
    """The short key of an observation feature."""
    return feature.removeprefix("observation.").removeprefix("images.")


def features_of(
    spec: DataSpec, extra: Mapping[str, np.dtype], video_info: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """The `features` of info.json for what a writer is about to store. `video_info` holds the keys stored as video."""
    features: dict[str, Any] = {}
    for key, value in spec.arrays.items():
        if value.kind == "image":
            features[stored_name(key, "image")] = _camera(value, video_info.get(key))
        elif value.kind == "text":
            features[stored_name(key, "text")] = _vector("string")
        else:
            names = value.names if len(value.shape) == 1 else None
            features[stored_name(key, value.kind)] = _vector(value.dtype, prod(value.shape), names)
        if value.has_mask:
            features[stored_name(mask_name(key), "flag")] = _vector("bool", prod(value.mask_shape))
    if spec.action.size:
        features["action"] = _vector("float32", spec.action.size, spec.action.names)
    if spec.action.masked:
        features[ACTION_MASK] = _vector("bool")
    if spec.has_reward:
        features["next.reward"] = _vector("float32")
    features |= {"next.done": _vector("bool"), "next.truncated": _vector("bool")}
    features |= {stored_extra(name): _vector(dtype.name) for name, dtype in extra.items()}
    features["timestamp"] = _vector("float32")
    return features | {name: _vector("int64") for name in BOOKKEEPING[1:]}


def stored_extra(name: str) -> str:
    """LeRobot has a name for success; any other signal keeps its own."""
    return "next.success" if name == "success" else name


def _camera(key: KeySpec, info: dict[str, Any] | None) -> dict[str, Any]:
    channels, height, width = key.shape
    feature = {"shape": [height, width, channels], "names": ["height", "width", "channels"]}
    return {"dtype": "image", **feature} if info is None else {"dtype": "video", **feature, "info": info}


def _vector(dtype: str, size: int = 1, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [size], "names": list(names) if names else None}


def layout_of(info: dict[str, Any], largest_choice: int) -> Layout:
    """Understand a dataset from its info.json. `largest_choice` is the largest value of an integer action."""
    features, ours = info["features"], info.get("worldloom", {})
    declared = {stored_name(name, key["kind"]): KeySpec(**tuples(key)) for name, key in ours.get("keys", {}).items()}
    masks = {stored_name(mask_name(key_of(name)), "flag") for name, key in declared.items() if key.has_mask}
    known, ignored = {}, []
    for name, feature in features.items():
        if name.startswith("observation") and name not in masks:
            key = declared.get(name) or _key_spec(feature)
            known.update({name: key} if key else {})
            ignored += [] if key else [name]
    short = Counter(key_of(name) for name in known)
    names = {key_of(name) if short[key_of(name)] == 1 else name: name for name in known}
    reward = next((name for name in REWARDS if _is_scalar(features.get(name))), None)
    used = {*BOOKKEEPING, *REWARDS, *ENDS, *known, *ignored, *masks, "action", ACTION_MASK}
    rest = [name for name in features if name not in used]
    scalars = sorted((name for name in rest if _is_scalar(features[name])), key=lambda name: name.startswith("next."))
    extra = {name.removeprefix("next."): name for name in scalars}
    spec = DataSpec(
        {
            **{key: known[name] for key, name in names.items()},
            **signal_keys(reward=reward is not None, terminated=bool(ours.get("has_end", False))),
        },
        _action_spec(features.get("action"), ours.get("action"), largest_choice),
        float(ours.get("fps", info["fps"])),
    )
    ignored += [name for name in rest if name not in extra.values()]
    return Layout(spec, names, extra, reward, bool(ours.get("terminal_rows")), features, tuple(ignored))


def _is_scalar(feature: Any) -> bool:
    return bool(feature) and feature["dtype"] in SCALARS and int(np.prod(feature["shape"])) == 1


def _key_spec(feature: dict[str, Any]) -> KeySpec | None:
    """None for what a model cannot observe: strings and depth maps (12-bit depth in a video is not a picture)."""
    dtype, shape = feature["dtype"], tuple(feature["shape"])
    if dtype in ("image", "video"):
        info = feature.get("info") or feature.get("video_info") or {}
        depth = info.get("video.is_depth_map") or info.get("is_depth_map")
        return None if depth or len(shape) != 3 else KeySpec("image", _channels_first(shape, feature.get("names")))
    size = int(np.prod(shape))
    return KeySpec("vector", (size,), names_of(feature, size)) if dtype in SCALARS and size else None


def _channels_first(shape: tuple[int, ...], names: Any) -> tuple[int, int, int]:
    first = (
        str(names[0]).startswith("channel") if isinstance(names, list) and len(names) == 3 else shape[2] not in (1, 3)
    )
    channels, height, width = shape if first else (shape[2], shape[0], shape[1])
    return (1 if channels == 1 else 3), height, width


def names_of(feature: dict[str, Any], size: int) -> tuple[str, ...] | None:
    """The names of a vector's entries, written as a list or as `{"motors": [...]}`; None unless all are named."""
    names = feature.get("names")
    if isinstance(names, dict):
        names = next(iter(names.values()), None)
    return tuple(map(str, names)) if isinstance(names, list) and len(names) == size else None


def _action_spec(feature: dict[str, Any] | None, ours: dict[str, Any] | None, largest: int) -> ActionSpec:
    """Ours is declared; a foreign integer scalar is a choice among as many as the data shows; else continuous."""
    if feature is None:
        return ActionSpec("continuous", 0)
    size = int(np.prod(feature["shape"]))
    if ours:
        names, low, high = (tuple(ours[k]) if ours.get(k) else None for k in ("names", "low", "high"))
        groups = tuple(ActionGroup(**tuples(group)) for group in ours.get("groups", ()))
        return ActionSpec(ours["kind"], size, names, low, high, groups, bool(ours.get("masked", False)))
    if is_choice(feature):
        return ActionSpec("discrete", largest + 1)
    return ActionSpec("continuous", size, names_of(feature, size))


def is_choice(feature: dict[str, Any]) -> bool:
    """An action stored as one whole number per row."""
    return "int" in feature["dtype"] and int(np.prod(feature["shape"])) == 1


def own_facts(spec: DataSpec, terminal_rows: bool, about: dict[str, Any]) -> dict[str, Any]:
    """What LeRobot has no field for, kept in info.json under "worldloom". Other tools skip keys they do not know."""
    action = spec.action
    for name, bound in (("low", action.low), ("high", action.high)):
        if bound is not None and not np.isfinite(bound).all():
            raise UserError(
                f"the action's {name} {bound} is not finite. Give finite bounds, or none for an open range."
            )
    ranges = {"low": list(action.low) if action.low else None, "high": list(action.high) if action.high else None}
    names = list(action.names) if action.names else None
    further = short({"groups": [short(asdict(group)) for group in action.groups], "masked": action.masked})
    keys = {k: short(asdict(s)) for k, s in spec.arrays.items() if s != plain(s)}
    return {
        "terminal_rows": terminal_rows,
        "fps": spec.fps,
        "has_end": spec.has_end,
        "action": {"kind": action.kind, "names": names, **ranges, **further},
        **({"keys": keys} if keys else {}),
        "about": about,
        "folded": 0,
    }


def storable(spec: DataSpec) -> DataSpec:
    """The part of a spec that a dataset keeps: no fitted mean and std, no categories (the task is stored in words)."""
    keys = {k: replace(s, mean=None, std=None) for k, s in spec.keys.items() if k != "task"}
    return replace(
        spec, keys={k: replace(s, names=None) if s.kind in ("image", "text") else s for k, s in keys.items()}
    )


def plain(key: KeySpec) -> KeySpec:
    """What LeRobot's own description of a feature would be read as."""
    return KeySpec("image" if key.kind == "image" else "vector", key.shape, key.names)
