"""Fully connected layers: the MLP with normalisation, and the block-diagonal linear map."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(inputs: int, units: int, layers: int) -> nn.Sequential:
    """`layers` times linear, LayerNorm, SiLU. `[..., inputs]` to `[..., units]`.

    DreamerV3 normalises with RMSNorm. LayerNorm has a fused kernel on every device and is four times faster on a CPU.
    """
    widths = [inputs] + [units] * layers
    blocks = [nn.Sequential(nn.Linear(a, b), nn.LayerNorm(b, eps=1e-3), nn.SiLU()) for a, b in pairwise(widths)]
    return nn.Sequential(*blocks)


def plain_mlp(inputs: int, units: int, layers: int) -> nn.Sequential:
    """`layers` times linear, SiLU: `mlp` without its normalisation.

    That would hide how large a state is, which a predicted state must be right in to the digit.
    """
    widths = [inputs] + [units] * layers
    return nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.SiLU()) for a, b in pairwise(widths)))


class BlockLinear(nn.Module):
    """A block-diagonal linear map: `inputs` and `outputs` are cut into `blocks` groups that do not see each other.

    `[B, inputs]` to `[blocks, B, outputs / blocks]`, the layout of batched products; `join` makes it `[B, outputs]`.
    What is to be summed with it (a bias, a dense part) goes in as `plus` and broadcasts to the output.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, inputs // blocks, outputs // blocks))

    def forward(self, x: Tensor, plus: Tensor) -> Tensor:
        return torch.baddbmm(plus, split(x, self.weight.shape[0]), self.weight)


def split(x: Tensor, blocks: int) -> Tensor:
    """`[B, N]` to `[blocks, B, N / blocks]`."""
    return x.unflatten(-1, (blocks, -1)).transpose(0, 1)


def join(x: Tensor) -> Tensor:
    """`[blocks, B, N / blocks]` to `[B, N]`."""
    return x.transpose(0, 1).flatten(-2)


def initialise(module: nn.Module) -> None:
    """Truncated normal of variance 1 / fan-in and zero biases, DreamerV3's choice. Use with `nn.Module.apply`."""
    if isinstance(module, BlockLinear):
        _truncated_normal(module.weight, module.weight.shape[1])
        return
    if isinstance(module, nn.Linear | nn.Conv2d):
        _truncated_normal(module.weight, module.weight[0].numel())
    elif isinstance(module, nn.ConvTranspose2d):
        # Each output pixel of a strided transposed convolution sums over kernel / stride taps in each direction.
        taps = module.kernel_size[0] * module.kernel_size[1] // (module.stride[0] * module.stride[1])
        _truncated_normal(module.weight, module.in_channels * taps)
    else:
        return
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)


def _truncated_normal(weight: Tensor, fan_in: int) -> None:
    # 0.8796 is the standard deviation of a unit normal cut at two: dividing by it restores the variance.
    std = math.sqrt(1 / max(fan_in, 1)) / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
