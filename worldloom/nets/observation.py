"""From any mix of observation keys to one embedding, and from features back to every key.

B batch (any leading shape), F features, D summed vector size, C H W image channels, height, width.
"""

import math

import torch
from torch import Tensor, nn

from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.model import Obs
from worldloom.nets.dense import mlp
from worldloom.nets.vision import ImageDecoder, ImageEncoder

ORDINARY_STD = 0.22  # of the pixels of camera pictures in [0, 1]


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): large values shrink, small ones stay (DreamerV3, equation 9)."""
    return x.sign() * x.abs().log1p()


class VectorScale(nn.Module):
    """The normaliser of the vector keys, kept in the checkpoint as buffers. Own units `[..., D]` to unit scale."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: DataSpec):
        super().__init__()
        keys = [spec.obs[k] for k in spec.vector_keys]
        means = [m for key in keys for m in key.mean or (0.0,) * math.prod(key.shape)]
        stds = [s for key in keys for s in key.std or (1.0,) * math.prod(key.shape)]
        self.register_buffer("mean", torch.tensor(means))
        self.register_buffer("std", torch.tensor(stds))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def undo(self, x: Tensor) -> Tensor:
        return x * self.std + self.mean


class PictureScale(nn.Module):
    """The normaliser of the image keys, kept in the checkpoint as buffers: uint8 `[N, C, H, W]` to about [-0.5, 0.5].

    Each channel loses its mean, and one of low contrast is amplified to `ORDINARY_STD`, never weakened. A summed
    squared error is cheap to ignore in a dark world; the latent would stay empty for most of a short training.
    """

    mean: Tensor
    gain: Tensor

    def __init__(self, spec: DataSpec):
        super().__init__()
        keys = [spec.obs[k] for k in spec.image_keys]
        mean = torch.tensor([m for key in keys for m in key.mean or (0.5,) * key.shape[0]])
        std = torch.tensor([s for key in keys for s in key.std or (1.0,) * key.shape[0]])
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("gain", (ORDINARY_STD / std[:, None, None]).clamp(min=1.0))

    def forward(self, pictures: Tensor) -> Tensor:
        """Channels last, the layout convolutions are fast in, and in the precision autocast works in."""
        kind = pictures.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.mean.dtype
        # 0 to 255 are exact in bf16, so the cast comes first. Then in place and one channel at a time: memory traffic.
        scaled = pictures.to(dtype).mul_((self.gain / 255).to(dtype)).sub_((self.mean * self.gain).to(dtype))
        return scaled.contiguous(memory_format=torch.channels_last)

    def undo(self, pictures: Tensor) -> Tensor:
        """Back to [0, 1]."""
        # A row of pixels at a time: three channels by themselves are too short for vector instructions.
        gain, mean = (scale.flatten().repeat(pictures.shape[-1]) for scale in (self.gain, self.mean))
        rows = pictures.permute(0, 2, 3, 1).flatten(2)
        unscaled = (rows / gain + mean).clamp(0, 1)
        return unscaled.unflatten(2, (-1, self.gain.shape[0])).permute(0, 3, 1, 2)


class ObsEncoder(nn.Module):
    """All keys of an observation to one embedding `[..., size]`. Cameras share one network, channels stacked."""

    def __init__(self, spec: DataSpec, *, units: int, layers: int, depth: int):
        super().__init__()
        self.spec = spec
        self.scale = VectorScale(spec)
        categories = sum(spec.obs[k].shape[0] for k in spec.category_keys)
        vectors = self.scale.mean.numel() + categories
        self.dense = mlp(vectors, units, layers) if vectors else None
        self.pictures = PictureScale(spec)
        self.image = ImageEncoder(*picture_shape(spec), depth) if spec.image_keys else None
        self.size = (units if self.dense else 0) + (self.image.size if self.image else 0)

    def forward(self, obs: Obs) -> Tensor:
        check_obs(self.spec, obs)
        parts = []
        if self.dense is not None:
            vectors = [obs[k] for k in self.spec.vector_keys]
            scaled = [symlog(self.scale(torch.cat(vectors, -1)))] if vectors else []
            parts.append(self.dense(torch.cat(scaled + [obs[k] for k in self.spec.category_keys], -1)))
        if self.image is not None:
            pictures = stack_pictures(self.spec, obs)
            leading = pictures.shape[:-3]
            parts.append(self.image(self.pictures(pictures.flatten(0, -4))).unflatten(0, leading))
        return torch.cat(parts, -1).float()


