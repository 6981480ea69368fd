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

Kind = Literal["start", "step", "watch", "look", "edit"]
MOST_MOMENTS = 10_000


@dataclass(frozen=True)
class Moment:
    """One node of the tree. `steps` from the beginning, and `blind` since somebody last looked.

    source: the moment in which the player was when this one was made. For a look or an edit that is not the parent but
    the moment that was corrected, which stays in the tree as a branch of its own.
    seen: what was shown to the model here, beyond what it expected.
    residual: how far what was expected lay from what was seen (root mean square, pictures in [0, 1]).
    twin: in a branch that was edited at the moment `edited`, the same moment without the edit.
    """

    number: int
    source: int | None
    parent: int | None
    kind: Kind
    action: tuple[float, ...] | None
    steps: int
    blind: int
    answer: Answer
    seen: Arrays = field(default_factory=dict)
    residual: dict[str, float] = field(default_factory=dict)
    twin: Answer | None = None
    edited: int | None = None

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
    kind: Kind
    source: int | None = None
    parent: int | None = None
    action: tuple[float, ...] | None = None
    seen: Arrays = field(default_factory=dict)


class Session:
    """`step`, `rewind`, `fork`, `reanchor` and `edit` on a tree of moments. `here` is where the player is.

    Each verb is a wish that the engine grants. Whoever serves many players asks for the wishes themselves
    (`wish_step` and so on), has the engine answer all of them at once, and hands the answers to `grant`.
    """

    def __init__(self, engine: Engine, obs: Mapping[str, np.ndarray], seed: int = 0, most: int = MOST_MOMENTS):
        self.engine, self.seed, self.most = engine, seed, most
        self.first_obs = check_obs(obs, self.spec)
        self.moments: list[Moment] = []
        self.children: dict[int, list[int]] = {}
        start = Ask(self._luck(0), obs=to_tensors(self.first_obs, self.spec))
        self.here = self.fulfil(Wish((start,), "start", seen=self.first_obs)).number

    @property
    def spec(self) -> DataSpec:
        return self.engine.model.spec

    @property
    def now(self) -> Moment:
        return self.moments[self.here]

    def step(self, action: int | Sequence[float] | np.ndarray) -> Moment:
        """Do `action`: a choice's number, or numbers in [-1, 1]. What was done here before is gone to again."""
        known = self.known(action)
        return self.fork(known) if known is not None else self.fulfil(self.wish_step(action))

    def rewind(self, steps: int) -> Moment:
        """Go back along the branch, at most to the beginning."""
        if steps < 0:
            raise UserError(f"rewind by {steps} steps: give 0 or more")
        path = self.path()
        return self.fork(path[max(0, len(path) - 1 - steps)].number)

    def fork(self, number: int) -> Moment:
        """Go to any moment of the tree; another action there begins another branch."""
        self.here = self.moment(number).number
        return self.now

    def watch(self, action: int | Sequence[float] | np.ndarray, obs: Mapping[str, np.ndarray]) -> Moment:
        """Do `action` with open eyes: `obs` is what it really led to."""
        return self.fulfil(self.wish_watch(action, obs))

    def reanchor(self, obs: Mapping[str, np.ndarray]) -> Moment:
        """A true observation of this moment arrives: the belief is corrected and the residual kept."""
        return self.fulfil(self.wish_look(obs, "look"))

    def edit(self, obs: Mapping[str, np.ndarray]) -> Moment:
        """Go on as if this moment had looked like `obs`; its twin goes on without the edit."""
        return self.fulfil(self.wish_look(obs, "edit"))

    def known(self, action: int | Sequence[float] | np.ndarray, at: int | None = None) -> int | None:
        """The moment that `action` has led to already from `at` (default: here)."""
        values = tuple(check_action(action, self.spec).tolist())
        for number in self.children.get(self.here if at is None else at, []):
            if self.moments[number].kind == "step" and self.moments[number].action == values:
                return number
        return None

    def unknown(self, plan: Sequence[int | Sequence[float]], at: int) -> int:
        """How many steps of a plan from `at` have not been done there yet."""
        for done, action in enumerate(plan):
            known = self.known(action, at)
            if known is None:
                return len(plan) - done
            at = known
        return 0

    def wish_step(self, action: int | Sequence[float] | np.ndarray, at: int | None = None) -> Wish:
        """What a step from `at` (default: here) has to ask for."""
        before, row = self.now if at is None else self.moment(at), check_action(action, self.spec)
        self.check_room()
        branches = (before.answer, before.twin) if before.twin is not None else (before.answer,)
        asks = tuple(Ask(self._luck(before.steps + 1), branch.belief, row) for branch in branches)
        return Wish(asks, "step", before.number, before.number, tuple(row.tolist()))

    def wish_watch(self, action: int | Sequence[float] | np.ndarray, obs: Mapping[str, np.ndarray]) -> Wish:
        """What `watch` has to ask for."""
        row, seen = check_action(action, self.spec), check_obs({**self.shown(self.now), **obs}, self.spec)
        self.check_room()
        ask = Ask(self._luck(self.now.steps + 1), self.now.answer.belief, row, to_tensors(seen, self.spec))
        return Wish((ask,), "watch", self.here, self.here, tuple(row.tolist()), seen)

    def wish_look(self, obs: Mapping[str, np.ndarray], kind: Literal["look", "edit"]) -> Wish:
        """What `reanchor` and `edit` have to ask for. Keys that are not given stay as the moment shows them."""
        now, seen = self.now, check_obs({**self.shown(self.now), **obs}, self.spec)
        self.check_room()
        belief, action = None, None
        if now.parent is not None:
            belief, action = self.moments[now.parent].answer.belief, np.asarray(now.action, np.float32)
        ask = Ask(self._luck(now.steps), belief, action, to_tensors(seen, self.spec))
        return Wish((ask,), kind, self.here, now.parent, now.action, seen)

    def fulfil(self, wish: Wish) -> Moment:
        """Ask the engine, and grant."""
        return self.fork(self.grant(wish, self.engine.answer(wish.asks)).number)

    def grant(self, wish: Wish, answers: Sequence[Answer]) -> Moment:
        """The wished-for moment, in the tree; `here` stays where it is."""
        source = None if wish.source is None else self.moments[wish.source]
        acted, looked = wish.kind in ("step", "watch"), wish.kind in ("start", "watch", "look")
        twin, edited = (answers[1], source.edited) if source and len(answers) > 1 else (None, None)
        if source and wish.kind == "edit":
            twin, edited = source.twin or source.answer, len(self.moments)
        moment = Moment(
            number=len(self.moments),
            source=wish.source,
            parent=wish.parent,
            kind=wish.kind,
            action=wish.action,
            steps=source.steps + acted if source else 0,
            blind=0 if source is None or looked else source.blind + acted,
            answer=answers[0],
            seen=wish.seen,
            residual=residuals(source.answer, wish.seen) if source and wish.kind == "look" else {},
            twin=twin,
            edited=edited,
        )
        self.moments.append(moment)
        if wish.parent is not None:
            self.children.setdefault(wish.parent, []).append(moment.number)
        return moment

    def moment(self, number: int) -> Moment:
        if not 0 <= number < len(self.moments):
            raise UserError(f"moment {number}: there are moments 0 to {len(self.moments) - 1}")
        return self.moments[number]

    def path(self, number: int | None = None) -> list[Moment]:
        """The moments from the beginning to `number` (default: here)."""
        found = [self.now if number is None else self.moment(number)]
        while (parent := found[-1].parent) is not None:
            found.append(self.moments[parent])
        return found[::-1]

    def persistence(self, number: int | None = None) -> dict[str, float]:
        """How much of an edit is left at a moment: 1 all of it, 0 nothing. Per picture; empty where nothing was edited.

        The difference between the moment and its unedited twin, projected on the difference at the edit. A thing that
        moves away from where it was painted counts as gone.
        """
        moment = self.now if number is None else self.moment(number)
        if moment.twin is None or moment.edited is None:
            return {}
        root, found = self.moments[moment.edited], {}
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
        return self.seed * 1_000_033 + steps

    def check_room(self, more: int = 1) -> None:
        """Raises `UserError` unless the tree can hold so many moments more."""
        if len(self.moments) + more > self.most:
            full = f"the tree holds {len(self.moments)} moments, and {self.most} are its limit"
            raise UserError(f"{full}: save it and start a new one")


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
