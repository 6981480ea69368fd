"""World Models (Ha & Schmidhuber, 2018): a latent of each observation, and a recurrent net that predicts the next one.

B batch, T time, A action size, Z latent size, D hidden size, K mixture components, F = Z + D features.

*Vision* is a variational autoencoder: each observation becomes a latent z of its own, whatever came before. *Memory* is
an LSTM that takes latents and actions and predicts the next latent as a mixture of normals in each of its
dimensions. Open-loop latents are drawn from that mixture. The paper's *controller* sees z and the memory's output,
which are the features here (`worldloom learn cma`).

Departures from the paper: vision and memory are trained at once and not one after the other, where the memory does not
move the vision; reward and end are read from the features by heads, whose gradients do reach the vision of their own
row, so that it keeps what is small and deadly.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.limits import at_least, check_limits, odd
from worldloom.model import Obs, State, WorldModel, state
from worldloom.models.open_loop import roll_out_along
from worldloom.nets.dense import initialise
from worldloom.nets.heads import head_losses, signal_heads
from worldloom.nets.latent import COLDEST, draw
from worldloom.nets.observation import ObsDecoder, ObsEncoder
from worldloom.noise import NOISE, Noise

LEAST_LOG_STD, MOST_LOG_STD = -5.0, 3.0


@dataclass(frozen=True)
class VAERNNConfig:
    """`latent` is Z, `hidden` D and `mixtures` K. `free_nats`: nats that a dimension of the latent costs nothing.

    `open_loop_head_weight` weighs the heads' error in an open-loop rollout of `open_loop_steps` steps, beside that on
    observed codes. In the paper the memory alone says whether an episode terminates; heads that learn on observations
    alone underestimate it where the memory is uncertain, the more so the longer the rollout.
    """

    latent: Annotated[int, at_least(1)] = 32
    hidden: Annotated[int, at_least(1)] = 256
    mixtures: Annotated[int, at_least(1)] = 5
    units: Annotated[int, at_least(1)] = 128
    depth: Annotated[int, at_least(1)] = 16
    encoder_layers: Annotated[int, at_least(0)] = 2
    decoder_layers: Annotated[int, at_least(0)] = 2
    head_layers: Annotated[int, at_least(0)] = 1
    bins: Annotated[int, odd(3)] = 255  # one bin is zero
    free_nats: Annotated[float, at_least(0)] = 0.5
    open_loop_head_weight: Annotated[float, at_least(0)] = 0.0
    open_loop_steps: Annotated[int, at_least(1)] = 1

    def __post_init__(self) -> None:
        """Raise `UserError` for a value no model can be made of."""
        check_limits(self, "hyperparameter {} of family 'vae_rnn'".format)


SIZES = {
    "debug": VAERNNConfig(latent=8, hidden=32, mixtures=3, units=32, encoder_layers=1, decoder_layers=1),
    "nano": VAERNNConfig(),
    # The paper's for take_cover: 64 codes, 512 of memory.
    "small": VAERNNConfig(latent=64, hidden=512, units=256, depth=32),
    "base": VAERNNConfig(latent=128, hidden=1024, units=512, depth=64),
}


@state
class VAERNNState(State):
    """code `[B, Z]`, memory and its cell `[B, D]`, and of the normals that the code was drawn from mean and log std."""

    code: Tensor
    memory: Tensor
    cell: Tensor
    mean: Tensor
    log_std: Tensor

    @property
    def features(self) -> Tensor:
        return torch.cat([self.code, self.memory], -1)


@dataclass(frozen=True)
class Mixture:
    """Mixtures of K normals in each of Z dimensions: logits, means and log standard deviations `[..., K, Z]`."""

    logits: Tensor
    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Noise, temperature: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """A draw `[..., Z]` with mean and log std of the components it came from.

        As in the paper, logits are divided by the temperature and variances multiplied by it.
        """
        one_hot = draw((self.logits / max(temperature, COLDEST)).softmax(-2).detach(), noise)
        mean, log_std = ((one_hot * x).sum(-2) for x in (self.mean, self.log_std))
        return mean + math.sqrt(temperature) * log_std.exp() * noise.normal(mean.shape, mean), mean, log_std

    def nll(self, code: Tensor) -> Tensor:
        """Nats that `code` `[..., Z]` costs: `[...]`."""
        scaled = (code[..., None, :] - self.mean) * (-self.log_std).exp()
        normal = -0.5 * scaled.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return -(self.logits.log_softmax(-2) + normal).logsumexp(-2).sum(-1)


class VAERNN(WorldModel[VAERNNState]):
    """The family `vae_rnn`. `loss` returns one term a decoded key, "code" and "memory", all `[B, T]`.

    "code" is KL(q(z | o) || N(0, 1)) of the latent, "memory" the negative log-likelihood of the next latent.
    """

    family: ClassVar[str] = "vae_rnn"
    config_class: ClassVar[type] = VAERNNConfig
    renamed: ClassVar[dict[str, str]] = {
        "blind_heads": "open_loop_head_weight",
        "blind_steps": "open_loop_steps",
        "code": "latent",
        "memory": "hidden",
        "tolerance": "free_nats",
    }
    sizes: ClassVar[dict[str, VAERNNConfig]] = SIZES
    config: VAERNNConfig

    def __init__(self, spec: DataSpec, config: VAERNNConfig):
        super().__init__()
        self.spec, self.config = spec, config
        width: dict[str, Any] = {"units": config.units, "depth": config.depth}
        self.encoder = ObsEncoder(spec, **width, layers=config.encoder_layers)
        self.moments = nn.Linear(self.encoder.size, 2 * config.latent)
        self.decoder = ObsDecoder(spec, config.latent, **width, layers=config.decoder_layers)
        self.cell = nn.LSTMCell(config.latent + spec.action.size, config.hidden)
        self.mixture = nn.Linear(config.hidden, 3 * config.mixtures * config.latent)
        self.apply(initialise)
        features = config.latent + config.hidden
        self.heads = signal_heads(spec, features, units=config.units, layers=config.head_layers, bins=config.bins)
        self.loss_weights = dict.fromkeys((*self.decodes, "code", "memory"), 1.0)

    def start(self, obs: Obs, noise: Noise = NOISE) -> VAERNNState:
        mean, log_std = self._see(obs)
        nothing = mean.new_zeros(*mean.shape[:-1], self.config.hidden)
        return VAERNNState(draw_normal(mean, log_std, noise), nothing, nothing, mean, log_std)

    def observe(self, state: VAERNNState, action: Tensor, obs: Obs, noise: Noise = NOISE) -> VAERNNState:
        memory, cell = self._remember(state.code, action, state)
        mean, log_std = self._see(obs)
        return VAERNNState(draw_normal(mean, log_std, noise), memory, cell, mean, log_std)

    def predict(self, state: VAERNNState, action: Tensor, noise: Noise = NOISE) -> VAERNNState:
        memory, cell = self._remember(state.code, action, state)
        code, mean, log_std = self._next_latent(memory).sample(noise, noise.temperature)
        return VAERNNState(code, memory, cell, mean, log_std)

    @property
    def decodes(self) -> tuple[str, ...]:
        return (*self.decoder.keys, *self.heads)

    def decode(self, state: VAERNNState, key: str) -> Tensor:
        if key in self.heads:
            return self.heads[key](state.features).mean
        if key in self.decoder.keys:
            return self.decoder.decode(state.code, key)
        raise UserError(f"this model can't decode {key!r}; it decodes {', '.join(self.decodes)}")

    def track(self, obs: Obs, actions: Tensor, noise: Noise = NOISE) -> VAERNNState:
        """As the default scan, but all rows are encoded at once. The recurrent state does not change the encoder."""
        mean, log_std = self._see(obs)
        belief = self.start({key: value[:, 0] for key, value in obs.items()}, noise)
        beliefs = [belief]
        for t in range(1, actions.shape[1]):
            memory, cell = self._remember(belief.code.detach(), actions[:, t - 1], belief)
            code = draw_normal(mean[:, t], log_std[:, t], noise)
            belief = VAERNNState(code, memory, cell, mean[:, t], log_std[:, t])
            beliefs.append(belief)
        return VAERNNState.stack(beliefs)

    def loss(self, segment: Segment, belief: VAERNNState | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        belief = self.track(segment.obs, segment.action, noise) if belief is None else belief
        losses = self.decoder.loss(belief.code, segment.targets) | head_losses(self.heads, belief.features, segment)
        if self.config.open_loop_head_weight:
            ahead = self._foreseen(belief, segment.action, noise)
            for key, error in head_losses(self.heads, ahead, segment).items():
                losses[key] = losses[key] + self.config.open_loop_head_weight * F.pad(error[:, 1:], (1, 0))
        price = 0.5 * (belief.mean.square() + (2 * belief.log_std).exp() - 1) - belief.log_std
        losses["code"] = price.sum(-1).clamp(min=self.config.free_nats * self.config.latent)
        losses["memory"] = F.pad(self._next_latent(belief.memory[:, 1:]).nll(belief.code[:, 1:].detach()), (1, 0))
        return losses

    def _foreseen(self, belief: VAERNNState, actions: Tensor, noise: Noise) -> Tensor:
        """Features `[B, T, F]` of every row predicted open-loop for up to `open_loop_steps` rows."""
        size = self.config.hidden

        def move(both: Tensor, code: Tensor, action: Tensor) -> Tensor:
            return torch.cat(self.cell(torch.cat([code, action], -1), both.split(size, -1)), -1).float()

        both, code = roll_out_along(
            torch.cat([belief.memory, belief.cell], -1),
            actions,
            self.config.open_loop_steps,
            draw=lambda both: self._next_latent(both[..., :size]).sample(noise)[0],
            move=move,
        )
        return torch.cat([code, both[..., :size]], -1)

    def _see(self, obs: Obs) -> tuple[Tensor, Tensor]:
        """Mean and log std `[..., Z]` of the latent of an observation."""
        mean, log_std = self.moments(self.encoder(obs)).float().chunk(2, -1)
        return mean, log_std.clamp(LEAST_LOG_STD, MOST_LOG_STD)

    def _remember(self, code: Tensor, action: Tensor, state: VAERNNState) -> tuple[Tensor, Tensor]:
        """The memory and its cell `[B, D]` after a code and what was done there."""
        memory, cell = self.cell(torch.cat([code, action], -1), (state.memory, state.cell))
        return memory.float(), cell.float()

    def _next_latent(self, memory: Tensor) -> Mixture:
        """Where the code may lie that the memory `[..., D]` leads to."""
        raw = self.mixture(memory).float().unflatten(-1, (3, self.config.mixtures, self.config.latent))
        logits, mean, log_std = raw.unbind(-3)
        return Mixture(logits, mean, log_std.clamp(LEAST_LOG_STD, MOST_LOG_STD))


def draw_normal(mean: Tensor, log_std: Tensor, noise: Noise) -> Tensor:
    return mean + log_std.exp() * noise.normal(mean.shape, mean)
