"""Serialised gymnasium spaces, as Minari's metadata holds them: what an observation or an action is made of.

n steps, A action size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldloom.data.formats.columns import declared_range, key_spec, one_hot
from worldloom.data.spec import ActionGroup, ActionSpec, KeySpec
from worldloom.errors import UserError

Space = dict[str, Any]


@dataclass(frozen=True)
class Leaf:
    """One part of a nested space: its key, its path inside an episode's group and the space that describes it."""

    key: str
    path: str
    space: Space


def leaves(space: Space, path: str) -> list[Leaf]:
    """The parts of `space` that hold arrays, stored under `path` as Minari nests them. Keys are joined by "_", as those
    of an environment that is recorded (`worldloom.envs.adapt`).
    """
    found = list(_walk(space, ()))
    keys = ["_".join(name for name, _ in names).replace("/", "_") or _lone_name(part) for names, part in found]
    if len(set(keys)) < len(keys):
        keys = [".".join(name for name, _ in names) for names, _ in found]
    return [
        Leaf(key, "/".join((path, *(stored for _, stored in names))), part)
        for key, (names, part) in zip(keys, found, strict=True)
    ]


def _walk(space: Space, names: tuple[tuple[str, str], ...]) -> list[tuple[tuple[tuple[str, str], ...], Space]]:
    """Each part with the names that lead to it, and those under which Minari stores them."""
    if space["type"] == "Dict":
        inner = [((name, name), part) for name, part in space["subspaces"].items()]
    elif space["type"] == "Tuple":
        inner = [((str(i), f"_index_{i}"), part) for i, part in enumerate(space["subspaces"])]
    else:
        return [(names, space)]
    return [leaf for name, part in inner for leaf in _walk(part, (*names, name))]


def _lone_name(space: Space) -> str:
    spec = leaf_spec(space)
    return "image" if spec is not None and spec.kind == "image" else "state"


def leaf_spec(space: Space) -> KeySpec | None:
    """How an observation of this space is kept, None when it is not (a text, nothing, or too large a grid of floats).

    A grey picture is kept in three channels, as a recorded one is.
    """
    if space["type"] == "Box":
        spec = key_spec(tuple(space["shape"]), np.dtype(space["dtype"]))
        return KeySpec("image", (3, *spec.shape[1:])) if spec is not None and spec.kind == "image" else spec
    if space["type"] == "Discrete":
        return KeySpec("vector", (space["n"],), choice_names(space))
    if space["type"] == "MultiBinary":
        return KeySpec("vector", (int(np.prod(space["n"])),))
    if space["type"] == "MultiDiscrete":
        return KeySpec("vector", (int(np.sum(space["nvec"])),))
    return None


def choice_names(space: Space) -> tuple[str, ...]:
    """The choices of a Discrete space, which need not begin at 0."""
    return tuple(str(space.get("start", 0) + i) for i in range(space["n"]))


def action_spec(parts: list[Leaf], where: str) -> ActionSpec:
    """A lone Discrete space is a discrete action, a lone Box a continuous one; else groups side by side."""
    for part in parts:
        if part.space["type"] not in ("Box", "Discrete", "MultiBinary", "MultiDiscrete"):
            raise UserError(f"{where}: an action of type {part.space['type']} ({part.path}) has no vector form")
    nested = any("/" in part.path for part in parts)
    groups = tuple(group for part in parts for group in _groups(part.key if nested else "", part.space))
    if not nested and parts[0].space["type"] in ("Box", "Discrete"):
        (alone,) = groups
        return ActionSpec(alone.kind, alone.size, alone.names, alone.low, alone.high)
    return ActionSpec.of(groups)


def _groups(key: str, space: Space) -> Iterator[ActionGroup]:
    """The groups of one part, named as those of an environment are (`worldloom.envs.actions`)."""
    if space["type"] == "Box":
        low, high = box_bounds(space)
        yield ActionGroup(key, "continuous", len(low), None, *declared_range(low, high))
    elif space["type"] == "Discrete":
        yield ActionGroup(key, "discrete", space["n"], choice_names(space))
    else:
        sizes, starts = choice_sizes(space)
        for place in np.ndindex(*sizes.shape):
            names = choice_names({"n": int(sizes[place]), "start": int(starts[place])})
            yield ActionGroup("_".join(filter(None, (key, *map(str, place)))), "discrete", len(names), names)


def choice_sizes(space: Space) -> tuple[np.ndarray, np.ndarray]:
    """How many choices each entry of a MultiDiscrete or MultiBinary space has, and what the first is called."""
    sizes = np.full(space["n"], 2) if space["type"] == "MultiBinary" else np.asarray(space["nvec"])
    return sizes, np.broadcast_to(np.asarray(space.get("start", 0)), sizes.shape)


def box_bounds(space: Space) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.broadcast_to(np.asarray(space[side], float), space["shape"]) for side in ("low", "high"))
    return low.ravel(), high.ravel()


def to_action(values: np.ndarray, space: Space, where: str) -> np.ndarray:
    """Elements `[n, ...]` of `space` as the slice `[n, size]` of the action vector, each choice one-hot."""
    return to_vector(values, {**space, "type": "MultiDiscrete", "nvec": np.full(space["n"], 2).tolist()}
                     if space["type"] == "MultiBinary" else space, where)  # fmt: skip


def to_vector(values: np.ndarray, space: Space, where: str) -> np.ndarray:
    """Elements `[n, ...]` of `space` as the slice `[n, size]` of a vector. Raises `BrokenEpisode` for a bad choice."""
    values = values.reshape(len(values), -1)
    if space["type"] == "Discrete":
        return one_hot(values - space.get("start", 0), space["n"], where)
    if space["type"] == "MultiDiscrete":
        sizes, starts = (np.ravel(each) for each in choice_sizes(space))
        values = values - starts
        return np.concatenate([one_hot(values[:, i], int(n), where) for i, n in enumerate(sizes)], 1)
    return values
