"""Safety rules, defined outside the model. A rule is a signed margin in the units of the data.

A margin of 0 or more is safe; below 0 the rule is broken by that much. Leading shape `[...]` is anything; D is the size
of a vector key, A the action size. The margin of step k of a trajectory is computed from the values after it and the
action that led there. Values and actions are in the data's own units, never in the model's.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, isnan
from typing import ClassVar

import torch
from torch import Tensor

from worldloom.data.spec import ActionSpec, DataSpec
from worldloom.errors import UserError, unknown
from worldloom.model import Obs

Values = Mapping[str, Tensor]
LEAST_PROBABILITY = 1e-6  # log-odds are finite between this and 1 minus this


class Rule(ABC):
    """A condition that must hold. `name` stands in logs, `keys` are what it reads besides the action."""

    name: str
    keys: tuple[str, ...]
    resolution: ClassVar[float] = 1e-6
    """The least unit in which calibration counts a prediction error of this rule."""

    @property
    def identity(self) -> str:
        """How a calibration identifies the rule: by all its numbers, or your own function by its name and keys."""
        return f"{self.name}, a function of {', '.join(self.keys) or 'the action'}"

    @abstractmethod
    def margin(self, values: Values, action: Tensor) -> Tensor:
        """`[...]` from values `{key: [..., D]}` and actions `[..., A]`: at least 0 where the rule is kept."""

    def shortfall(self, predicted: Tensor, true: Tensor) -> Tensor:
        """How far true margins lie below predicted ones, `[...]` from both `[...]`: the error that matters."""
        return predicted - true

    def check(self, spec: DataSpec, decodes: Sequence[str]) -> None:
        """Raise `UserError` when a model of this data cannot decode what the rule reads."""
        for key in self.keys:
            if key not in decodes:
                raise UserError(f"rule {self.name!r}: {unknown('key', key, decodes)} A rule needs a key it can decode")


class KeyRule(Rule):
    """A rule that reads one key, and is identified by all its numbers."""

    key: str

    @property
    def keys(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.key,)

    @property
    def identity(self) -> str:
        return repr(self)


@dataclass(frozen=True)
class Limit(KeyRule):
    """Entry `index` of `key` stays within [low, high]; one side may be left open.

    Without an index the key is one number, such as a learned "cost" that grows; for one that is 0 or 1 see `Never`.
    """

    key: str
    index: int | None = None
    low: float = -inf
    high: float = inf
    label: str = ""

    def __post_init__(self) -> None:
        check_range(self.name, self.low, self.high)

    @property
    def name(self) -> str:  # type: ignore[override]
        entry = self.key if self.index is None else f"{self.key}[{self.index}]"
        return self.label or f"{entry} in [{self.low:g}, {self.high:g}]"

    def margin(self, values: Values, action: Tensor) -> Tensor:
        value = values[self.key] if self.index is None else values[self.key][..., self.index]
        return within(value, self.low, self.high)

    def check(self, spec: DataSpec, decodes: Sequence[str]) -> None:
        super().check(spec, decodes)
        if self.index is not None:
            check_index(self.name, spec, self.key, (self.index,))
        elif self.key in spec.keys and spec.keys[self.key].shape:
            raise UserError(f"rule {self.name!r}: {self.key!r} has several entries: give the index of one")


@dataclass(frozen=True)
class Never(KeyRule):
    """The signal `key`, 0 or 1 and learned from the data, is never 1: a "cost", a collision, a fall.

    The margin is minus the log-odds of its predicted probability, so 0 at one half. Such a signal says nothing of how
    near it was, so a prediction errs only where the signal is 1 and was thought improbable, by the log-odds it lacks
    to one half. Calibration thus finds how improbable the signal must be before the rule counts as kept.
    """

    key: str
    label: str = ""
    resolution: ClassVar[float] = 1.0

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.label or f"never {self.key}"

    def margin(self, values: Values, action: Tensor) -> Tensor:
        return -values[self.key].logit(LEAST_PROBABILITY)

    def shortfall(self, predicted: Tensor, true: Tensor) -> Tensor:
        return predicted.clamp(min=0) * (true < 0)  # a product, so that a prediction of NaN stays one

    def check(self, spec: DataSpec, decodes: Sequence[str]) -> None:
        super().check(spec, decodes)
        key = spec.keys.get(self.key)
        if key is None or key.kind != "flag":
            found = "no entry of the data" if key is None else f"of kind {key.kind}"
            raise UserError(f"rule {self.name!r}: {self.key!r} is {found}, but the rule needs a flag: use a Limit")


@dataclass(frozen=True)
class ActionLimit(Rule):
    """Entry `index` of the action, in the data's own units, stays within [low, high]. Known without a model."""

    index: int
    low: float = -inf
    high: float = inf
    label: str = ""
    keys: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        check_range(self.name, self.low, self.high)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.label or f"action[{self.index}] in [{self.low:g}, {self.high:g}]"

    @property
    def identity(self) -> str:
        return repr(self)

    def margin(self, values: Values, action: Tensor) -> Tensor:
        return within(action[..., self.index], self.low, self.high)

    def check(self, spec: DataSpec, decodes: Sequence[str]) -> None:
        if not 0 <= self.index < spec.action.size:
            raise UserError(f"rule {self.name!r}: the action has {spec.action.size} entries, so no entry {self.index}")


@dataclass(frozen=True)
class Circle:
    """A disc, ball or interval about `centre`."""

    centre: tuple[float, ...]
    radius: float

    def distance(self, place: Tensor) -> Tensor:
        """From the edge, negative inside: `[..., n]` to `[...]`."""
        return (place - place.new_tensor(self.centre)).norm(dim=-1) - self.radius

    def describe(self) -> str:
        return f"the circle of radius {self.radius:g} about ({', '.join(f'{x:g}' for x in self.centre)})"


