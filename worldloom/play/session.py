"""A walk through a model: a tree of moments, in which going back, branching and comparing are plain lookups.

Everything in it follows from the seed, the weights and what was done. The luck of a step depends on the seed and on how
far it is from the beginning, not on the branch: two branches differ by what was done in them and by nothing else.

P particles, A action size, D vector size, H W image height and width.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from worldloom.data.spec import DataSpec, KeySpec
from worldloom.errors import UserError
from worldloom.play.engine import Answer, Arrays, Ask, Engine

Kind = Literal["start", "step", "look", "edit"]
MOST_MOMENTS = 20_000


@dataclass(frozen=True)
class Moment:
    """One node of the tree. `steps` from the beginning, and `blind` since somebody last looked.

    residual: how far what was expected lay from what a look showed (root mean square, pictures in [0, 1]).
    twin: in a branch that was edited, the same moment without the edit.
    """

    number: int
    parent: int | None
    kind: Kind
    action: tuple[float, ...] | None
    steps: int
    blind: int
    answer: Answer
    residual: dict[str, float] = field(default_factory=dict)
    twin: Answer | None = None
    origin: int | None = None

    @property
    def digest(self) -> str:
        """Of everything that is shown of this moment."""
        found = hashlib.sha256()
        for shown in (self.answer.pictures, self.answer.vectors):
            for key in sorted(shown):
                found.update(np.ascontiguousarray(shown[key]).tobytes())
        found.update(repr(sorted(self.answer.signals.items())).encode())
        return found.hexdigest()


@dataclass(frozen=True)
class Wish:
    """A moment that is wanted: what the engine has to answer for it, and what it will be."""

    asks: tuple[Ask, ...]
    parent: int | None
    kind: Kind
    action: tuple[float, ...] | None
    event: dict[str, object]


class Session:
    """`step`, `rewind`, `fork`, `reanchor` and `edit` on a tree of moments. `here` is where the player is.

    Each verb is a wish that the engine grants. Whoever serves many players asks for the wishes themselves
    (`wish_step` and so on), has the engine answer all of them at once, and hands each answer to `grant`.
    """

    def __init__(self, engine: Engine, obs: Mapping[str, np.ndarray], seed: int = 0, most: int = MOST_MOMENTS):
        self.engine, self.seed, self.most = engine, seed, most
        self.first_obs = check_obs(obs, engine.model.spec)
        self.moments: list[Moment] = []
        self.children: dict[int, list[int]] = {}
        self.events: list[dict[str, object]] = []
        start = Ask(self._luck(0), obs=to_tensors(self.first_obs, engine.model.spec))
        self.here = self.fulfil(Wish((start,), None, "start", None, {})).number

    @property
    def now(self) -> Moment:
        return self.moments[self.here]

    def step(self, action: int | Sequence[float] | np.ndarray) -> Moment:
        """Do `action`: a choice's number, or numbers in [-1, 1]. What was done here before is gone to again."""
        wish = self.wish_step(action)
        return wish if isinstance(wish, Moment) else self.fulfil(wish)

    def rewind(self, steps: int) -> Moment:
        """Go back along the branch, at most to the beginning."""
        if steps < 0:
            raise UserError(f"rewind by {steps} steps: give 0 or more")
        number = self.here
        for _ in range(steps):
            parent = self.moments[number].parent
            if parent is None:
                break
            number = parent
        return self.fork(number)

    def fork(self, number: int) -> Moment:
        """Go to any moment of the tree; another action there begins another branch."""
        self.here = self.moment(number).number
        self._note({"go": number})
        return self.now

    def reanchor(self, obs: Mapping[str, np.ndarray]) -> Moment:
        """A true observation of this moment arrives: the belief is corrected and the residual kept."""
        return self.fulfil(self.wish_look(obs, "look"))

    def edit(self, obs: Mapping[str, np.ndarray]) -> Moment:
        """Go on as if this moment had looked like `obs`; its twin goes on without the edit."""
        return self.fulfil(self.wish_look(obs, "edit"))

    def wish_step(self, action: int | Sequence[float] | np.ndarray) -> "Wish | Moment":
        """What `step` has to ask for, or the moment it leads to when that is known."""
        row = check_action(action, self.engine.model.spec)
        values = tuple(float(x) for x in row)
        self._note({"step": list(values)})
        for number in self.children.get(self.here, []):
            if self.moments[number].kind == "step" and self.moments[number].action == values:
                self.here = number
                return self.now
        self._check_room()
        luck = self._luck(self.now.steps + 1)
        asks = [Ask(luck, self.now.answer.belief, row)]
        if self.now.twin is not None:
            asks.append(Ask(luck, self.now.twin.belief, row))
        return Wish(tuple(asks), self.here, "step", values, {})

    def wish_look(self, obs: Mapping[str, np.ndarray], kind: Literal["look", "edit"]) -> Wish:
        """What `reanchor` and `edit` have to ask for. Keys that are not given stay as the moment decodes them."""
        spec, now = self.engine.model.spec, self.now
        self._check_room()
        seen = check_obs({**self.shown(now), **obs}, spec)
        before = None if now.parent is None else self.moments[now.parent]
        acted = None if now.action is None else np.asarray(now.action, np.float32)
        belief = None if before is None or acted is None else before.answer.belief
        ask = Ask(self._luck(now.steps), belief, acted if belief is not None else None, to_tensors(seen, spec))
        self._note({kind: {key: seen[key] for key in obs}})
        return Wish((ask,), self.here, kind, now.action, {"seen": seen})

    def fulfil(self, wish: Wish) -> Moment:
        return self.grant(wish, self.engine.answer(wish.asks))

    def grant(self, wish: Wish, answers: Sequence[Answer]) -> Moment:
        """The wished-for moment, in the tree and gone to."""
        parent = None if wish.parent is None else self.moments[wish.parent]
        number, looked = len(self.moments), wish.kind != "step"
        residual: dict[str, float] = {}
        twin, origin = (answers[1], parent.origin) if len(answers) > 1 and parent else (None, None)
        if parent is not None and looked:
            seen = wish.event["seen"]
            assert isinstance(seen, dict), seen
            residual = residuals(parent.answer, seen)
        if parent is not None and wish.kind == "edit":
            twin, origin = parent.twin or parent.answer, number
        before = parent.parent if parent is not None and looked else wish.parent
        steps = 0 if parent is None else parent.steps + (not looked)
        blind = 0 if parent is None or wish.kind == "look" else parent.blind + (not looked)
        made = Moment(number, before, wish.kind, wish.action, steps, blind, answers[0], residual, twin, origin)
        self.moments.append(made)
        if before is not None:
            self.children.setdefault(before, []).append(number)
        self.here = number
        return made

    def moment(self, number: int) -> Moment:
        if not 0 <= number < len(self.moments):
            raise UserError(f"moment {number}: there are moments 0 to {len(self.moments) - 1}")
        return self.moments[number]

    def path(self, number: int | None = None) -> list[Moment]:
        """The moments from the beginning to `number` (default: here)."""
        found: list[Moment] = []
        at = self.here if number is None else self.moment(number).number
        while at is not None:
            found.append(self.moments[at])
            at = self.moments[at].parent  # type: ignore[assignment]
        return found[::-1]

    def persistence(self, number: int | None = None) -> dict[str, float]:
        """How much of an edit is left at a moment: 1 all of it, 0 nothing. Per picture; empty where nothing was edited.

        The difference between the moment and its unedited twin, projected on the difference at the edit. A thing that
        moves away from where it was painted counts as gone.
        """
        moment = self.now if number is None else self.moment(number)
        if moment.twin is None or moment.origin is None:
            return {}
        root, found = self.moments[moment.origin], {}
        assert root.twin is not None, root.number
        for key, picture in moment.answer.pictures.items():
            first = difference(root.answer.pictures[key], root.twin.pictures[key])
            size = float((first * first).sum())
            left = difference(picture, moment.twin.pictures[key])
            found[key] = float((first * left).sum()) / size if size else 0.0
        return found

    def shown(self, moment: Moment) -> Arrays:
        """What a moment looks like, with what a model does not decode as it was at the beginning."""
        return {**self.first_obs, **moment.answer.pictures, **moment.answer.vectors}

    def _luck(self, steps: int) -> int:
        return (self.seed * 1_000_033 + steps) % 2**40

    def _note(self, event: dict[str, object]) -> None:
        self.events.append(event)

    def _check_room(self) -> None:
        if len(self.moments) >= self.most:
            raise UserError(f"the tree holds {self.most} moments, which is its limit: save it and start a new one")


