"""Scalar read-outs of a belief. Each has `forward` (the expected value) and `loss`. F features, K bins."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.nets.dense import mlp


class TwoHotHead(nn.Module):
    """A scalar of any scale as a categorical over exponentially spaced bins (DreamerV3, equations 8 to 10).

    `[..., F]` to `[...]`. The output layer starts at zero, so the first predictions are exactly zero.
    """

    bins: Tensor

    def __init__(self, features: int, *, units: int, layers: int, bins: int = 255):
        super().__init__()
        self.hidden, self.output = mlp(features, units, layers), nn.Linear(units, bins)
        half = torch.linspace(-20, 0, bins // 2 + 1).abs().expm1()
        # Built from one half and its mirror image: the expected value of a symmetric distribution is then exactly zero.
        self.register_buffer("bins", torch.cat([-half, half[:-1].flip(0)]), persistent=False)

    def zero_output(self) -> None:
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> Tensor:
        weighted = self._logits(features).softmax(-1) * self.bins
        middle = self.bins.numel() // 2
        # The two tails are huge and cancel; summing mirrored pairs first keeps the small difference.
        return (weighted[..., :middle] + weighted[..., middle + 1 :].flip(-1)).sum(-1)

    def loss(self, features: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy against the two bins around `target` `[...]`, weighted by nearness."""
        log_probs = self._logits(features).log_softmax(-1)
        above = torch.searchsorted(self.bins, target.contiguous()).clamp(1, self.bins.numel() - 1)
        low, high = self.bins[above - 1], self.bins[above]
        weight = ((target - low) / (high - low)).clamp(0, 1)
        chosen = log_probs.gather(-1, torch.stack([above - 1, above], -1))
        return -(chosen[..., 0] * (1 - weight) + chosen[..., 1] * weight)

    def _logits(self, features: Tensor) -> Tensor:
        return self.output(self.hidden(features)).float()


class BernoulliHead(nn.Module):
    """A probability, such as that of the end. `[..., F]` to `[...]` in (0, 1)."""

    def __init__(self, features: int, *, units: int, layers: int):
        super().__init__()
        self.net = nn.Sequential(mlp(features, units, layers), nn.Linear(units, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.net(features).squeeze(-1).float().sigmoid()

    def loss(self, features: Tensor, target: Tensor) -> Tensor:
        """Negative log-likelihood of the boolean `target` `[...]`."""
        logits = self.net(features).squeeze(-1).float()
        return F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")
