"""A tiny family of two parts and two phases: first an autoencoder, the tokenizer, then the dynamics of what it encodes.

B batch, T time, A action size, L size of the latent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import unknown
from worldloom.model import Obs, State, WorldModel, state
from worldloom.noise import NOISE, Noise
from worldloom.schedule import Phase

ENTRY = "tests.latent:LatentModel"


def register_latent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `build("latent", ...)` and `worldloom train latent` work for one test."""
    from worldloom.models import FAMILIES

    monkeypatch.setitem(FAMILIES.entries, "latent", ENTRY)


class Tokenizer(nn.Module):
    """A linear autoencoder of an observation. Its buffers follow what it encodes while it is in training mode."""

    running: Tensor
    calls: Tensor

    def __init__(self, spec: DataSpec, latent: int):
        super().__init__()
        self.spec = spec
        sizes = {key: int(np.prod(entry.shape)) for key, entry in spec.obs.items()}
        self.encoders = nn.ModuleDict({key: nn.Linear(size, latent) for key, size in sizes.items()})
        self.decoders = nn.ModuleDict({key: nn.Linear(latent, size) for key, size in sizes.items()})
        self.register_buffer("running", torch.zeros(latent))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def encode(self, obs: Obs) -> Tensor:
        """The latent `[..., L]`."""
        latent = torch.stack([self.encoders[key](self.scaled(key, obs[key])) for key in self.spec.obs]).sum(0)
        if self.training:
            self.running.lerp_(latent.detach().flatten(0, -2).mean(0), 0.1)
            self.calls += 1
        return latent

    def scaled(self, key: str, value: Tensor) -> Tensor:
        """A key of an observation `[..., *shape]`, flat and at about unit scale."""
        if self.spec.obs[key].kind == "image":
            return value.flatten(-3) / 255 - 0.5
        mean, std = (value.new_tensor(moment) for moment in (self.spec.obs[key].mean, self.spec.obs[key].std))
        return (value - mean) / std


@dataclass(frozen=True)
class LatentConfig:
    """`noise` is the standard deviation of what `predict` adds to the latent."""

    latent: int = 8
    noise: float = 0.0


@state
class LatentState(State):
    latent: Tensor

    @property
    def features(self) -> Tensor:
        return self.latent


class LatentModel(WorldModel[LatentState]):
    """Beliefs are latents of single observations; the dynamics never move the tokenizer."""

    family: ClassVar[str] = "latent"
    config_class: ClassVar[type] = LatentConfig
    sizes: ClassVar[Mapping[str, LatentConfig]] = {"debug": LatentConfig(), "nano": LatentConfig(16)}
    part_types: ClassVar[Mapping[str, type | str]] = {"tokenizer": Tokenizer}
    phases: ClassVar[tuple[Phase, ...]] = (
        Phase("tokenizer", "tokenizer_loss", ("tokenizer",)),
        Phase("dynamics", "dynamics_loss", ("dynamics", "reward"), lr=1e-2, final_lr=0.5),
    )

    def __init__(self, spec: DataSpec, config: LatentConfig, parts: Mapping[str, nn.Module] | None = None):
        super().__init__()
        self.spec, self.config = spec, config
        self.tokenizer = (parts or {}).get("tokenizer") or Tokenizer(spec, config.latent)
        self.dynamics = nn.Linear(config.latent + spec.action.size, config.latent)
        self.reward = nn.Linear(config.latent, 1)
        self.loss_weights = {**dict.fromkeys(spec.obs, 1.0), "latent": 1.0, "reward": 1.0}

    @property
    def decodes(self) -> tuple[str, ...]:
        return (*self.spec.obs, "reward")

    def start(self, obs: Obs, noise: Noise = NOISE) -> LatentState:
        return LatentState(self.tokenizer.encode(obs))

    def observe(self, state: LatentState, action: Tensor, obs: Obs, noise: Noise = NOISE) -> LatentState:
        return self.start(obs)

    def predict(self, state: LatentState, action: Tensor, noise: Noise = NOISE) -> LatentState:
        moved = state.latent + self.dynamics(torch.cat([state.latent, action], -1))
        return LatentState(moved + self.config.noise * noise.normal(moved.shape, moved))

    def decode(self, state: LatentState, key: str) -> Tensor:
        if key not in self.decodes:
            raise unknown("key", key, self.decodes)
        if key == "reward":
            return self.reward(state.features)[..., 0]
        out = self.tokenizer.decoders[key](state.features)
        if self.spec.obs[key].kind == "image":
            return (out + 0.5).clamp(0, 1).unflatten(-1, self.spec.obs[key].shape)
        return out * out.new_tensor(self.spec.obs[key].std) + out.new_tensor(self.spec.obs[key].mean)

    def loss(self, segment: Segment, belief: LatentState | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        return self.tokenizer_loss(segment) | self.dynamics_loss(segment)

    def tokenizer_loss(self, segment: Segment) -> dict[str, Tensor]:
        """How well each key is reconstructed `[B, T]`."""
        tokenizer, latent = self.tokenizer, self.tokenizer.encode(segment.obs)
        errors = {key: tokenizer.decoders[key](latent) - tokenizer.scaled(key, segment.obs[key]) for key in segment.obs}
        return {key: error.square().mean(-1) for key, error in errors.items()}

    def dynamics_loss(self, segment: Segment) -> dict[str, Tensor]:
        """How well the next latent and its reward are predicted `[B, T]`; row 0 costs nothing."""
        with torch.no_grad():
            latent = self.tokenizer.encode(segment.obs)
        ahead = self.predict(LatentState(latent[:, :-1]), segment.action[:, :-1])
        errors = {
            "latent": (ahead.latent - latent[:, 1:]).square().mean(-1),
            "reward": (self.decode(ahead, "reward") - segment.reward[:, 1:]).square(),
        }
        return {name: nn.functional.pad(error, (1, 0)) for name, error in errors.items()}