@dataclass(frozen=True)
class Box:
    """Everything between the corners `low` and `high`."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def distance(self, place: Tensor) -> Tensor:
        """From the faces, negative inside: `[..., n]` to `[...]`."""
        beyond = torch.maximum(place.new_tensor(self.low) - place, place - place.new_tensor(self.high))
        return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0)

    def describe(self) -> str:
        ends = (f"[{low:g}, {high:g}]" for low, high in zip(self.low, self.high, strict=True))
        return f"the box {' x '.join(ends)}"


@dataclass(frozen=True)
class Forbidden(KeyRule):
    """The entries `index` of `key` stay out of `region`, by at least `clearance`."""

    key: str
    index: tuple[int, ...]
    region: Circle | Box
    clearance: float = 0.0
    label: str = ""

    def __post_init__(self) -> None:
        corners = [self.region.low, self.region.high] if isinstance(self.region, Box) else [self.region.centre]
        for corner in corners:
            if len(corner) != len(self.index):
                named = self.label or self.key  # `name` would describe the region, which is not valid here
                raise UserError(f"rule {named!r}: {len(self.index)} entries, but a region of {len(corner)}")
            if not all(map(isfinite, corner)):
                raise UserError(f"rule {self.name!r}: the region lies at {corner}, but that must be finite")
        if isinstance(self.region, Circle):
            check_range(self.name, 0, self.region.radius)
            check_range(self.name, self.region.radius, inf)
        else:
            for low, high in zip(self.region.low, self.region.high, strict=True):
                check_range(self.name, low, high)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.label or f"{self.key} stays out of {self.region.describe()}"

    def margin(self, values: Values, action: Tensor) -> Tensor:
        return self.region.distance(values[self.key][..., list(self.index)]) - self.clearance

    def check(self, spec: DataSpec, decodes: Sequence[str]) -> None:
        super().check(spec, decodes)
        check_index(self.name, spec, self.key, self.index)


@dataclass(frozen=True)
class Predicate(Rule):
    """Your own function of the values of `keys` and the action: a margin `[...]`, or true where the rule is kept.

    With a margin, calibration knows how near a violation is; true and false count as 1 and -1.
    """

    name: str
    function: Callable[[Values, Tensor], Tensor]
    keys: tuple[str, ...] = ()

    def margin(self, values: Values, action: Tensor) -> Tensor:
        found = self.function(values, action)
        if not isinstance(found, Tensor) or found.shape != action.shape[:-1]:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"rule {self.name!r} returned {got}, but it must return one margin a row: {action.shape[:-1]}"
            )
        return 2.0 * found - 1 if found.dtype == torch.bool else found.float()


def margins(rules: Sequence[Rule], values: Values, action: Tensor) -> Tensor:
    """Every rule's margin side by side: `[..., R]`."""
    return torch.stack([rule.margin(values, action) for rule in rules], -1)


def shortfalls(rules: Sequence[Rule], predicted: Tensor, true: Tensor) -> Tensor:
    """Every rule's shortfall of margins `[..., R]` that were predicted and true ones: `[..., R]`."""
    pairs = zip(rules, predicted.unbind(-1), true.unbind(-1), strict=True)
    return torch.stack([rule.shortfall(ours, theirs) for rule, ours, theirs in pairs], -1)


def read_by(rules: Sequence[Rule]) -> tuple[str, ...]:
    """The keys that `rules` read, each once."""
    return tuple(dict.fromkeys(key for rule in rules for key in rule.keys))


def as_decoded(obs: Obs, spec: DataSpec) -> dict[str, Tensor]:
    """Observations in the units in which a model decodes them: images in [0, 1], everything else unchanged."""
    return {key: value / 255 if key in spec.image_keys else value for key, value in obs.items()}


def own_units(action: Tensor, spec: ActionSpec) -> Tensor:
    """Model units `[..., A]` to those of the data: `ActionSpec.unscale` for tensors."""
    if spec.kind == "discrete" or spec.low is None or spec.high is None:
        return action
    low, high = action.new_tensor(spec.low), action.new_tensor(spec.high)
    return action * (high - low) / 2 + (high + low) / 2


def check_rules(rules: Sequence[Rule], spec: DataSpec, decodes: Sequence[str]) -> None:
    """Raise `UserError` unless there are rules, their names differ, and the model decodes what each reads."""
    if not rules:
        raise UserError("there are no rules: a shield without a rule would accept everything")
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two rules are called {name!r}: label them, so that the log can name them")
    for rule in rules:
        rule.check(spec, decodes)


def check_range(name: str, low: float, high: float) -> None:
    if isnan(low) or isnan(high) or not low < high or not (isfinite(low) or isfinite(high)):
        raise UserError(f"rule {name!r} is bounded by [{low}, {high}]: low must lie below high, and one must be finite")


def check_index(name: str, spec: DataSpec, key: str, index: Sequence[int]) -> None:
    size = spec.keys[key].shape[0] if key in spec.keys and len(spec.keys[key].shape) == 1 else 0
    if not size:
        raise UserError(f"rule {name!r} reads single entries, but {key!r} is no vector: use a Predicate")
    for entry in index:
        if not (isinstance(entry, int) and 0 <= entry < size):
            raise UserError(f"rule {name!r}: {key!r} has {size} entries, 0 to {size - 1}, so no entry {entry}")


def within(value: Tensor, low: float, high: float) -> Tensor:
    return torch.minimum(value - low, high - value)
