"""An ensemble of scalar heads whose members are computed in one batched product.

Q members, N rows, F features, U units, K bins.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.nets.heads import TwoHot, symexp_bins


class TwoHotEnsemble(nn.Module):
    """Q independent networks: `layers` times linear, LayerNorm, SiLU, then linear to K bins. `[..., F]` to `[Q, ...]`.

    The output starts at zero, so every first prediction is exactly zero.
    """

    bins: Tensor

    def __init__(self, features: int, *, units: int, layers: int, bins: int, members: int, largest: float = 10.0):
        super().__init__()
        widths = [features] + [units] * layers
        self.weights = nn.ParameterList(_normal(members, a, b) for a, b in pairwise(widths))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, units)) for _ in range(layers))
        self.gains = nn.ParameterList(nn.Parameter(torch.ones(members, 1, units)) for _ in range(layers))
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, units)) for _ in range(layers))
        self.output = nn.Parameter(torch.zeros(members, units, bins))
        self.output_bias = nn.Parameter(torch.zeros(members, 1, bins))
        self.register_buffer("bins", symexp_bins(bins, largest), persistent=False)

    def forward(self, x: Tensor, members: slice | Tensor | None = None, frozen: bool = False) -> TwoHot:
        """What the chosen `members` (None: all) say of `x` `[..., F]`. `frozen` passes gradients to `x` alone."""

        def of(parameter: Tensor) -> Tensor:
            parameter = parameter.detach() if frozen else parameter
            return parameter if members is None else parameter[members]

        hidden = x.flatten(0, -2).expand(len(of(self.output_bias)), -1, -1)
        for weight, bias, gain, shift in zip(self.weights, self.biases, self.gains, self.shifts, strict=True):
            hidden = torch.baddbmm(of(bias), hidden, of(weight))
            hidden = F.silu(torch.addcmul(of(shift), F.layer_norm(hidden, hidden.shape[-1:]), of(gain)))
        # In bf16 the rounding of the logits alone would be larger than what most plans differ by.
        with torch.autocast(hidden.device.type, enabled=False):
            logits = torch.baddbmm(of(self.output_bias), hidden.to(self.output.dtype), of(self.output))
        return TwoHot(logits.float().unflatten(1, x.shape[:-1]), self.bins)


def _normal(members: int, inputs: int, outputs: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(members, inputs, outputs), std=0.02))
