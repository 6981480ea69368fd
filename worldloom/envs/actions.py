"""Action spaces of any kind as one vector, and the way back: what is sent lies in the environment's own space.

A action size, N choices. A space is taken apart into its leaves, in the order in which gymnasium iterates it; each is a
group of the action: a `Discrete` a one-hot slice, a `MultiDiscrete` or `MultiBinary` one such slice an entry, a `Box`
its numbers. One Discrete alone, or one Box alone, is what it always was.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from worldloom.data.spec import HUGE, ActionGroup, one_hot
from worldloom.errors import UserError

Adapted = spaces.Discrete | spaces.Box


@dataclass(frozen=True)
class ActionAdapter:
    """The action space as a `space` of worldloom, Discrete from 0 or a flat float32 Box, and the way back.

    groups: the parts of a composed action, side by side in the Box; empty for one Discrete or one Box. names: what the
    environment itself calls the choices of one Discrete.
    send: an action of `space` to one of the environment. taken: an action of `space` to what is really done by it.
    """

    space: Adapted
    groups: tuple[ActionGroup, ...]
    names: tuple[str, ...] | None
    send: Callable[[Any], Any]
    taken: Callable[[Any], Any]

    @classmethod
    def of(cls, space: spaces.Space, name: str) -> "ActionAdapter":
        """Raises `UserError` for a space without a vector form, and for one that holds nothing."""
        if isinstance(space, spaces.Discrete):
            start, names = int(space.start), ChoicePart(int(space.n), int(space.start)).group("").names
            return cls(spaces.Discrete(int(space.n)), (), names, lambda action: int(action) + start, int)
        if isinstance(space, spaces.Box):
            box = BoxPart.of(space, name)
            return cls(box.space, (), None, box.send, box.taken)
        whole = Composed.of(space, name)
        return cls(whole.space, whole.groups, None, whole.send, whole.taken)


@dataclass(frozen=True)
class BoxPart:
    """A Box of any shape and type; whole numbers are rounded to, and nothing beyond its bounds is sent."""

    inner: spaces.Box
    space: spaces.Box
    name: str

    @classmethod
    def of(cls, inner: spaces.Box, name: str) -> "BoxPart":
        if not inner.shape or not int(np.prod(inner.shape)):
            raise UserError(f"{name}: the action is a Box of shape {inner.shape}, which holds no number to choose")
        low, high = (open_ended(edge) for edge in (inner.low, inner.high))
        return cls(inner, spaces.Box(low, high, dtype=np.float32), name)

    @property
    def size(self) -> int:
        return int(np.prod(self.inner.shape))

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        return self.space.low, self.space.high

    def send(self, action: Any) -> np.ndarray:
        """Clipped in the environment's own type: a bound of 0.1 is not the same number in float32."""
        vector = np.asarray(action, np.float64)
        if not np.isfinite(vector).all():
            raise UserError(f"{self.name}: the action is {vector.tolist()}, but it must be finite: it was not sent")
        whole = np.issubdtype(self.inner.dtype, np.integer)
        vector = (np.rint(vector) if whole else vector).reshape(self.inner.shape)
        # In float64 first, as a whole number beyond its type would wrap around; then in the type itself.
        vector = np.clip(vector, self.inner.low.astype(np.float64), self.inner.high.astype(np.float64))
        return np.clip(vector.astype(self.inner.dtype), self.inner.low, self.inner.high)

    def taken(self, action: Any) -> np.ndarray:
        return np.clip(self.send(action).astype(np.float32).reshape(-1), self.space.low, self.space.high)

    def group(self, name: str) -> ActionGroup:
        bounded = bool(np.isfinite([self.space.low, self.space.high]).all())
        low, high = (tuple(map(float, edge)) if bounded else None for edge in (self.space.low, self.space.high))
        return ActionGroup(name, "continuous", self.size, None, low, high)


