"""The recurrent state-space model of PlaNet (Hafner et al., 2019) and DreamerV3 (Hafner et al., 2023).

B batch, T time, A action size, D deterministic size, S stochastic size, V size of carried vectors, P latent parameters,
F = D + S + V features.

A belief has a deterministic part that a gated recurrent cell carries and a stochastic part that is drawn: from the
*prior* (`predict`), from the *posterior* after an observation (`observe`). Training pulls the two together.

With `vectors="change"` it also carries the observed vectors, as they were last observed or predicted: what the latent
then has to hold is only what they do not tell (`CarriedVectors`).
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.limits import at_least, between, check_limits, odd
from worldloom.model import Obs, State, WorldModel, state
from worldloom.models.open_loop import roll_out_along
from worldloom.nets.carried import CarriedVectors, carried_keys
from worldloom.nets.dense import BlockLinear, initialise, join, mlp, split
from worldloom.nets.heads import head_losses, signal_heads
from worldloom.nets.latent import Categorical, Gaussian, Latent
from worldloom.nets.observation import ObsDecoder, ObsEncoder
from worldloom.noise import NOISE, Noise


@dataclass(frozen=True)
class RSSMConfig:
    """Hyperparameters, DreamerV3's names and values. `depth` is the channels of every image feature map.

    `open_loop_head_weight` weighs the heads' error in an open-loop rollout of `open_loop_steps` steps, drawn from the
    prior, beside that on the posterior. An uncertain prior draws what no observation shows, and heads that learn on
    posteriors alone underestimate rare events there: the probability of termination one step ahead in Doom came out
    half of what it was. DreamerV3 has neither (0 and 1).

    `vectors`: observed ones are read out of the latent, as in DreamerV3, or carried beside it and predicted as a
    "change"; "auto" carries them where there are no pictures. Runs of before read them out of the latent.
    """

    deter: Annotated[int, at_least(1)] = 512
    hidden: Annotated[int, at_least(1)] = 64
    latent: Literal["categorical", "gaussian"] = "categorical"
    stoch: Annotated[int, at_least(1)] = 32
    classes: Annotated[int, at_least(2)] = 4
    unimix: Annotated[float, between(0, 1)] = 0.01
    blocks: Annotated[int, at_least(1)] = 8
    units: Annotated[int, at_least(1)] = 64
    depth: Annotated[int, at_least(1)] = 16
    encoder_layers: Annotated[int, at_least(0)] = 3
    decoder_layers: Annotated[int, at_least(0)] = 3
    head_layers: Annotated[int, at_least(0)] = 1
    bins: Annotated[int, odd(3)] = 255  # one bin is zero
    free_nats: Annotated[float, at_least(0)] = 1.0
    dynamics_weight: Annotated[float, at_least(0)] = 1.0
    representation_weight: Annotated[float, at_least(0)] = 0.1
    open_loop_head_weight: Annotated[float, at_least(0)] = 0.0
    open_loop_steps: Annotated[int, at_least(1)] = 1
    vectors: Literal["latent", "change", "auto"] = "latent"

    def __post_init__(self) -> None:
        """Raise `UserError` for a value no model can be made of."""
        check_limits(self, "hyperparameter {} of family 'rssm'".format)
        if self.deter % self.blocks:
            raise UserError(f"deter={self.deter} does not divide into blocks={self.blocks}: choose a multiple")
        if self.vectors not in ("latent", "change", "auto"):
            raise UserError(f"vectors={self.vectors!r} is not known: use 'latent', 'change' or 'auto'")
        if self.vectors == "change" and self.open_loop_head_weight:
            raise UserError("heads learn open-loop only where vectors='latent': leave open_loop_head_weight at 0")

    def carries(self, spec: DataSpec) -> bool:
        """Whether beliefs carry the observed vectors of these data."""
        alone = self.vectors == "auto" and not spec.image_keys and not self.open_loop_head_weight
        return (self.vectors == "change" or alone) and bool(carried_keys(spec))


SIZES = {
    "debug": RSSMConfig(
        deter=64, hidden=32, stoch=8, classes=8, units=32, depth=16, encoder_layers=1, decoder_layers=1
    ),
    # The work of DreamerV3's size1m; its parameter count within 2 %, so that speed can be compared.
    "size1m": RSSMConfig(),
    # For minutes of training: a posterior held close to what the prior can predict makes better dreams that early.
    "nano": RSSMConfig(
        deter=512,
        hidden=128,
        classes=16,
        units=128,
        encoder_layers=2,
        decoder_layers=2,
        representation_weight=1.0,
    ),
    "small": RSSMConfig(deter=1024, hidden=256, classes=16, units=256, depth=64),
    "base": RSSMConfig(deter=4096, hidden=512, classes=32, units=512, depth=96),
}


@state
class RSSMState(State):
    """deter `[B, D]`, stoch `[B, S]`, what stoch was drawn from `[B, P]`, and carried vectors `[B, V]`."""

    deter: Tensor
    stoch: Tensor
    latent: Tensor
    vectors: Tensor

    @property
    def features(self) -> Tensor:
        return torch.cat([self.deter, self.stoch, self.vectors], -1)

    @property
    def drawn(self) -> Tensor:
        """What the recurrent cell takes in besides what it remembers, `[B, S + V]`."""
        return torch.cat([self.stoch, self.vectors], -1)


class BlockGRU(nn.Module):
    """DreamerV3's recurrent cell: a GRU with block-diagonal recurrent matrices, each block seeing all of the input.

    The parts of the input are embedded and normalised apart, so that none of them drowns the others.
    """

    def __init__(self, config: RSSMConfig, stoch: int, action: int):
        super().__init__()
        deter, hidden, blocks = config.deter, config.hidden, config.blocks
        self.deter_in, self.stoch_in = mlp(deter, hidden, 1), mlp(stoch, hidden, 1)
        self.action_in = nn.Sequential(mlp(action, hidden, 1), nn.Linear(hidden, deter, bias=False)) if action else None
        self.blocks = blocks
        self.hidden_inputs = nn.Linear(2 * hidden, deter)
        self.hidden_deter = BlockLinear(deter, deter, blocks)
        self.hidden_norm = nn.Sequential(nn.LayerNorm(deter, eps=1e-3), nn.SiLU())
        self.gates = BlockLinear(deter, 3 * deter, blocks)
        self.gates_bias = nn.Parameter(torch.zeros(3 * deter))

    def embed_action(self, action: Tensor) -> Tensor:
        """`[..., A]` to the action's share of the hidden layer `[..., D]`, which needs no recurrence."""
        if self.action_in is None:
            return action.new_zeros(*action.shape[:-1], self.hidden_inputs.out_features)
        return self.action_in(action)

    def forward(self, deter: Tensor, stoch: Tensor, embedded_action: Tensor) -> Tensor:
        """`[B, D]`, `[B, S]` and `embed_action`'s `[B, D]` to the next deter `[B, D]`."""
        inputs = torch.cat([self.deter_in(deter), self.stoch_in(stoch)], -1)
        dense = self.hidden_inputs(inputs) + embedded_action
        hidden = self.hidden_norm(join(self.hidden_deter(deter, split(dense, self.blocks))))
        bias = self.gates_bias.view(self.blocks, 1, -1)
        reset, candidate, update = self.gates(hidden, bias).chunk(3, -1)
        candidate = torch.tanh(reset.sigmoid() * candidate).to(deter.dtype)
        # The shift by one starts the cell close to keeping what it remembers.
        return join(torch.lerp(split(deter, self.blocks), candidate, (update - 1).sigmoid().to(deter.dtype)))


