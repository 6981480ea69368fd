"""From any mix of observation keys to one embedding, and from features back to every key.

B batch (any leading shape), F features, D summed vector size, C H W image channels, height, width, N pictures or
members.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.data.spec import DataSpec, KeySpec, Kind, mask_name
from worldloom.errors import UserError
from worldloom.model import Obs
from worldloom.nets.dense import mlp
from worldloom.nets.vision import STRIDE, ImageDecoder, ImageEncoder

ORDINARY_STD = 0.22  # of the pixels of camera pictures in [0, 1]


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): large values shrink, small ones stay (DreamerV3, equation 9)."""
    return x.sign() * x.abs().log1p()


class VectorScale(nn.Module):
    """The normaliser of vector keys, kept in the checkpoint as buffers. Own units `[..., D]` to unit scale.

    By default of all vectors that are observed or given. A window's channels keep their scale in all its samples.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: DataSpec, keys: Sequence[str] | None = None):
        super().__init__()
        entries = [spec.keys[k] for k in (spec.vector_keys if keys is None else keys)]
        means = [m for entry in entries for m in spread(entry, entry.mean, 0.0)]
        stds = [s for entry in entries for s in spread(entry, entry.std, 1.0)]
        self.register_buffer("mean", torch.tensor(means))
        self.register_buffer("std", torch.tensor(stds))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def undo(self, x: Tensor) -> Tensor:
        return x * self.std + self.mean


def spread(entry: KeySpec, values: tuple[float, ...] | None, default: float) -> tuple[float, ...]:
    """One number for each entry of a flattened vector or window."""
    size = math.prod(entry.shape)
    return (default,) * size if values is None else values * (size // len(values))


class PictureScale(nn.Module):
    """The normaliser of the image keys, kept in the checkpoint as buffers: uint8 `[N, C, H, W]` to about [-0.5, 0.5].

    Each channel loses its mean, and one of low contrast is amplified to `ORDINARY_STD`, never weakened. A summed
    squared error is cheap to ignore in a dark world; the latent would stay empty for most of a short training.
    """

    mean: Tensor
    gain: Tensor

    def __init__(self, spec: DataSpec, cameras: Sequence[str] | None = None):
        super().__init__()
        keys = [spec.keys[k] for k in (spec.image_keys if cameras is None else cameras)]
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


class SetEncoder(nn.Module):
    """A set `[..., N, D]` with its mask `[..., N]` to `[..., 2 * units]`, whatever the order of its members.

    Each member goes through the same network; what is kept is their mean and, in each feature, their largest value
    (Zaheer et al., 2017, "Deep sets"). An empty set is all zeros.
    """

    def __init__(self, spec: DataSpec, key: str, *, units: int, layers: int):
        super().__init__()
        self.key, self.scale = key, MemberScale(spec.keys[key])
        self.net = mlp(spec.keys[key].shape[-1], units, max(layers, 1))
        self.size = 2 * units

    def forward(self, obs: Obs) -> Tensor:
        there = obs[mask_name(self.key)][..., None]
        members = self.net(symlog(self.scale(obs[self.key])))
        mean = (members * there).sum(-2) / there.sum(-2).clamp(min=1)
        largest = members.masked_fill(~there, -torch.inf).amax(-2)
        return torch.cat([mean, torch.where(there.any(-2), largest, 0.0)], -1)


class MemberScale(nn.Module):
    """The normaliser of a set's members `[..., D]`."""

    mean: Tensor
    std: Tensor

    def __init__(self, entry: KeySpec):
        super().__init__()
        size = entry.shape[-1]
        self.register_buffer("mean", torch.tensor(entry.mean or (0.0,) * size))
        self.register_buffer("std", torch.tensor(entry.std or (1.0,) * size))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class ObsEncoder(nn.Module):
    """All keys of an observation to one embedding `[..., size]`. Cameras share one network, channels stacked.

    What is masked enters as the data's mean. Raises `UserError` for a key that it cannot read.
    """

    def __init__(self, spec: DataSpec, *, units: int, layers: int, depth: int):
        super().__init__()
        for key in spec.of_kind("text"):
            raise UserError(
                f"the key {key!r} is text, and this family has no encoder for text: train a family that has one, or "
                f"only predict the key (--role {key}=target)"
            )
        self.spec = spec
        self.vectors, self.flags = spec.of_kind("vector", "window"), spec.of_kind("category", "flag")
        self.scale = VectorScale(spec, self.vectors)
        width = self.scale.mean.numel() + sum(math.prod(spec.obs[k].shape) for k in self.flags)
        self.dense = mlp(width, units, layers) if width else None
        self.pictures = PictureScale(spec)
        self.image = ImageEncoder(*picture_shape(spec), depth) if spec.image_keys else None
        self.sets = nn.ModuleList(SetEncoder(spec, k, units=units, layers=layers) for k in spec.of_kind("set"))
        parts = [units if self.dense else 0, self.image.size if self.image else 0, *(s.size for s in self.sets)]
        self.size = sum(parts)  # type: ignore[arg-type]

    def forward(self, obs: Obs) -> Tensor:
        check_obs(self.spec, obs)
        parts = []
        if self.dense is not None:
            vectors = [flat(self.spec.obs[k], obs[k]) for k in self.vectors]
            scaled = [symlog(self._masked(self.scale(torch.cat(vectors, -1)), self.vectors, obs))] if vectors else []
            flags = [flat(self.spec.obs[k], obs[k]).float() for k in self.flags]
            parts.append(self.dense(torch.cat([*scaled, *flags], -1)))
        if self.image is not None:
            pictures = stack_pictures(self.spec, obs)
            leading = pictures.shape[:-3]
            scaled_pictures = self._masked_pictures(self.pictures(pictures.flatten(0, -4)), obs)
            parts.append(self.image(scaled_pictures).unflatten(0, leading))
        parts += [encoder(obs) for encoder in self.sets]
        return torch.cat(parts, -1).float()

    def _masked(self, scaled: Tensor, keys: Sequence[str], obs: Obs) -> Tensor:
        """Zero, the mean, where a key is missing."""
        if not any(self.spec.obs[k].masked for k in keys):
            return scaled
        sizes = [math.prod(self.spec.obs[k].shape) for k in keys]
        parts = zip(keys, scaled.split(sizes, -1), strict=True)
        return torch.cat([p * obs[mask_name(k)][..., None] if self.spec.obs[k].masked else p for k, p in parts], -1)

    def _masked_pictures(self, scaled: Tensor, obs: Obs) -> Tensor:
        """Zero, the mean, where a camera is missing: `[N, C, H, W]`."""
        if not any(self.spec.obs[k].masked for k in self.spec.image_keys):
            return scaled
        there = [
            obs[mask_name(k)].reshape(-1, 1).expand(-1, self.spec.obs[k].shape[0])
            if self.spec.obs[k].masked
            else scaled.new_ones(len(scaled), self.spec.obs[k].shape[0])
            for k in self.spec.image_keys
        ]
        return scaled * torch.cat([t.to(scaled.dtype) for t in there], 1)[..., None, None]