@dataclass(frozen=True)
class ChoicePart:
    """One choice of `size`, the first of which the environment calls `start`."""

    size: int
    start: int

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        return -np.ones(self.size, np.float32), np.ones(self.size, np.float32)

    def send(self, scores: np.ndarray) -> int:
        """The largest of `[N]`."""
        return int(np.argmax(scores)) + self.start

    def taken(self, scores: np.ndarray) -> np.ndarray:
        return one_hot(np.array(np.argmax(scores)), self.size)

    def group(self, name: str) -> ActionGroup:
        return ActionGroup(name, "discrete", self.size, tuple(str(self.start + i) for i in range(self.size)))


Part = BoxPart | ChoicePart


@dataclass(frozen=True)
class Composed:
    """A space of several parts: `parts` in order, with their names, and `inner` for putting them together again."""

    inner: spaces.Space
    parts: tuple[tuple[str, Part], ...]

    @classmethod
    def of(cls, inner: spaces.Space, name: str) -> "Composed":
        parts = tuple(_parts(inner, (), name))
        if not parts:
            raise UserError(f"{name}: the action is {inner}, which holds nothing to choose")
        return cls(inner, parts)

    @property
    def groups(self) -> tuple[ActionGroup, ...]:
        return tuple(part.group(name) for name, part in self.parts)

    @property
    def space(self) -> spaces.Box:
        """One-hot slices lie between -1 and 1, as their scaled values do."""
        low, high = (np.concatenate(side) for side in zip(*(part.edges for _, part in self.parts), strict=True))
        return spaces.Box(low, high, dtype=np.float32)

    def send(self, action: Any) -> Any:
        sent = iter([part.send(values) for part, values in self._split(action)])
        return _assemble(self.inner, sent)

    def taken(self, action: Any) -> np.ndarray:
        return np.concatenate([part.taken(values) for part, values in self._split(action)])

    def _split(self, action: Any) -> Iterator[tuple[Part, np.ndarray]]:
        vector = np.asarray(action, np.float32)
        if not np.isfinite(vector).all():
            raise UserError(f"the action is {vector.tolist()}, but it must be finite: it was not sent")
        ends = np.cumsum([part.size for _, part in self.parts])
        for (_, part), values in zip(self.parts, np.split(vector, ends[:-1]), strict=True):
            yield part, values


def open_ended(edge: np.ndarray) -> np.ndarray:
    """A bound `[A]` in float32, infinite where it is so large that it means none."""
    flat = np.asarray(edge, np.float64).reshape(-1)
    with np.errstate(over="ignore"):
        return np.where(np.abs(flat) >= HUGE, np.copysign(np.inf, flat), flat).astype(np.float32)


def _parts(space: spaces.Space, path: tuple[str, ...], name: str) -> Iterator[tuple[str, Part]]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, nested in inner:
            yield from _parts(nested, (*path, str(key)), name)
        return
    here = "_".join(path).replace("/", "_")
    if isinstance(space, spaces.Box):
        yield here or "action", BoxPart.of(space, name)
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        for place, part in choices_of(space):
            yield "_".join(filter(None, (here, place))) or "action", part
    else:
        fix = "wrap the environment so that its action is made of Discrete, MultiDiscrete, MultiBinary and Box"
        raise UserError(f"{name}: the action{' ' + here if here else ''} is a {type(space).__name__} space; {fix}")


def choices_of(space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) -> Iterator[tuple[str, ChoicePart]]:
    """Each choice of a space with its place, "" for a lone one."""
    if isinstance(space, spaces.Discrete):
        yield "", ChoicePart(int(space.n), int(space.start))
    elif isinstance(space, spaces.MultiBinary):
        for place in np.ndindex(*space.shape):
            yield "_".join(map(str, place)), ChoicePart(2, 0)
    else:
        for place in np.ndindex(*space.nvec.shape):
            yield "_".join(map(str, place)), ChoicePart(int(space.nvec[place]), int(space.start[place]))


def _assemble(space: spaces.Space, sent: Iterator[Any]) -> Any:
    """The environment's own action from those of its leaves, in order."""
    if isinstance(space, spaces.Dict):
        return {key: _assemble(part, sent) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_assemble(part, sent) for part in space.spaces)
    if isinstance(space, spaces.MultiBinary | spaces.MultiDiscrete):
        count = int(np.prod(space.shape))
        return np.array([next(sent) for _ in range(count)], space.dtype).reshape(space.shape)
    return next(sent)
