"""The contract: what a world model is, on one page. Consumers are written against this file and never against a family.

B batch, T time, H horizon, A action size, F feature size, C H W image channels, height, width.

A world model encodes what is observed into a *belief*, predicts the next belief from an action, and reads things out of
a belief. The belief is a value (`State`): no verb changes one or keeps one, so branching, undo, particles and what-if
are plain Python. `obs` is `{key: Tensor}`, batch first, images uint8 `[B, C, H, W]`. Actions are float `[B, A]`:
discrete ones one-hot, continuous ones in [-1, 1] (`ActionSpec.scale`). A context that does not change, such as a
language task, is a key of `obs`. What is sampled is drawn from `noise` (`worldloom.noise`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar, dataclass_transform

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.noise import NOISE, Noise
from worldloom.schedule import Phase

Obs = Mapping[str, Tensor]
Policy = Callable[["State", Noise], Tensor]
S = TypeVar("S", bound="State")


class State:
    """A belief: a frozen dataclass of tensors `[B, ...]`, made by `@state`.

    Nobody outside a family looks at its fields: all that consumers do with beliefs is here. A field may be a `State`
    itself, or a tuple or dict of tensors and `State`s; a `State`'s own methods are then called. A family whose beliefs
    share something large, such as a cache of keys and values, overrides what would copy it.
    """

    @property
    def features(self) -> Tensor:
        """What heads, policies and probes read: `[..., F]`."""
        raise NotImplementedError(f"{type(self).__name__} must define .features")

    @property
    def shape(self) -> torch.Size:
        """The leading shape: `[B]`, or `[B, T]` of beliefs with a time axis."""
        return self.features.shape[:-1]

    @property
    def nbytes(self) -> int:
        """The memory of this belief alone, in bytes; what a family's beliefs share does not count."""
        return sum(x.nbytes for x in self._leaves())

    def __getitem__(self, index: Any) -> Self:
        """Index the leading dimensions. Like a tensor's, the result may share memory with the whole; see `clone`."""
        return self._map(lambda x: x[index])

    def repeat(self, n: int) -> Self:
        """n particles or candidates of each belief, side by side: `[B, ...]` to `[B * n, ...]`."""
        return self._map(lambda x: x.repeat_interleave(n, 0), lambda x: x.repeat(n))

    def flatten(self) -> Self:
        """Batch and time as one: `[B, T, ...]` to `[B * T, ...]`."""
        return self._map(lambda x: x.flatten(0, 1), lambda x: x.flatten())

    def unflatten(self, batch: int) -> Self:
        """The opposite: `[B * T, ...]` to `[B, T, ...]`."""
        return self._map(lambda x: x.unflatten(0, (batch, -1)), lambda x: x.unflatten(batch))

    def where(self, mask: Tensor, other: Self) -> Self:
        """These beliefs where `mask` is true, `other` elsewhere. The mask is `[B]`, or has more leading dimensions."""

        def choose(x: Tensor, y: Tensor) -> Tensor:
            return torch.where(mask.view(*mask.shape, *[1] * (x.ndim - mask.ndim)), x, y)

        return self._map(choose, lambda x, y: x.where(mask, y), other)

    def isfinite(self) -> Tensor:
        """Whether all numbers of each belief are finite, with the leading shape."""
        shape = self.shape
        return torch.stack([x.isfinite().reshape(*shape, -1).all(-1) for x in self._leaves()]).all(0)

    def detach(self) -> Self:
        return self._map(lambda x: x.detach())

    def clone(self) -> Self:
        """A copy that keeps nothing else in memory, such as the batch that these beliefs were a part of."""
        return self._map(lambda x: x.clone())

    def to(self, device: torch.device | str) -> Self:
        return self._map(lambda x: x.to(device))

    @classmethod
    def stack(cls, states: Sequence[Self], dim: int = 1) -> Self:
        """Beliefs in a row become one belief with a time axis: H times `[B, ...]` to `[B, H, ...]`."""
        if cls is State:
            return type(states[0]).stack(states, dim)
        return states[0]._map(lambda *xs: torch.stack(xs, dim), lambda *xs: type(xs[0]).stack(xs, dim), *states[1:])

    @classmethod
    def cat(cls, states: Sequence[Self], dim: int = 0) -> Self:
        """Batches of beliefs become one batch: `[B1, ...]`, `[B2, ...]` to `[B1 + B2, ...]`; along time with dim 1."""
        if cls is State:
            return type(states[0]).cat(states, dim)
        return states[0]._map(lambda *xs: torch.cat(xs, dim), lambda *xs: type(xs[0]).cat(xs, dim), *states[1:])

    def _map(self, tensors: Callable[..., Tensor], states: Callable[..., Any] | None = None, *others: Self) -> Self:
        """A belief whose every tensor is made by `tensors` of those in this one and in `others`.

        A field that is a `State` is made by `states` (default: the same function). This is many times faster than a
        pytree of the whole.
        """

        def make(*xs: Any) -> Any:
            return (states or tensors)(*xs) if isinstance(xs[0], State) else tensors(*xs)

        made = {}
        for name in self.__dataclass_fields__:  # type: ignore[attr-defined]
            xs = [getattr(each, name) for each in (self, *others)]
            alone = isinstance(xs[0], Tensor | State)
            made[name] = make(*xs) if alone else tree_map(make, *xs, is_leaf=lambda x: isinstance(x, State))
        return type(self)(**made)

    def _leaves(self) -> list[Any]:
        """Every tensor, and every `State`, among the fields."""
        return tree_leaves(self, is_leaf=lambda x: x is not self and isinstance(x, State))


