"""Serialised gymnasium spaces, as Minari's metadata holds them: what an observation or an action is made of.

n steps, A action size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from worldloom.data.formats.columns import declared_range, key_spec, one_hot
from worldloom.data.spec import ActionSpec, KeySpec
from worldloom.errors import UserError

Space = dict[str, Any]


@dataclass(frozen=True)
class Leaf:
    """One part of a nested space: its key, its path inside an episode's group and the space that describes it."""

    key: str
    path: str
    space: Space


def leaves(space: Space, path: str) -> list[Leaf]:
    """The parts of `space` that hold arrays, stored under `path` as Minari nests them. Keys are joined by "_"."""
    found = list(_walk(space, ()))
    keys = ["_".join(names) or _lone_name(part) for names, part in found]
    if len(set(keys)) < len(keys):
        keys = [".".join(names) for names, _ in found]
    return [Leaf(key, "/".join((path, *names)), part) for key, (names, part) in zip(keys, found, strict=True)]


def _walk(space: Space, names: tuple[str, ...]) -> list[tuple[tuple[str, ...], Space]]:
    if space["type"] == "Dict":
        return [leaf for name, part in space["subspaces"].items() for leaf in _walk(part, (*names, name))]
    if space["type"] == "Tuple":
        return [leaf for i, part in enumerate(space["subspaces"]) for leaf in _walk(part, (*names, f"_index_{i}"))]
    return [(names, space)]


def _lone_name(space: Space) -> str:
    spec = leaf_spec(space)
    return "image" if spec is not None and spec.kind == "image" else "state"


def leaf_spec(space: Space) -> KeySpec | None:
    """How an observation of this space is kept, None when it is not (a text, or too large a grid of floats)."""
    if space["type"] == "Box":
        return key_spec(tuple(space["shape"]), np.dtype(space["dtype"]))
    if space["type"] == "Discrete":
        return KeySpec("vector", (space["n"],), choice_names(space))
    if space["type"] in ("MultiBinary", "MultiDiscrete"):
        return KeySpec("vector", (len(action_bounds(space)[0]),))
    return None


def choice_names(space: Space) -> tuple[str, ...]:
    """The choices of a Discrete space, which need not begin at 0."""
    return tuple(str(space.get("start", 0) + i) for i in range(space["n"]))


def action_spec(parts: list[Leaf], where: str) -> ActionSpec:
    """A lone Discrete space is a discrete action; all else is one continuous vector, the parts side by side."""
    if len(parts) == 1 and parts[0].space["type"] == "Discrete":
        return ActionSpec("discrete", parts[0].space["n"], choice_names(parts[0].space))
    for part in parts:
        if part.space["type"] not in ("Box", "Discrete", "MultiBinary", "MultiDiscrete"):
            raise UserError(f"{where}: an action of type {part.space['type']} ({part.path}) has no vector form")
    bounds = [action_bounds(part.space) for part in parts]
    low, high = (np.concatenate([b[side] for b in bounds]) for side in (0, 1))
    names = [f"{part.key}.{i}" for part, (lows, _) in zip(parts, bounds, strict=True) for i in range(len(lows))]
    return ActionSpec("continuous", len(low), tuple(names) if len(parts) > 1 else None, *declared_range(low, high))


def action_bounds(space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of the space's slice of the action vector; a choice is a one-hot slice between 0 and 1."""
    if space["type"] == "Box":
        low, high = (np.broadcast_to(np.asarray(space[side], float), space["shape"]) for side in ("low", "high"))
        return low.ravel(), high.ravel()
    size = int(np.sum(space["nvec"])) if space["type"] == "MultiDiscrete" else int(np.prod(space["n"]))
    return np.zeros(size), np.ones(size)


def to_vector(values: np.ndarray, space: Space, where: str) -> np.ndarray:
    """Elements `[n, ...]` of `space` as the slice `[n, size]` of a vector. Raises `BrokenEpisode` for a bad choice."""
    values = values.reshape(len(values), -1)
    if space["type"] == "Discrete":
        return one_hot(values - space.get("start", 0), space["n"], where)
    if space["type"] == "MultiDiscrete":
        sizes = np.ravel(space["nvec"])
        values = values - np.ravel(space.get("start", np.zeros_like(sizes)))
        return np.concatenate([one_hot(values[:, i], int(n), where) for i, n in enumerate(sizes)], 1)
    return values