class RSSM(WorldModel[RSSMState]):
    """The family `rssm`. `loss` returns one term a decoded key, "dynamics" and "representation", all `[B, T]`."""

    family: ClassVar[str] = "rssm"
    config_class: ClassVar[type] = RSSMConfig
    renamed: ClassVar[dict[str, str]] = {"blind_heads": "open_loop_head_weight", "blind_steps": "open_loop_steps"}
    sizes: ClassVar[dict[str, RSSMConfig]] = SIZES
    config: RSSMConfig
    latent: Latent

    def __init__(self, spec: DataSpec, config: RSSMConfig):
        super().__init__()
        self.spec, self.config = spec, config
        self.latent = make_latent(config)
        make = partial(CarriedVectors, spec, config.deter, units=config.units, layers=2)
        self.carried = make() if config.carries(spec) else None
        carried = self.carried.size if self.carried else 0
        features = config.deter + self.latent.size + carried
        self.encoder = ObsEncoder(spec, units=config.units, layers=config.encoder_layers, depth=config.depth)
        self.cell = BlockGRU(config, self.latent.size + carried, spec.action.size)
        self.prior = nn.Sequential(
            mlp(config.deter, config.hidden, 2), nn.Linear(config.hidden, self.latent.parameters)
        )
        self.look_deter = nn.Linear(config.deter, config.hidden)
        self.look_obs = nn.Linear(self.encoder.size, config.hidden, bias=False)
        self.posterior = nn.Sequential(
            nn.LayerNorm(config.hidden, eps=1e-3), nn.SiLU(), nn.Linear(config.hidden, self.latent.parameters)
        )
        self.decoder = ObsDecoder(
            spec,
            features,
            units=config.units,
            layers=config.decoder_layers,
            depth=config.depth,
            without=tuple(self.carried.sizes) if self.carried else (),
        )
        self.apply(initialise)
        if self.carried:
            self.carried.begin()
        self.heads = signal_heads(spec, features, units=config.units, layers=config.head_layers, bins=config.bins)
        self.loss_weights = {
            **dict.fromkeys(self.decodes, 1.0),
            "dynamics": config.dynamics_weight,
            "representation": config.representation_weight,
        }

    def start(self, obs: Obs, noise: Noise = NOISE) -> RSSMState:
        batch = next(iter(obs.values())).shape[0]
        no_action = self.look_deter.weight.new_zeros(batch, self.spec.action.size)
        return self._observed(self._nothing(batch), no_action, obs, None, noise)

    def observe(self, state: RSSMState, action: Tensor, obs: Obs, noise: Noise = NOISE) -> RSSMState:
        return self._observed(state, action, obs, state.vectors, noise)

    def predict(self, state: RSSMState, action: Tensor, noise: Noise = NOISE) -> RSSMState:
        deter = self.cell(state.deter, state.drawn, self.cell.embed_action(action))
        latent = self.prior(deter).float()
        vectors = self.carried.following(state.vectors, deter, action) if self.carried else state.vectors
        return RSSMState(deter, self.latent.sample(latent, noise, noise.temperature), latent, vectors)

    @property
    def decodes(self) -> tuple[str, ...]:
        return (*(self.carried.sizes if self.carried else ()), *self.decoder.keys, *self.heads)

    def decode(self, state: RSSMState, key: str) -> Tensor:
        if key in self.heads:
            return self.heads[key](state.features).mean
        if self.carried and key in self.carried.sizes:
            return self.carried.decode(state.vectors, key)
        if key in self.decoder.keys:
            return self.decoder.decode(state.features, key)
        raise UserError(f"this model can't decode {key!r}; it decodes {', '.join(self.decodes)}")

    def track(self, obs: Obs, actions: Tensor, noise: Noise = NOISE) -> RSSMState:
        """As the default scan, but everything that does not wait for the recurrence is one call for all rows."""
        seen = self.look_obs(self.encoder(obs)).float()
        vectors = self.carried.observed_rows(obs) if self.carried else seen[..., :0]
        before = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], 1)
        moved = self.cell.embed_action(before).float()
        belief = self._nothing(actions.shape[0])
        beliefs = []
        # Small steps wait on latency, not on arithmetic: here fp32 is faster than the casts that bf16 needs.
        with torch.autocast(actions.device.type, enabled=False):
            for moved_t, seen_t, vectors_t in zip(moved.unbind(1), seen.unbind(1), vectors.unbind(1), strict=True):
                deter = self.cell(belief.deter, belief.drawn, moved_t)
                belief = self._posterior_state(deter, seen_t, vectors_t, noise)
                beliefs.append(belief)
        return RSSMState.stack(beliefs)

    def loss(self, segment: Segment, belief: RSSMState | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        belief = self.track(segment.obs, segment.action, noise) if belief is None else belief
        features = belief.features
        losses = self.decoder.loss(features, segment.targets) | head_losses(self.heads, features, segment)
        prior, free = self.prior(belief.deter).float(), self.config.free_nats
        if self.config.open_loop_head_weight:
            ahead = self._foreseen(belief.deter, segment.action, noise)
            for key, error in head_losses(self.heads, ahead, segment).items():
                losses[key] = losses[key] + self.config.open_loop_head_weight * error
        if self.carried:
            before, after = belief.vectors[:, :-1], belief.vectors[:, 1:]
            ahead = self.carried.following(before, belief.deter[:, 1:], segment.action[:, :-1])
            losses |= {key: F.pad(error, (1, 0)) for key, error in self.carried.loss(ahead, after).items()}
        losses["dynamics"] = self.latent.kl(belief.latent.detach(), prior).clamp(min=free)
        losses["representation"] = self.latent.kl(belief.latent, prior.detach()).clamp(min=free)
        return losses

    def _foreseen(self, deter: Tensor, actions: Tensor, noise: Noise) -> Tensor:
        """Features `[B, T, F]` of every row predicted open-loop for up to `open_loop_steps` rows."""
        dreamt = roll_out_along(
            deter,
            actions,
            self.config.open_loop_steps,
            draw=lambda deter: self.latent.sample(self.prior(deter).float(), noise),
            move=lambda deter, stoch, action: self.cell(deter, stoch, self.cell.embed_action(action)),
        )
        return torch.cat(dreamt, -1)

    def _observed(self, state: RSSMState, action: Tensor, obs: Obs, before: Tensor | None, noise: Noise) -> RSSMState:
        """The posterior after `obs`; `before` `[B, V]` was carried, None at the start."""
        deter = self.cell(state.deter, state.drawn, self.cell.embed_action(action))
        seen = self.look_obs(self.encoder(obs))  # first, as it names a key that is missing
        vectors = self.carried.observed(obs, before) if self.carried else state.vectors
        return self._posterior_state(deter, seen, vectors, noise)

    def _posterior_state(self, deter: Tensor, seen: Tensor, vectors: Tensor, noise: Noise) -> RSSMState:
        latent = self.posterior(self.look_deter(deter) + seen).float()
        return RSSMState(deter, self.latent.sample(latent, noise), latent, vectors)

    def _nothing(self, batch: int) -> RSSMState:
        zeros = self.look_deter.weight.new_zeros
        sizes = (self.config.deter, self.latent.size, self.latent.parameters, self.carried.size if self.carried else 0)
        return RSSMState(*(zeros(batch, size) for size in sizes))


def make_latent(config: RSSMConfig) -> Latent:
    if config.latent == "categorical":
        return Categorical(config.stoch, config.classes, config.unimix)
    if config.latent == "gaussian":
        return Gaussian(config.stoch)
    raise UserError(f"latent={config.latent!r} is not known: use 'categorical' or 'gaussian'")
