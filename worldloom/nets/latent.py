"""Distributions of a stochastic latent, given by a flat parameter vector. S variables, K classes.

Network, sampler and objective stay apart: networks make the parameters, these objects sample and compare them.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.noise import Noise

COLDEST = 1e-4  # a temperature that leaves nothing but the likeliest class


class Latent(ABC):
    """`parameters` values describe the distribution, `size` values are one sample."""

    parameters: int
    size: int

    @abstractmethod
    def sample(self, params: Tensor, noise: Noise, temperature: float = 1.0) -> Tensor:
        """A sample `[..., size]` that passes gradients to `params` `[..., parameters]`.

        `temperature` flattens (above 1) or sharpens what is drawn from, as in Ha & Schmidhuber (2018): logits are
        divided by it and variances multiplied. 0 is the likeliest sample.
        """

    @abstractmethod
    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """KL(p || q) in nats, summed over the S variables: `[...]`."""


@dataclass(frozen=True)
class Categorical(Latent):
    """S one-hot variables of K classes: straight-through gradients (DreamerV2), mixed with some uniform (DreamerV3).

    The flat vector is laid out class by class, `[K, S]`: reductions over K then run along whole vector registers, which
    makes a CPU sample about ten times faster than the usual `[S, K]`.
    """

    variables: int
    classes: int
    unimix: float = 0.01

    @property
    def parameters(self) -> int:  # type: ignore[override]
        return self.variables * self.classes

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.variables * self.classes

    def probs(self, params: Tensor) -> Tensor:
        """`[..., K, S]`, never below unimix / K."""
        softmax = params.unflatten(-1, (self.classes, self.variables)).softmax(-2)
        return softmax * (1 - self.unimix) + self.unimix / self.classes

    def sample(self, params: Tensor, noise: Noise, temperature: float = 1.0) -> Tensor:
        probs = self.probs(params)
        if temperature != 1:
            probs = (probs.log() / max(temperature, COLDEST)).softmax(-2)
        one_hot = draw(probs.detach(), noise)
        # Not `probs.requires_grad`, which says no inside vmap.
        return (one_hot + (probs - probs.detach())).flatten(-2) if torch.is_grad_enabled() else one_hot.flatten(-2)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        probs_p, probs_q = self.probs(p), self.probs(q)
        return (probs_p * (probs_p.log() - probs_q.log())).sum((-2, -1))


def draw(probs: Tensor, noise: Noise) -> Tensor:
    """One-hot draws over dimension -2 by inverting the cumulative distribution: one uniform number a variable."""
    uniform = noise.uniform((*probs.shape[:-2], 1, probs.shape[-1]), probs)
    # Class k is drawn when the number lies past k boundaries. The last boundary, 1, is left out: no number passes it.
    passed = (probs.cumsum(-2)[..., :-1, :] <= uniform).to(probs.dtype)
    return -passed.diff(dim=-2, prepend=torch.ones_like(uniform), append=torch.zeros_like(uniform))


@dataclass(frozen=True)
class Gaussian(Latent):
    """S independent normal variables, as in PlaNet. The standard deviation is softplus plus 0.1."""

    variables: int

    @property
    def parameters(self) -> int:  # type: ignore[override]
        return 2 * self.variables

    @property
    def size(self) -> int:  # type: ignore[override]
        return self.variables

    def sample(self, params: Tensor, noise: Noise, temperature: float = 1.0) -> Tensor:
        mean, std = self._moments(params)
        return mean + math.sqrt(temperature) * std * noise.normal(mean.shape, mean)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        (mean_p, std_p), (mean_q, std_q) = self._moments(p), self._moments(q)
        ratio = (std_p / std_q).square()
        return 0.5 * (ratio + ((mean_p - mean_q) / std_q).square() - 1 - ratio.log()).sum(-1)

    def _moments(self, params: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = params.chunk(2, -1)
        return mean, torch.nn.functional.softplus(raw) + 0.1
