"""A policy on beliefs: a network whose output is a distribution over actions in model units.

F features, A action size.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from math import log, pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.data.spec import ActionSpec
from worldloom.errors import UserError
from worldloom.nets.dense import initialise, mlp
from worldloom.nets.latent import draw
from worldloom.noise import NOISE, Noise


class ActionDistribution(ABC):
    """A policy's distribution over actions, for any leading shape `[...]`."""

    @abstractmethod
    def sample(self, noise: Noise = NOISE) -> Tensor:
        """An action `[..., A]` in model units, without gradients."""

    def rsample(self, noise: Noise = NOISE) -> Tensor:
        """An action `[..., A]` in model units through which gradients flow, where numbers are drawn."""
        raise NotImplementedError(f"{type(self).__name__} has no gradient through its draws")

    def carried_out(self, action: Tensor) -> Tensor:
        """`action` `[..., A]` as the environment, or the model, executes it: clipped to the bounds."""
        return action

    @property
    @abstractmethod
    def mode(self) -> Tensor:
        """The most likely action `[..., A]`."""

    @abstractmethod
    def log_prob(self, action: Tensor) -> Tensor:
        """`[..., A]` to `[...]`, in nats."""

    @property
    @abstractmethod
    def entropy(self) -> Tensor:
        """`[...]`, in nats."""


@dataclass(frozen=True)
class BoundedNormal(ActionDistribution):
    """Independent normals whose means lie in (-1, 1); samples beyond are clipped when executed."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Noise = NOISE) -> Tensor:
        return self.rsample(noise).detach()

    def rsample(self, noise: Noise = NOISE) -> Tensor:
        return torch.addcmul(self.mean, noise.normal(self.mean.shape, self.mean), self.std)

    def carried_out(self, action: Tensor) -> Tensor:
        return action.clamp(-1, 1)

    @property
    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        return -(0.5 * ((action - self.mean) / self.std).square() + self.std.log() + 0.5 * log(2 * pi)).sum(-1)

    @property
    def entropy(self) -> Tensor:
        return (self.std.log() + 0.5 * log(2 * pi) + 0.5).sum(-1)


@dataclass(frozen=True)
class CategoricalAction(ActionDistribution):
    """One of A choices as a one-hot vector; `probs` `[..., A]` are never zero."""

    probs: Tensor

    @cached_property
    def log_probs(self) -> Tensor:
        return self.probs.log()

    def sample(self, noise: Noise = NOISE) -> Tensor:
        return draw(self.probs.detach()[..., None], noise)[..., 0]

    @property
    def mode(self) -> Tensor:
        return F.one_hot(self.probs.argmax(-1), self.probs.shape[-1]).to(self.probs)

    def log_prob(self, action: Tensor) -> Tensor:
        return (self.log_probs * action).sum(-1)

    @property
    def entropy(self) -> Tensor:
        return -(self.probs * self.log_probs).sum(-1)


class Actor(nn.Module):
    """`[..., F]` to an action distribution: DreamerV3's bounded normal, or a softmax mixed with 1 % uniform."""

    unimix = 0.01
    least_std, most_std = 0.1, 1.0

    def __init__(self, features: int, action: ActionSpec, *, units: int, layers: int):
        super().__init__()
        require_bounds(action)
        self.discrete = action.kind == "discrete"
        self.hidden = mlp(features, units, layers)
        self.output = nn.Linear(units, action.size if self.discrete else 2 * action.size)
        self.apply(initialise)
        with torch.no_grad():
            self.output.weight.mul_(0.01)  # every first policy is nearly uniform

    def forward(self, features: Tensor) -> ActionDistribution:
        raw = self.output(self.hidden(features)).float()
        if self.discrete:
            return mixed_choice(raw, self.unimix)
        mean, width = raw.chunk(2, -1)
        span = self.most_std - self.least_std
        return BoundedNormal(mean.tanh(), span * (width + 2).sigmoid() + self.least_std)


class LinearController(nn.Module):
    """`[..., F]` to an action distribution by one linear map, as the controller of World Models (2018).

    The mode of a discrete action is the choice with the highest score; of a continuous one, the tanh of its score.
    """

    unimix, std = 0.01, 0.1

    def __init__(self, features: int, action: ActionSpec):
        super().__init__()
        require_bounds(action)
        self.discrete = action.kind == "discrete"
        self.output = nn.Linear(features, action.size)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> ActionDistribution:
        raw = self.output(features).float()
        if self.discrete:
            return mixed_choice(raw, self.unimix)
        return BoundedNormal(raw.tanh(), torch.full_like(raw, self.std))


def mixed_choice(scores: Tensor, unimix: float) -> CategoricalAction:
    """The softmax of `scores` `[..., A]`, mixed with a share `unimix` of the uniform distribution."""
    return CategoricalAction(scores.softmax(-1) * (1 - unimix) + unimix / scores.shape[-1])


def require_bounds(action: ActionSpec) -> None:
    """Raise `UserError` unless the data have actions that are one choice, or numbers with a range."""
    if not action.size:
        raise UserError("the data have no actions: there is nothing for a policy to learn")
    if action.kind == "mixed":
        raise UserError("a policy learns one choice or numbers, but this action mixes both: plan in the model instead")
    if action.kind == "continuous" and action.low is None:
        raise UserError(
            "the data declare no action range, so the actions of a policy would have no bounds: give the "
            "environment's action_space a finite low and high"
        )
