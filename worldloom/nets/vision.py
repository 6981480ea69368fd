"""Small convolutional networks for pictures. N pictures, C H W channels, height, width.

Both begin or end on a grid of 4 x 4 patches: the widest feature map is H/4 x W/4, so the work is matrix products rather
than memory traffic. On a CPU that is several times faster than DreamerV3's full-resolution convolutions.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.errors import UserError
from worldloom.nets.dense import BlockLinear, join, mlp, split

PATCH = 4
STRIDE = 16  # from a picture to the smallest feature map


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of `[N, C, H, W]`. In channels-last memory the permutations cost nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def active(depth: int) -> tuple[nn.Module, nn.Module]:
    """What follows every convolution but the last."""
    return ChannelNorm(depth, eps=1e-3), nn.SiLU()


def grid(height: int, width: int) -> tuple[int, int]:
    """The smallest feature map of an `height` x `width` picture; raises `UserError` unless both divide by 16."""
    if height % STRIDE or width % STRIDE:
        raise UserError(
            f"image size {height} x {width}: height and width must be multiples of {STRIDE}. Use --image-size 64, say."
        )
    return height // STRIDE, width // STRIDE


class ImageEncoder(nn.Module):
    """Scaled pictures `[N, C, H, W]` to flat features `[N, size]`: patches, then two strided convolutions."""

    def __init__(self, channels: int, height: int, width: int, depth: int):
        super().__init__()
        rows, columns = grid(height, width)
        self.size = rows * columns * depth
        self.net = nn.Sequential(
            nn.Conv2d(channels, depth, PATCH, PATCH),
            *active(depth),
            nn.Conv2d(depth, depth, 4, 2, 1),
            *active(depth),
            nn.Conv2d(depth, depth, 4, 2, 1),
            *active(depth),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).flatten(1)


class ImageDecoder(nn.Module):
    """Features `[N, F]` to pictures `[N, C, H, W]`, unbounded: a spatial map, two doublings, and patches of pixels.

    The map has few parameters, as DreamerV3's: each strip of it sees its own slice of the features directly, and all of
    them through a narrow layer of `units`. (DreamerV3 cuts it by channels, not by strips.)
    """

    def __init__(self, features: int, channels: int, height: int, width: int, *, units: int, depth: int):
        super().__init__()
        self.shape = (*grid(height, width), depth)
        size = math.prod(self.shape)
        self.blocks = math.gcd(8, features, size)
        self.narrow = nn.Sequential(mlp(features, units, 1), nn.Linear(units, size))
        self.direct = BlockLinear(features, size, self.blocks)
        self.net = nn.Sequential(
            *active(depth),
            nn.ConvTranspose2d(depth, depth, 4, 2, 1),
            *active(depth),
            nn.ConvTranspose2d(depth, depth, 4, 2, 1),
            *active(depth),
            nn.Conv2d(depth, channels * PATCH**2, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        spatial = join(self.direct(x, split(self.narrow(x), self.blocks)))
        return F.pixel_shuffle(self.net(spatial.unflatten(-1, self.shape).permute(0, 3, 1, 2)), PATCH)
