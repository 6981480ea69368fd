"""The range of a search over continuous actions. A action size, D size of a part of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from worldloom.data.spec import ActionSpec
from worldloom.errors import UserError

End = Sequence[float] | float | None


def one_hot_slices(actions: Tensor, choices: Sequence[slice]) -> Tensor:
    """`[..., A]` with the largest number of each of the slices as 1 and its others as 0."""
    whole = actions.clone() if choices else actions
    for part in choices:
        values = whole[..., part]
        whole[..., part] = F.one_hot(values.argmax(-1), values.shape[-1]).to(whole)
    return whole


@dataclass(frozen=True)
class Bounds:
    """The range of an action in model units, `[A]` each; `choices` are the slices in which one number is chosen."""

    low: Tensor
    high: Tensor
    choices: tuple[slice, ...] = ()

    @classmethod
    def of(cls, action: ActionSpec, low: End = None, high: End = None, device: torch.device | None = None) -> "Bounds":
        """The declared range, which is [-1, 1] in model units, or a narrower one.

        A number whose declared range is empty can only be 0. Raises `UserError` when the action is discrete, or the
        range is missing, inverted, not finite, of another size, or wider than the declared one.
        """
        low, high = (
            tuple(end) if isinstance(end, Sequence) and not isinstance(end, str) else end for end in (low, high)
        )
        return _bounds(action, low, high, device or torch.device("cpu"))

    def clip(self, actions: Tensor) -> Tensor:
        """`[..., A]` into the range, and the largest number of each choice to 1, its others to 0."""
        clipped = torch.maximum(torch.minimum(actions, self.high.to(actions)), self.low.to(actions))
        return one_hot_slices(clipped, self.choices)

    def fallback(self, horizon: int) -> Tensor:
        """Zero actions, or as near to zero as the range allows: `[H, A]`."""
        return self.clip(torch.zeros_like(self.low)).expand(horizon, -1)

    def part(self, indices: Sequence[int]) -> "Bounds":
        return Bounds(self.low[list(indices)], self.high[list(indices)])


@lru_cache(maxsize=64)  # needed at every decision, and always the same
@torch.inference_mode(False)
def _bounds(action: ActionSpec, low: End, high: End, device: torch.device) -> Bounds:
    if action.kind == "discrete":
        raise UserError("the action is discrete, and this planner searches continuous ones: use 'categorical'")
    declared = action.low is not None and action.high is not None
    if not declared and (low is None or high is None):
        raise UserError("the data declare no action range: give the planner low and high, in model units")
    least, most = _ends("low", low, -1.0, action.size), _ends("high", high, 1.0, action.size)
    for index, (a, b) in enumerate(zip(least, most, strict=True)):
        name = action.names[index] if action.names else index
        if not (math.isfinite(a) and math.isfinite(b) and a < b):
            raise UserError(f"action {name} is bounded by [{a}, {b}]: low must lie below high, both finite")
        if declared and (a < -1 or b > 1):
            raise UserError(f"action {name} is bounded by [{a}, {b}], but the declared range is -1 to 1 in model units")
    if action.low is not None and action.high is not None:
        _check_declared(action, action.low, action.high)
        empty = [a == b for a, b in zip(action.low, action.high, strict=True)]
        least, most = ([0.0 if e else x for e, x in zip(empty, end, strict=True)] for end in (least, most))
    return Bounds(torch.tensor(least, device=device), torch.tensor(most, device=device), action.choices)


def _ends(which: str, end: End, default: float, size: int) -> list[float]:
    if isinstance(end, str):
        raise UserError(f"{which} is {end!r}, but it must be a number, or one for each number of the action")
    ends = list(end) if isinstance(end, Sequence) else [default if end is None else end] * size
    if len(ends) != size:
        raise UserError(
            f"{which} has {len(ends)} numbers, but the action has {size}: give one for each, or one for all"
        )
    return [float(x) for x in ends]


def _check_declared(action: ActionSpec, low: tuple[float, ...], high: tuple[float, ...]) -> None:
    for index, (a, b) in enumerate(zip(low, high, strict=True)):
        if not a <= b:
            name = action.names[index] if action.names else index
            raise UserError(f"the data declare action {name} from {a} to {b}: low must not lie above high")