class ObsDecoder(nn.Module):
    """Features `[..., F]` to every image, vector and window that is observed, or that is a target.

    What is given, such as the task, is context and never predicted. A set has no order to predict it in. `without` are
    keys that a model predicts in another way.
    """

    def __init__(
        self, spec: DataSpec, features: int, *, units: int, layers: int, depth: int, without: tuple[str, ...] = ()
    ):
        super().__init__()
        self.spec = spec
        self.cameras = predicted_keys(spec, "image")
        vector_keys = [k for k in predicted_keys(spec, "vector", "window") if k not in without]
        self.sizes = {k: math.prod(spec.keys[k].shape) for k in vector_keys}
        self.scale = VectorScale(spec, tuple(self.sizes))
        vectors = self.scale.mean.numel()
        self.dense = nn.Sequential(mlp(features, units, layers), nn.Linear(units, vectors)) if vectors else None
        self.pictures = PictureScale(spec, self.cameras)
        shape = picture_shape(spec, self.cameras) if self.cameras else None
        self.image = ImageDecoder(features, *shape, units=units, depth=depth) if shape else None

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.cameras, *self.sizes)

    def loss(self, features: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Squared error of every key, summed over its dimensions: `{key: [...]}`, see the two scales for the units.

        Nothing where a key is missing.
        """
        losses: dict[str, Tensor] = {}
        if self.dense is not None:
            target = self.scale(torch.cat([flat(self.spec.keys[k], targets[k]) for k in self.sizes], -1))
            error = (self.dense(features).float() - target).square().split(list(self.sizes.values()), -1)
            losses |= {k: e.sum(-1) for k, e in zip(self.sizes, error, strict=True)}
        if self.image is not None:
            leading = features.shape[:-1]
            predicted = self.image(features.flatten(0, -2))
            target = self.pictures(stack_pictures(self.spec, targets, self.cameras).flatten(0, -4))
            for key, part in zip(self.cameras, self._split(predicted - target), strict=True):
                # Flat in memory order. Summed in fp32: 12,288 squares do not fit the eight bits of a bf16 mantissa.
                difference = part.permute(0, 2, 3, 1).flatten(1)
                losses[key] = (difference * difference).sum(-1, dtype=torch.float32).unflatten(0, leading)
        masked = [k for k in losses if self.spec.keys[k].masked]
        return losses | {k: torch.where(targets[mask_name(k)], losses[k], 0.0) for k in masked}

    def decode(self, features: Tensor, key: str) -> Tensor:
        """The expected value of one key: an image in [0, 1] `[..., C, H, W]` or a vector in own units `[..., D]`."""
        if key in self.sizes:
            assert self.dense is not None
            vectors = self.scale.undo(self.dense(features).float()).split(list(self.sizes.values()), -1)
            return vectors[list(self.sizes).index(key)].unflatten(-1, self.spec.keys[key].shape)
        assert self.image is not None, key
        pictures = self.pictures.undo(self.image(features.reshape(-1, features.shape[-1])).float())
        camera = self._split(pictures)[self.cameras.index(key)]
        return camera.unflatten(0, features.shape[:-1]) if features.ndim != 2 else camera

    def _split(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Each camera's own channels, without what was padded."""
        shapes = [self.spec.keys[k].shape for k in self.cameras]
        parts = pictures.split([channels for channels, _, _ in shapes], 1)
        if all(shape[1:] == pictures.shape[2:] for shape in shapes):
            return parts
        return tuple(part[:, :, : shape[1], : shape[2]] for part, shape in zip(parts, shapes, strict=True))


def predicted_keys(spec: DataSpec, *kinds: Kind) -> tuple[str, ...]:
    """What a decoder reads out: observed keys and targets of these kinds that are more than one number."""
    return tuple(k for k, s in spec.keys.items() if s.kind in kinds and s.role != "given" and s.shape)


def flat(entry: KeySpec, value: Tensor) -> Tensor:
    """One row of a key as a vector: `[..., *shape]` to `[..., D]`."""
    if len(entry.shape) == 1:
        return value
    return value.flatten(-len(entry.shape)) if entry.shape else value[..., None]


def picture_shape(spec: DataSpec, cameras: Sequence[str] | None = None) -> tuple[int, int, int]:
    """(C, H, W) of all cameras stacked by channel, padded to the tallest and widest and to multiples of `STRIDE`."""
    shapes = [spec.keys[k].shape for k in (spec.image_keys if cameras is None else cameras)]
    height, width = (-(-max(shape[i] for shape in shapes) // STRIDE) * STRIDE for i in (1, 2))
    return sum(s[0] for s in shapes), height, width


def stack_pictures(spec: DataSpec, obs: Obs, cameras: Sequence[str] | None = None) -> Tensor:
    """The cameras' pictures side by side in the channels, black where they are padded below and to the right."""
    cameras = spec.image_keys if cameras is None else cameras
    _, height, width = picture_shape(spec, cameras)
    pictures = [
        obs[k]
        if obs[k].shape[-2:] == (height, width)
        else F.pad(obs[k], (0, width - obs[k].shape[-1], 0, height - obs[k].shape[-2]))
        for k in cameras
    ]
    return pictures[0] if len(pictures) == 1 else torch.cat(pictures, -3)


def check_obs(spec: DataSpec, obs: Obs) -> None:
    """Raise `UserError` where `obs` lacks a key of the data or its mask, or an image is not uint8."""
    for key, entry in spec.obs.items():
        for name in (key, mask_name(key)) if entry.has_mask else (key,):
            if name not in obs:
                raise UserError(
                    f"the observation lacks the key {name!r}; this model was made for {', '.join(spec.obs)}"
                )
        if entry.kind == "image" and obs[key].dtype != torch.uint8:
            raise UserError(f"observation {key!r} is {obs[key].dtype}: give images as uint8 [B, C, H, W], 0 to 255")
        if entry.has_mask and obs[mask_name(key)].shape != obs[key].shape[: obs[mask_name(key)].ndim]:
            shapes = f"{tuple(obs[mask_name(key)].shape)} for {tuple(obs[key].shape)}"
            raise UserError(f"the mask of {key!r} has another length than it: {shapes}")


def blank(spec: DataSpec, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """An observation of zeros `[1, ...]`, in which everything that has a mask is missing."""
    kinds = {"image": torch.uint8, "flag": torch.bool, "text": torch.int64}
    obs = {k: torch.zeros(1, *s.shape, dtype=kinds.get(s.kind, torch.float32)) for k, s in spec.obs.items()}
    masks = {mask_name(k): torch.zeros(1, *s.mask_shape, dtype=torch.bool) for k, s in spec.obs.items() if s.has_mask}
    return {name: value.to(device) for name, value in {**obs, **masks}.items()}
