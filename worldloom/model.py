"""The contract: what a world model is, on one page. Consumers are written against this file and never against a family.

B batch, T time, H horizon, A action size, F feature size, C H W image channels, height, width.

A world model encodes what is observed into a *belief*, predicts the next belief from an action, and reads things out of
a belief. The belief is a value (`State`): no verb changes one or keeps one, so branching, undo, particles and what-if
are plain Python. `obs` is `{key: Tensor}`, batch first, images uint8 `[B, C, H, W]`. Actions are float `[B, A]`:
discrete ones one-hot, continuous ones in [-1, 1] (`ActionSpec.scale`). A context that does not change, such as a
language task, is a key of `obs`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.schedule import Phase

Obs = Mapping[str, Tensor]
Policy = Callable[["State"], Tensor]
S = TypeVar("S", bound="State")


class State:
    """A belief: a frozen dataclass of tensors `[B, ...]`, made by `@state`. Indexing acts on every tensor."""

    @property
    def features(self) -> Tensor:
        """What heads, policies and probes read: `[..., F]`."""
        raise NotImplementedError(f"{type(self).__name__} must define .features")

    def __getitem__(self, index: Any) -> Self:
        return tree_map(lambda x: x[index], self)

    def repeat(self, n: int) -> Self:
        """n particles or candidates of each belief, side by side: `[B, ...]` to `[B * n, ...]`."""
        return tree_map(lambda x: x.repeat_interleave(n, 0), self)

    def detach(self) -> Self:
        return tree_map(Tensor.detach, self)

    @classmethod
    def stack(cls, states: Sequence[Self], dim: int = 1) -> Self:
        """Beliefs in a row become one belief with a time axis: H times `[B, ...]` to `[B, H, ...]`."""
        return tree_map(lambda *xs: torch.stack(xs, dim), *states)

    @classmethod
    def cat(cls, states: Sequence[Self]) -> Self:
        """Batches of beliefs become one batch: `[B1, ...]`, `[B2, ...]` to `[B1 + B2, ...]`."""
        return tree_map(lambda *xs: torch.cat(xs), *states)


@dataclass_transform(frozen_default=True)
def state(cls: type[S]) -> type[S]:
    """Class decorator: a frozen dataclass whose tensors torch's pytrees (compile, export, vmap) can see."""
    made = dataclass(frozen=True)(cls)
    torch.export.register_dataclass(made, serialized_type_name=f"{made.__module__}.{made.__qualname__}")
    return made


class WorldModel(nn.Module, ABC):
    """The five verbs. A family is one subclass; nothing else in the kit is subclassed from it.

    `family` is the registered name and `spec` the data it was made for. `loss_weights` names every term `loss` returns.
    Stochastic families sample in `predict` and `observe` from torch's generator; grad modes, devices, precision and
    seeds belong to the caller. So does `temperature`, which scales how randomly `predict` samples: 1 is as learned, 0
    always the likeliest.

    `part_types` names the submodules that can come from another run, with the class (or the family) each must be of; a
    family that has any takes `parts`, `{name: module}`, beside its config. `phases` are those of its training.
    """

    family: ClassVar[str]
    part_types: ClassVar[Mapping[str, type | str]] = {}
    phases: ClassVar[tuple[Phase, ...]] = (Phase(),)
    spec: DataSpec
    loss_weights: dict[str, float]
    temperature: float = 1.0
    frozen: tuple[str, ...] = ()

    @abstractmethod
    def start(self, obs: Obs) -> State:
        """First look: the belief after one observation, nothing before it."""

    @abstractmethod
    def observe(self, state: State, action: Tensor, obs: Obs) -> State:
        """Act, then look: the posterior belief after `action` `[B, A]` led to `obs`."""

    @abstractmethod
    def predict(self, state: State, action: Tensor) -> State:
        """Act with eyes closed: the prior belief after `action` `[B, A]`."""

    @property
    @abstractmethod
    def decodes(self) -> tuple[str, ...]:
        """The keys `decode` knows: observation keys, and "reward" and "terminated" where the data has them.

        Some families know more: "value" (the discounted return expected from here on), "action" (what the model's own
        policy prior would do, `[..., A]` in model units), "disagreement" (of an ensemble's members, `[...]`).
        """

    @abstractmethod
    def decode(self, state: State, key: str) -> Tensor:
        """The expected value of `key` given the belief, for any leading shape `[...]` of the belief.

        An image is float in [0, 1] `[..., C, H, W]`, a vector is in the data's own units `[..., D]`, "reward" is
        `[...]`, "terminated" is a probability `[...]`. Raises `UserError` for a key that is not in `decodes`.
        """

    @abstractmethod
    def loss(self, segment: Segment, belief: State | None = None) -> dict[str, Tensor]:
        """Named loss terms, each `[B, T]` or a scalar. The trainer masks, weighs and sums them.

        `belief` is the result of `track` on this segment where the caller has it already, with its gradients: learning
        a policy from the same beliefs then costs no second pass.
        """

    def forward(self, segment: Segment, belief: State | None = None) -> dict[str, Tensor]:
        """`loss`, because DDP, FSDP and compile hook `forward`."""
        return self.loss(segment, belief)

    def freeze(self, part: str) -> None:
        """Keep a part as it is from now on: it takes no gradient, stays in eval mode and is in no checkpoint."""
        self.frozen = (*self.frozen, part)
        self.get_submodule(part).requires_grad_(False).eval()

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

    def track(self, obs: Obs, actions: Tensor) -> State:
        """The belief at each row of `obs` `[B, T, ...]`, `actions` `[B, T, A]` (the last row is not used): `[B, T]`."""
        belief = self.start({k: v[:, 0] for k, v in obs.items()})
        beliefs = [belief]
        for t in range(1, actions.shape[1]):
            belief = self.observe(belief, actions[:, t - 1], {k: v[:, t] for k, v in obs.items()})
            beliefs.append(belief)
        return State.stack(beliefs)

    def imagine(self, state: State, actions: Tensor) -> State:
        """The beliefs after each of `actions` `[B, H, A]`, eyes closed: `[B, H]`."""
        beliefs = []
        for action in actions.unbind(1):
            state = self.predict(state, action)
            beliefs.append(state)
        return State.stack(beliefs)


def dream(model: WorldModel, state: State, policy: Policy, horizon: int) -> tuple[State, Tensor]:
    """A policy acting inside the model from `state` `[B]`: beliefs it acted on `[B, H]`, its actions `[B, H, A]`."""
    states: list[State] = []
    actions: list[Tensor] = []
    for t in range(horizon):
        if t:
            state = model.predict(state, actions[-1])
        states.append(state)
        actions.append(policy(state))
    return State.stack(states), torch.stack(actions, 1)