@dataclass_transform(frozen_default=True)
def state(cls: type[S]) -> type[S]:
    """Class decorator: a frozen dataclass whose tensors torch's pytrees (compile, export, vmap) can see."""
    made = dataclass(frozen=True)(cls)
    torch.export.register_dataclass(made, serialized_type_name=f"{made.__module__}.{made.__qualname__}")
    return made


class WorldModel(nn.Module, ABC, Generic[S]):
    """The five verbs. A family is one subclass, `RSSM(WorldModel[RSSMState])`; nothing else is subclassed from it.

    `family` is the registered name, which a family from outside leaves away: it is called as it was found.
    `config_class` is its hyperparameters, a dataclass, and `sizes` presets of them; they are what `build` and
    checkpoints need. `spec` is the data a model was made for, `config` the hyperparameters it was made with.
    `loss_weights` names every term `loss` returns. Stochastic families draw from `noise`, row by row, and never from
    elsewhere; only `predict` and `imagine` heed its temperature. Grad modes, devices, precision and seeds belong to
    the caller.

    `renamed` are hyperparameters of earlier versions and what they are called now, `renamed_tensors` the last parts of
    names of tensors, so that their runs are still read.

    `part_types` names the submodules that can come from another run, with the class (or the family) each must be of; a
    family that has any takes `parts`, `{name: module}`, beside its config. `phases` are those of its training.
    """

    family: ClassVar[str]
    config_class: ClassVar[type]
    sizes: ClassVar[Mapping[str, Any]]
    renamed: ClassVar[Mapping[str, str]] = {}
    renamed_tensors: ClassVar[Mapping[str, str]] = {}
    part_types: ClassVar[Mapping[str, type | str]] = {}
    phases: ClassVar[tuple[Phase, ...]] = (Phase(),)
    imagines_jointly: ClassVar[bool] = False
    """Whether `imagine` makes several frames together, and so is not the scan of `predict`."""
    spec: DataSpec
    config: Any
    loss_weights: dict[str, float]
    frozen: tuple[str, ...] = ()

    @abstractmethod
    def start(self, obs: Obs, noise: Noise = NOISE) -> S:
        """The posterior belief after the first observation of an episode."""

    @abstractmethod
    def observe(self, state: S, action: Tensor, obs: Obs, noise: Noise = NOISE) -> S:
        """The posterior belief after `action` `[B, A]` led to `obs`."""

    @abstractmethod
    def predict(self, state: S, action: Tensor, noise: Noise = NOISE) -> S:
        """The prior belief after `action` `[B, A]`, without an observation."""

    @property
    @abstractmethod
    def decodes(self) -> tuple[str, ...]:
        """The keys `decode` knows: observation keys, and "reward" and "terminated" where the data has them.

        Some families know more: "value" (the discounted return expected from here on), "action" (what the model's own
        policy prior would do, `[..., A]` in model units), "disagreement" (of an ensemble's members, `[...]`).
        """

    @abstractmethod
    def decode(self, state: S, key: str) -> Tensor:
        """The expected value of `key` given the belief, for any leading shape `[...]` of the belief.

        An image is float in [0, 1] `[..., C, H, W]`, a vector is in the data's own units `[..., D]`, "reward" is
        `[...]`, "terminated" is a probability `[...]`. Raises `UserError` for a key that is not in `decodes`.
        """

    @abstractmethod
    def loss(self, segment: Segment, belief: S | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        """Named loss terms, each `[B, T]` or a scalar. The trainer masks, weighs and sums them.

        `belief` is the result of `track` on this segment where the caller has it already, with its gradients: learning
        a policy from the same beliefs then costs no second pass.
        """

    def forward(self, segment: Segment, belief: S | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        """`loss`, because DDP, FSDP and compile hook `forward`."""
        return self.loss(segment, belief, noise)

    def freeze(self, part: str) -> None:
        """Keep a part as it is from now on: it takes no gradient, stays in eval mode and is in no checkpoint."""
        self.frozen = (*self.frozen, part)
        self.get_submodule(part).requires_grad_(False).eval()

    def current_name(self, tensor: str) -> str:
        """The name today of a tensor that an earlier version saved."""
        prefix, dot, last = tensor.rpartition(".")
        return prefix + dot + self.renamed_tensors.get(last, last)

    def own_state(self) -> dict[str, Tensor]:
        """The tensors a checkpoint holds: all but those of frozen parts, which are another run's."""
        others = tuple(f"{part}." for part in self.frozen)
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(others)}

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.frozen:
            self.get_submodule(part).eval()
        return self

    def after_update(self) -> None:
        """What follows an optimiser step, such as moving the slow copy of a value function. Nothing, by default."""

    def track(self, obs: Obs, actions: Tensor, noise: Noise = NOISE) -> S:
        """The belief at each row of `obs` `[B, T, ...]`, `actions` `[B, T, A]` (the last row is not used): `[B, T]`."""
        belief = self.start({k: v[:, 0] for k, v in obs.items()}, noise)
        beliefs = [belief]
        for t in range(1, actions.shape[1]):
            belief = self.observe(belief, actions[:, t - 1], {k: v[:, t] for k, v in obs.items()}, noise)
            beliefs.append(belief)
        return type(belief).stack(beliefs)

    def imagine(self, state: S, actions: Tensor, noise: Noise = NOISE) -> S:
        """The open-loop beliefs after each of `actions` `[B, H, A]`: `[B, H]`."""
        beliefs = []
        for action in actions.unbind(1):
            state = self.predict(state, action, noise)
            beliefs.append(state)
        return type(state).stack(beliefs)


def dream(model: WorldModel[S], state: S, policy: Policy, horizon: int, noise: Noise = NOISE) -> tuple[S, Tensor]:
    """A policy acting inside the model from `state` `[B]`: beliefs it acted on `[B, H]`, its actions `[B, H, A]`.

    What model and policy sample is drawn from `noise`, in turns.
    """
    states: list[S] = []
    actions: list[Tensor] = []
    for t in range(horizon):
        if t:
            state = model.predict(state, actions[-1], noise)
        states.append(state)
        actions.append(policy(state, noise))
    return type(state).stack(states), torch.stack(actions, 1)