def check_action(action: int | Sequence[float] | np.ndarray, spec: DataSpec) -> np.ndarray:
    """An action as the model takes it, float32 `[A]`. Raises `UserError` for one that is outside the space."""
    kind = spec.action
    if isinstance(action, bool | str):
        raise UserError(f"the action {action!r} is not a number")
    if isinstance(action, int | np.integer):
        if kind.kind != "discrete" or not 0 <= action < kind.size:
            known = f"a choice from 0 to {kind.size - 1}" if kind.kind == "discrete" else f"{kind.size} numbers"
            raise UserError(f"the action {action} is outside the action space: want {known}")
        return np.eye(kind.size, dtype=np.float32)[action]
    try:
        row = np.asarray(action, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"the action {str(action)[:60]} is not made of numbers") from error
    if row.shape != (kind.size,) or not np.isfinite(row).all():
        raise UserError(f"the action {str(action)[:60]} is outside the action space: want {kind.size} finite numbers")
    if kind.kind == "discrete" and (sorted(row.tolist()) != [0.0] * (kind.size - 1) + [1.0]):
        raise UserError(f"the action {row.tolist()} is no choice: want one 1 and {kind.size - 1} zeros")
    if kind.kind == "continuous" and np.abs(row).max(initial=0) > 1:
        raise UserError(f"the action {row.tolist()} is outside [-1, 1]")
    return row


