"""The dictionary between LeRobot's features (meta/info.json) and our `DataSpec`, in both directions.

"observation.state" is the key "state", "observation.image" is "image", "observation.images.left" is "left". The reward
that arrives with the next row is next.reward; next.done, next.truncated and next.success lie on their own row.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from worldloom.data.formats.columns import image_shape
from worldloom.data.spec import ActionGroup, ActionSpec, DataSpec, KeySpec, mask_name, short, signal_keys, tuples
from worldloom.errors import UserError

ACTION_MASK = "action.mask"
STATES = ("state", "states", "proprio", "qpos")
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
    """Which stored feature feeds which part of an episode. `extra` maps a name to its feature (next.x before x).

    actions: the feature, or the parts side by side, that the action is stored in. first_choice: the whole number that
    is the first choice of a discrete one. beyond_float32: the vectors whose values were seen, while reading, to vary by
    less than float32 can hold.
    """

    spec: DataSpec
    obs: dict[str, str]
    actions: tuple[str, ...]
    extra: dict[str, str]
    reward: str | None
    terminal_rows: bool
    features: dict[str, dict[str, Any]]
    ignored: tuple[str, ...]
    first_choice: int = 0
    beyond_float32: list[str] = field(default_factory=list)

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
        wanted += [*self.actions, *(name for name in ("timestamp", "frame_index") if name in self.features)]
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


def layout_of(info: dict[str, Any], choices: range) -> Layout:
    """Understand a dataset from its info.json. `choices` are the values that a foreign integer action can have."""
    features, ours = info["features"], info.get("worldloom", {})
    declared = {stored_name(name, key["kind"]): KeySpec(**tuples(key)) for name, key in ours.get("keys", {}).items()}
    masks = {stored_name(mask_name(key_of(name)), "flag") for name, key in declared.items() if key.has_mask}
    known, ignored = {}, []
    actions = action_features(features)
    for name, feature in features.items():
        if is_observation(name, feature) and name not in (*masks, *actions):
            key = declared.get(name) or _key_spec(feature)
            known.update({name: key} if key else {})
            ignored += [] if key else [name]
    short = Counter(key_of(name) for name in known)
    names = {key_of(name) if short[key_of(name)] == 1 else name: name for name in known}
    reward = next((name for name in REWARDS if _is_scalar(features.get(name))), None)
    used = {*BOOKKEEPING, *REWARDS, *ENDS, *known, *ignored, *masks, *actions, ACTION_MASK}
    rest = [name for name in features if name not in used]
    scalars = sorted((name for name in rest if _is_scalar(features[name])), key=lambda name: name.startswith("next."))
    extra = {name.removeprefix("next."): name for name in scalars}
    spec = DataSpec(
        {
            **{key: known[name] for key, name in names.items()},
            **signal_keys(reward=reward is not None, terminated=bool(ours.get("has_end", False))),
        },
        _action_spec({name: features[name] for name in actions}, ours.get("action"), choices),
        float(ours.get("fps", info["fps"])),
    )
    ignored += [name for name in rest if name not in extra.values()]
    first = choices.start if spec.action.kind == "discrete" and not ours.get("action") else 0
    ends = bool(ours.get("terminal_rows"))
    return Layout(spec, names, actions, extra, reward, ends, features, tuple(ignored), first)


def action_features(features: Mapping[str, Any]) -> tuple[str, ...]:
    """What the action is stored in: `action`, else `actions`, else the parts `action.*` or `actions.*` as declared."""
    for name in ("action", "actions"):
        if name in features:
            return (name,)
    parts = [name for name in features if name.startswith(("action.", "actions.")) and name != ACTION_MASK]
    return tuple(name for name in parts if features[name]["dtype"] in SCALARS)


def is_observation(name: str, feature: Mapping[str, Any]) -> bool:
    """By its prefix; a picture whatever it is called, and the usual names of a robot's state without the prefix."""
    picture = feature["dtype"] in ("image", "video") and not name.startswith("next.")
    return name.startswith("observation") or picture or name in STATES


