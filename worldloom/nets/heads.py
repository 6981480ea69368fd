"""Scalar read-outs of a belief. A head returns a distribution: `mean` is what is decoded, `nll` what is trained.

F features, K bins.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec, KeySpec
from worldloom.nets.dense import initialise, mlp


class Scalar(ABC):
    """A distribution over a number, of any leading shape `[...]`."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The expected value `[...]`."""

    @abstractmethod
    def nll(self, target: Tensor) -> Tensor:
        """The negative log-likelihood of `target` `[...]`, in nats."""


@dataclass(frozen=True)
class TwoHot(Scalar):
    """A categorical over fixed `bins` `[K]`, K odd and symmetric about 0 (DreamerV3, equations 8 to 10)."""

    logits: Tensor
    bins: Tensor

    @cached_property
    def log_probs(self) -> Tensor:
        """`[..., K]`, computed once however many targets it is compared with."""
        return self.logits.log_softmax(-1)

    @property
    def mean(self) -> Tensor:
        probs, middle = self.logits.softmax(-1), self.bins.numel() // 2
        # The two tails are huge and cancel: taking the difference of mirrored pairs first keeps what is left of them.
        pairs = probs[..., middle + 1 :] - probs[..., :middle].flip(-1)
        # `mv`, because autocast would run `@` in bf16.
        return torch.mv(pairs.reshape(-1, middle), self.bins[middle + 1 :]).view(pairs.shape[:-1])

    def nll(self, target: Tensor) -> Tensor:
        """Cross-entropy against the two bins around `target`, weighted by nearness."""
        above = torch.searchsorted(self.bins, target.contiguous()).clamp(1, self.bins.numel() - 1)
        low, high = self.bins[above - 1], self.bins[above]
        weight = ((target - low) / (high - low)).clamp(0, 1)
        chosen = self.log_probs.gather(-1, torch.stack([above - 1, above], -1))
        return -torch.lerp(chosen[..., 0], chosen[..., 1], weight)


@dataclass(frozen=True)
class ClippedDoubleCritic(Scalar):
    """Several estimates of one number: `mean` is the lowest of them, and each is trained on its own error (TD3)."""

    members: tuple[Scalar, ...]

    @property
    def mean(self) -> Tensor:
        return torch.stack([member.mean for member in self.members]).amin(0)

    def nll(self, target: Tensor) -> Tensor:
        return torch.stack([member.nll(target) for member in self.members]).mean(0)


@dataclass(frozen=True)
class Bernoulli(Scalar):
    """A yes or no; `mean` is the probability of yes."""

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        return self.logits.sigmoid()

    def nll(self, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.logits, target.float(), reduction="none")


@dataclass(frozen=True)
class ClassDistribution(Scalar):
    """One of N choices `[..., N]`; `mean` is the probability of each, and the target is one-hot."""

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        return self.logits.softmax(-1)

    def nll(self, target: Tensor) -> Tensor:
        return -(self.logits.log_softmax(-1) * target).sum(-1)


def symexp_bins(bins: int, largest: float) -> Tensor:
    """`bins` (odd) numbers from -expm1(largest) to expm1(largest), evenly spaced before the exponential."""
    half = torch.linspace(-largest, 0, bins // 2 + 1).abs().expm1()
    # Built from one half and its mirror image: the expected value of a symmetric distribution is then exactly zero.
    return torch.cat([-half, half[:-1].flip(0)])


class TwoHotHead(nn.Module):
    """A scalar of any scale, such as the reward: `[..., F]` to `TwoHot` over exponentially spaced bins.

    `zero_output` makes the first predictions exactly zero.
    """

    bins: Tensor

    def __init__(self, features: int, *, units: int, layers: int, bins: int = 255):
        super().__init__()
        self.hidden, self.output = mlp(features, units, layers), nn.Linear(units, bins)
        self.register_buffer("bins", symexp_bins(bins, 20.0), persistent=False)

    def zero_output(self) -> None:
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> TwoHot:
        return TwoHot(self.output(self.hidden(features)).float(), self.bins)


class ClippedDoubleHead(nn.Module):
    """Several heads that began apart, as `ClippedDoubleCritic`: what one overestimates, another does not.

    A policy seeks out whatever is overrated (Fujimoto et al., 2018, "Addressing function approximation error").
    """

    def __init__(self, heads: Sequence[TwoHotHead]):
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def zero_output(self) -> None:
        for head in self.heads:
            head.zero_output()  # type: ignore[operator]

    def forward(self, features: Tensor) -> ClippedDoubleCritic:
        return ClippedDoubleCritic(tuple(head(features) for head in self.heads))


class BernoulliHead(nn.Module):
    """A probability, such as that of the end: `[..., F]` to `Bernoulli`."""

    def __init__(self, features: int, *, units: int, layers: int):
        super().__init__()
        self.net = nn.Sequential(mlp(features, units, layers), nn.Linear(units, 1))

    def forward(self, features: Tensor) -> Bernoulli:
        return Bernoulli(self.net(features).squeeze(-1).float())


class ClassHead(nn.Module):
    """Which of N classes, such as a label that is only to be predicted: `[..., F]` to `ClassDistribution`."""

    def __init__(self, features: int, classes: int, *, units: int, layers: int):
        super().__init__()
        self.net = nn.Sequential(mlp(features, units, layers), nn.Linear(units, classes))

    def forward(self, features: Tensor) -> ClassDistribution:
        return ClassDistribution(self.net(features).float())


def signal_heads(
    spec: DataSpec,
    features: int,
    *,
    units: int,
    layers: int,
    bins: int,
    begin: Callable[[nn.Module], None] | None = initialise,
) -> nn.ModuleDict:
    """A head for every target that is one number, a yes or no, or a category: reward, end, cost and any other signal.

    Every one begins as `begin` makes it, None for torch's own way, and expects zero of a number.
    """
    heads = nn.ModuleDict()
    for name, key in spec.targets.items():
        head = _head(key, features, units=units, layers=layers, bins=bins)
        if head is not None:
            heads[name] = head if begin is None else head.apply(begin)
            if isinstance(head, TwoHotHead):
                head.zero_output()
    return heads


def _head(key: KeySpec, features: int, *, units: int, layers: int, bins: int) -> nn.Module | None:
    if key.kind == "flag":
        return BernoulliHead(features, units=units, layers=layers)
    if key.kind == "category":
        return ClassHead(features, key.shape[0], units=units, layers=layers)
    if key.kind == "vector" and key.shape == ():
        return TwoHotHead(features, units=units, layers=layers, bins=bins)
    return None


def head_losses(heads: nn.ModuleDict, features: Tensor, segment: Segment) -> dict[str, Tensor]:
    """What each head's prediction from `features` `[B, T, F]` costs, `{key: [B, T]}`; nothing where it is missing."""
    losses = {}
    for key, head in heads.items():
        error, known = head(features).nll(segment.signals[key]), segment.known(key)
        losses[key] = error if known is None else torch.where(known, error, 0.0)
    return losses