def check_obs(obs: Mapping[str, np.ndarray], spec: DataSpec) -> Arrays:
    """An observation of all keys as arrays: pictures uint8 `[H, W, 3]`, numbers float32. Raises `UserError`."""
    return {key: check_key(key, obs.get(key), of) for key, of in spec.obs.items()}


def check_key(key: str, value: np.ndarray | None, of: KeySpec) -> np.ndarray:
    if value is None:
        raise UserError(f"the observation has no {key!r}")
    array, shape = np.asarray(value), of.shape
    wanted = (shape[1], shape[2], shape[0]) if of.kind == "image" else shape
    if array.shape != wanted:
        raise UserError(f"{key!r} has the shape {array.shape}, but the model sees {wanted}")
    if of.kind == "image":
        if array.dtype != np.uint8:
            raise UserError(f"{key!r} is {array.dtype}, but a picture must be uint8")
        return array
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{key!r} holds a number that is not finite")
    return array


def to_tensors(obs: Mapping[str, np.ndarray], spec: DataSpec) -> dict[str, Tensor]:
    """Rows of one, `[1, ...]`, as models see them."""
    found = {}
    for key, of in spec.obs.items():
        array = obs[key].transpose(2, 0, 1) if of.kind == "image" else obs[key]
        found[key] = torch.from_numpy(np.ascontiguousarray(array))[None]
    return found


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of two pictures, in [-1, 1]."""
    return (a.astype(np.float32) - b.astype(np.float32)) / 255


def residuals(expected: Answer, seen: Arrays) -> dict[str, float]:
    """Root mean square between what was decoded and what was seen, by key."""
    found = {key: difference(picture, seen[key]) for key, picture in expected.pictures.items()}
    found |= {key: vector - seen[key] for key, vector in expected.vectors.items()}
    return {key: float(np.sqrt(np.square(error).mean())) for key, error in found.items()}