def _is_scalar(feature: Any) -> bool:
    return bool(feature) and feature["dtype"] in SCALARS and int(np.prod(feature["shape"])) == 1


def check_layout(path: Path, layout: Layout) -> None:
    """Raise `UserError` for a dataset in which nothing is recognised as an observation although it holds arrays."""
    if not layout.obs and layout.ignored:
        raise UserError(
            f"{path / 'meta/info.json'}: none of its features is an observation: {', '.join(layout.ignored)}. A model "
            "sees what is called observation.NAME, pictures and 'state': rename the features that it should see."
        )


def mark_depth(features: dict[str, Any], deep: Iterable[str]) -> None:
    """Declare features, whose pictures were seen to have 16 bits, as what LeRobot calls a depth map."""
    for name in deep:
        features[name] = {**features[name], "info": {**(features[name].get("info") or {}), "is_depth_map": True}}


def _key_spec(feature: dict[str, Any]) -> KeySpec | None:
    """None for what a model cannot observe: strings and depth maps (12-bit depth in a video is not a picture)."""
    dtype, shape = feature["dtype"], tuple(feature["shape"])
    if dtype in ("image", "video"):
        info = feature.get("info") or feature.get("video_info") or {}
        depth = info.get("video.is_depth_map") or info.get("is_depth_map")
        return None if depth or len(shape) != 3 else KeySpec("image", _channels_first(shape, feature.get("names")))
    if dtype == "uint8" and len(shape) == 3 and (picture := image_shape(shape)):
        return KeySpec("image", picture)
    size = int(np.prod(shape))
    return KeySpec("vector", (size,), names_of(feature, size)) if dtype in SCALARS and size else None


def _channels_first(shape: tuple[int, ...], names: Any) -> tuple[int, int, int]:
    first = (
        str(names[0]).startswith("channel") if isinstance(names, list) and len(names) == 3 else shape[2] not in (1, 3)
    )
    channels, height, width = shape if first else (shape[2], shape[0], shape[1])
    return (1 if channels == 1 else 3), height, width


def names_of(feature: dict[str, Any], size: int) -> tuple[str, ...] | None:
    """The names of a vector's entries, written as a list, a list of lists or `{"motors": [...]}`; None unless all are
    named.
    """
    names = list(_leaves(feature.get("names")))
    return tuple(map(str, names)) if len(names) == size else None


def _leaves(names: Any) -> Iterator[Any]:
    if isinstance(names, dict) and all(isinstance(value, int) for value in names.values()):
        names = sorted(names, key=names.__getitem__)  # {"x": 0, "y": 1}
    inner = names.values() if isinstance(names, dict) else names if isinstance(names, list) else None
    for name in inner or ():
        yield from _leaves(name) if isinstance(name, dict | list) else (name,)


def _action_spec(parts: dict[str, dict[str, Any]], ours: dict[str, Any] | None, choices: range) -> ActionSpec:
    """Ours is declared; a foreign integer scalar is a choice among as many as the data shows; else continuous."""
    if not parts:
        return ActionSpec("continuous", 0)
    if len(parts) > 1:
        return ActionSpec.of(tuple(_action_group(name, feature) for name, feature in parts.items()))
    feature = next(iter(parts.values()))
    size = int(np.prod(feature["shape"]))
    if ours:
        names, low, high = (tuple(ours[k]) if ours.get(k) else None for k in ("names", "low", "high"))
        groups = tuple(ActionGroup(**tuples(group)) for group in ours.get("groups", ()))
        return ActionSpec(ours["kind"], size, names, low, high, groups, bool(ours.get("masked", False)))
    if is_choice(feature):
        return ActionSpec("discrete", len(choices), tuple(map(str, choices)) if choices.start else None)
    return ActionSpec("continuous", size, names_of(feature, size))


def _action_group(name: str, feature: dict[str, Any]) -> ActionGroup:
    """One part of an action that foreign data store in parts: its numbers, in their own units."""
    size = int(np.prod(feature["shape"]))
    return ActionGroup(name.partition(".")[2], "continuous", size, names_of(feature, size))


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
