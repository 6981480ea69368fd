"""A model's forecast of the rules: an expected margin and a spread for every step of a trajectory.

N trajectories, P particles of each, H horizon, R rules, A action size.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.limits import at_least, check_limits
from worldloom.model import Obs, State, WorldModel
from worldloom.noise import NOISE, Noise
from worldloom.safety.rules import Rule, Values, margins, own_units, read_by

FallbackFunction = Callable[[Values], Tensor]


@dataclass(frozen=True)
class DecodedValues(Mapping[str, Tensor]):
    """The values of a belief, decoded on access; keys in `observed` have their observed values."""

    model: WorldModel
    state: State
    observed: Mapping[str, Tensor]

    @classmethod
    def now(cls, model: WorldModel, state: State, obs: Obs) -> "DecodedValues":
        """The present: vectors as observed, everything else decoded from the belief."""
        return cls(model, state, {key: obs[key].float() for key in model.spec.vector_keys})

    def __getitem__(self, key: str) -> Tensor:
        return self.observed[key] if key in self.observed else self.model.decode(self.state, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.model.decodes)

    def __len__(self) -> int:
        return len(self.model.decodes)


@dataclass(frozen=True)
class Fallback:
    """The action where no other is known to be safe: in model units, or a function of the values."""

    action: tuple[float, ...] | FallbackFunction

    def __call__(self, values: DecodedValues) -> Tensor:
        """`[N, A]` in model units, always finite. Raises `UserError` for an action of the wrong size."""
        features, spec = values.state.features, values.model.spec.action
        if not callable(self.action):
            return features.new_tensor(self.action).expand(len(features), -1)
        action = self.action(values)
        if not isinstance(action, Tensor) or action.shape != (len(features), spec.size):
            got = tuple(action.shape) if isinstance(action, Tensor) else type(action).__name__
            raise UserError(f"the fallback returned {got}, but it must return actions {(len(features), spec.size)}")
        action = action.nan_to_num(0.0)
        return action.clamp(-1, 1) if spec.kind == "continuous" else action

    def check(self, spec: DataSpec) -> None:
        if callable(self.action):
            return
        if len(self.action) != spec.action.size:
            raise UserError(f"the fallback has {len(self.action)} numbers, but the action has {spec.action.size}")
        if not all(-1 <= number <= 1 for number in self.action):
            raise UserError(f"the fallback is {self.action}, but it must lie in [-1, 1], the units of the model")


@dataclass(frozen=True)
class Forecast:
    """margin and spread `[N, H, R]`, the actions `[N, H, A]` and values `{key: [N, H, D]}` of the mean trajectory."""

    margin: Tensor
    spread: Tensor
    actions: Tensor
    values: dict[str, Tensor]


@dataclass(frozen=True)
class Forecaster:
    """Imagines trajectories and computes the margins of the rules on them.

    The spread is the standard deviation over `particles` of a stochastic model, or, with one particle, what the model
    decodes as "disagreement"; 0 where it has neither, so that calibration then uses the plain residual alone.
    """

    model: WorldModel
    rules: tuple[Rule, ...]
    particles: Annotated[int, at_least(1)] = 1

    def __post_init__(self) -> None:
        check_limits(self, "the number of {}".format)

    @property
    def keys(self) -> tuple[str, ...]:
        return read_by(self.rules)

    def now(self, state: State, obs: Obs, action: Tensor) -> Tensor:
        """The margins `[B, R]` after `action` `[B, A]` (model units) led to `obs`."""
        return margins(self.rules, DecodedValues.now(self.model, state, obs), own_units(action, self.model.spec.action))

    def predict(
        self,
        state: State,
        prefix: Tensor,
        fallback: Fallback | None = None,
        horizon: int = 0,
        imagined: State | None = None,
        noise: Noise = NOISE,
    ) -> Forecast:
        """From beliefs `[N]`: the actions `prefix` `[N, F, A]`, then the fallback in closed loop up to `horizon`.

        `imagined` `[N, F]` are the beliefs after the prefix where they are known; they are used with one particle only.
        """
        particles = state.repeat(self.particles)
        actions = prefix.repeat_interleave(self.particles, 0)
        known = imagined if self.particles == 1 else None
        visited = []
        if actions.shape[1]:
            visited.append(self.model.imagine(particles, actions, noise) if known is None else known)
        last = visited[0][:, -1] if visited else particles
        tail, taken = self._fall_back(last, fallback, horizon - actions.shape[1], noise)
        states = State.cat([*visited, *tail], dim=1)
        return self._read(states, torch.cat([actions, *taken], 1))

    def _fall_back(
        self, state: State, fallback: Fallback | None, steps: int, noise: Noise
    ) -> tuple[list[State], list[Tensor]]:
        visited, taken = [], []
        for _ in range(steps if fallback else 0):
            assert fallback is not None
            action = fallback(DecodedValues(self.model, state, {}))
            state = self.model.predict(state, action, noise)
            visited.append(state[:, None])
            taken.append(action[:, None])
        return visited, taken

    def _read(self, states: State, actions: Tensor) -> Forecast:
        values = {key: self.model.decode(states, key) for key in self.keys}
        found = self._grouped(margins(self.rules, values, own_units(actions, self.model.spec.action)))
        mean = {key: self._grouped(value).mean(1) for key, value in values.items()}
        return Forecast(found.mean(1), self._spread(states, found), self._grouped(actions).mean(1), mean)

    def _spread(self, states: State, found: Tensor) -> Tensor:
        if self.particles > 1:
            return found.std(1, correction=0)
        if "disagreement" in self.model.decodes:
            return self.model.decode(states, "disagreement")[..., None].expand(-1, -1, len(self.rules))
        return torch.zeros_like(found[:, 0])

    def _grouped(self, values: Tensor) -> Tensor:
        """`[N * P, ...]` to `[N, P, ...]`."""
        return values.unflatten(0, (-1, self.particles))