class ObsDecoder(nn.Module):
    """Features `[..., F]` to every image and vector key. A category is context: given, so never predicted."""

    def __init__(self, spec: DataSpec, features: int, *, units: int, layers: int, depth: int):
        super().__init__()
        self.spec = spec
        self.scale = VectorScale(spec)
        self.sizes = {k: math.prod(spec.obs[k].shape) for k in spec.vector_keys}
        vectors = self.scale.mean.numel()
        self.dense = nn.Sequential(mlp(features, units, layers), nn.Linear(units, vectors)) if vectors else None
        self.pictures = PictureScale(spec)
        self.image = ImageDecoder(features, *picture_shape(spec), units=units, depth=depth) if spec.image_keys else None

    @property
    def keys(self) -> tuple[str, ...]:
        return self.spec.image_keys + self.spec.vector_keys

    def loss(self, features: Tensor, obs: Obs) -> dict[str, Tensor]:
        """Squared error of every key, summed over its dimensions: `{key: [...]}`, see the two scales for the units."""
        losses: dict[str, Tensor] = {}
        if self.dense is not None:
            target = self.scale(torch.cat([obs[k] for k in self.sizes], -1))
            error = (self.dense(features).float() - target).square().split(list(self.sizes.values()), -1)
            losses |= {k: e.sum(-1) for k, e in zip(self.sizes, error, strict=True)}
        if self.image is not None:
            leading = features.shape[:-1]
            predicted = self.image(features.flatten(0, -2))
            target = self.pictures(stack_pictures(self.spec, obs).flatten(0, -4))
            for key, part in zip(self.spec.image_keys, self._cameras(predicted - target), strict=True):
                # Flat in memory order. Summed in fp32: 12,288 squares do not fit the eight bits of a bf16 mantissa.
                difference = part.permute(0, 2, 3, 1).flatten(1)
                losses[key] = (difference * difference).sum(-1, dtype=torch.float32).unflatten(0, leading)
        return losses

    def decode(self, features: Tensor, key: str) -> Tensor:
        """The expected value of one key: an image in [0, 1] `[..., C, H, W]` or a vector in own units `[..., D]`."""
        if key in self.sizes:
            assert self.dense is not None
            vectors = self.scale.undo(self.dense(features).float()).split(list(self.sizes.values()), -1)
            return vectors[list(self.sizes).index(key)]
        assert self.image is not None, key
        pictures = self.pictures.undo(self.image(features.reshape(-1, features.shape[-1])).float())
        camera = self._cameras(pictures)[self.spec.image_keys.index(key)]
        return camera.unflatten(0, features.shape[:-1]) if features.ndim != 2 else camera

    def _cameras(self, pictures: Tensor) -> tuple[Tensor, ...]:
        return pictures.split([self.spec.obs[k].shape[0] for k in self.spec.image_keys], 1)


def picture_shape(spec: DataSpec) -> tuple[int, int, int]:
    """(C, H, W) of all cameras stacked by channel; they must agree in height and width."""
    shapes = [spec.obs[k].shape for k in spec.image_keys]
    if len({s[1:] for s in shapes}) > 1:
        raise UserError(
            f"the cameras differ in size ({dict(zip(spec.image_keys, shapes, strict=True))}): give --image-size"
        )
    return sum(s[0] for s in shapes), shapes[0][1], shapes[0][2]


def stack_pictures(spec: DataSpec, obs: Obs) -> Tensor:
    pictures = [obs[k] for k in spec.image_keys]
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures, -3)


def check_obs(spec: DataSpec, obs: Obs) -> None:
    """Raise `UserError` where `obs` lacks a key of the data or an image is not uint8."""
    for key, entry in spec.obs.items():
        if key not in obs:
            raise UserError(f"the observation lacks the key {key!r}; this model was made for {', '.join(spec.obs)}")
        if entry.kind == "image" and obs[key].dtype != torch.uint8:
            raise UserError(f"observation {key!r} is {obs[key].dtype}: give images as uint8 [B, C, H, W], 0 to 255")
