"""Decoder-free latent dynamics with values and a policy prior: TD-MPC2 (Hansen et al., 2024).

B batch, T time, H horizon, A action size, E embedding size, K frames, L latent size, Q members, N rows of any kind.

A belief is the encoding of the last K observations, which must show all that matters: one of vectors, but three
pictures, as a single one shows no speed. Nothing is reconstructed; the latent is trained to predict its own next
value, the reward and the return. Targets of the value come from a slow copy of its members, which `after_update` moves.
"""

import copy
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.limits import Bound, at_least, between, check_limits, odd
from worldloom.model import Obs, State, WorldModel, state
from worldloom.nets.heads import BernoulliHead, TwoHot, head_losses, signal_heads, symexp_bins
from worldloom.nets.latent import draw
from worldloom.nets.observation import ObsEncoder
from worldloom.nets.value import TwoHotEnsemble
from worldloom.noise import NOISE, Noise


@dataclass(frozen=True)
class TDMPCConfig:
    """Hyperparameters, TD-MPC2's names and values where it has them.

    `horizon` is the length of an unrolled window in training: longer segments are cut into windows. `rho` weighs the
    steps of a window. `simplex` is the size of each softmax group of the latent. `depth` is the channels of image maps.
    `frames` is how many observations are encoded together; None is 3 where there are only pictures, else 1.
    """

    frames: Annotated[int | None, at_least(1)] = None
    latent: Annotated[int, at_least(1)] = 512
    units: Annotated[int, at_least(1)] = 512
    encoder_units: Annotated[int, at_least(1)] = 256
    encoder_layers: Annotated[int, at_least(0)] = 1
    depth: Annotated[int, at_least(1)] = 32
    simplex: Annotated[int, at_least(1)] = 8
    members: Annotated[int, at_least(1)] = 5
    bins: Annotated[int, odd(3)] = 101  # one bin is zero
    horizon: Annotated[int, at_least(1)] = 3
    rho: Annotated[float, between(0, 1)] = 0.5
    discount: Annotated[float, Bound(low=0, below=1)] = 0.99
    slow_rate: Annotated[float, between(0, 1)] = 0.01
    entropy: Annotated[float, at_least(0)] = 1e-4
    consistency_weight: Annotated[float, at_least(0)] = 20.0
    reward_weight: Annotated[float, at_least(0)] = 0.1
    value_weight: Annotated[float, at_least(0)] = 0.1

    def __post_init__(self) -> None:
        """Raise `UserError` for a value no model can be made of."""
        check_limits(self, "hyperparameter {} of family 'tdmpc'".format)
        if self.latent % self.simplex:
            raise UserError(f"latent={self.latent} does not divide into groups of simplex={self.simplex}")


SIZES = {
    "debug": TDMPCConfig(latent=32, units=32, encoder_units=32, depth=8, members=2),
    # Reaches on one CPU core within the hour what the larger ones reach on a GPU.
    "nano": TDMPCConfig(latent=64, units=128, encoder_units=128, depth=16, members=2),
    "small": TDMPCConfig(latent=128, units=256, encoder_units=256, members=5),
    "base": TDMPCConfig(),
}


@state
class TDMPCState(State):
    """latent `[B, L]`, and where it came from: the latent before `[B, L]` and the action between `[B, A]`.

    The reward that arrived with this belief is a function of those two. history `[B, K - 1, E]` are the embeddings
    that the next observation will be encoded together with.
    """

    latent: Tensor
    before: Tensor
    action: Tensor
    history: Tensor

    @property
    def features(self) -> Tensor:
        return self.latent


class Simplices(nn.Module):
    """SimNorm: the latent as groups that each sum to one, laid out `[simplex, L / simplex]`, as a softmax is fast."""

    def __init__(self, simplex: int):
        super().__init__()
        self.simplex = simplex

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.simplex, -1)).softmax(-2).flatten(-2)


def trunk(inputs: int, units: int, layers: int) -> list[nn.Module]:
    """`layers` times linear, LayerNorm, SiLU. TD-MPC2 has Mish, which takes a third of an update on a CPU."""
    widths = [inputs] + [units] * layers
    return [m for i in range(layers) for m in (nn.Linear(widths[i], units), nn.LayerNorm(units), nn.SiLU())]


class TDMPC(WorldModel[TDMPCState]):
    """The family `tdmpc`. It decodes "reward", "value", "action", and "terminated" where the data has ends.

    `loss` needs rewards. Its terms are all `[B, T]`: row t > 0 holds what the step into row t cost.
    """

    family: ClassVar[str] = "tdmpc"
    config_class: ClassVar[type] = TDMPCConfig
    sizes: ClassVar[dict[str, TDMPCConfig]] = SIZES
    config: TDMPCConfig
    bins: Tensor

    def __init__(self, spec: DataSpec, config: TDMPCConfig):
        super().__init__()
        if not spec.has_reward:
            raise UserError(
                "family 'tdmpc' learns values, but the data have no reward: choose another family, or add one"
            )
        if not spec.action.size:
            raise UserError("family 'tdmpc' plans actions, but the data have none: choose another family")
        if config.frames is None:
            config = replace(config, frames=1 if spec.vector_keys else 3)
        self.spec, self.config = spec, config
        self.frames: int = config.frames or 1
        latent, units, action = config.latent, config.units, spec.action.size
        self.discrete = spec.action.kind == "discrete"
        layers, width = config.encoder_layers, config.encoder_units
        self.encoder = ObsEncoder(spec, units=width, layers=layers, depth=config.depth)
        simplices = (nn.LayerNorm(latent), Simplices(config.simplex))
        self.to_latent = nn.Sequential(nn.Linear(self.frames * self.encoder.size, latent), *simplices)
        self.dynamics = nn.Sequential(
            *trunk(latent + action, units, 2), nn.Linear(units, latent), *copy.deepcopy(simplices)
        )
        reward_output = nn.Linear(units, config.bins)
        self.reward = nn.Sequential(*trunk(latent + action, units, 2), reward_output)
        self.prior = nn.Sequential(*trunk(latent, units, 2), nn.Linear(units, action if self.discrete else 2 * action))
        self.terminated = BernoulliHead(latent, units=units, layers=1) if spec.has_end else None
        self.apply(initialise)
        nn.init.zeros_(reward_output.weight)
        self.value = TwoHotEnsemble(latent + action, units=units, layers=2, bins=config.bins, members=config.members)
        self.slow_value = copy.deepcopy(self.value).requires_grad_(False)
        self.register_buffer("bins", symexp_bins(config.bins, 10.0), persistent=False)
        others = spec.with_targets({k: s for k, s in spec.targets.items() if k not in ("reward", "terminated")})
        self.heads = signal_heads(others, latent, units=units, layers=1, bins=config.bins, begin=initialise)
        self.loss_weights = {
            "consistency": config.consistency_weight,
            "reward": config.reward_weight,
            "value": config.value_weight,
            "policy": 1.0,
        } | dict.fromkeys((*(("terminated",) if spec.has_end else ()), *self.heads), 1.0)

    def start(self, obs: Obs, noise: Noise = NOISE) -> TDMPCState:
        window = self.encoder(obs)[:, None].expand(-1, self.frames, -1)
        latent = self._latents(window)[:, 0]
        return TDMPCState(latent, latent, latent.new_zeros(len(latent), self.spec.action.size), window[:, 1:])

    def observe(self, state: TDMPCState, action: Tensor, obs: Obs, noise: Noise = NOISE) -> TDMPCState:
        window = torch.cat([state.history, self.encoder(obs)[:, None]], 1)
        return TDMPCState(self._latents(window)[:, 0], state.latent, action, window[:, 1:])

    def predict(self, state: TDMPCState, action: Tensor, noise: Noise = NOISE) -> TDMPCState:
        return TDMPCState(self._step(state.latent, action), state.latent, action, state.history)

    @property
    def decodes(self) -> tuple[str, ...]:
        return ("reward", *(("terminated",) if self.terminated is not None else ()), *self.heads, "value", "action")

    def decode(self, state: TDMPCState, key: str) -> Tensor:
        if key == "reward":
            return self._reward(state.before, state.action).mean
        if key == "value":
            # Members are exchangeable, so two stand for all, and cost less than all.
            action, two = self._mean_action(state.latent), None if self.config.members <= 2 else slice(0, 2)
            return self.value(torch.cat([state.latent, action], -1), members=two).mean.mean(0)
        if key == "action":
            return self._mean_action(state.latent)
        if key in self.heads:
            return self.heads[key](state.latent).mean
        if key == "terminated" and self.terminated is not None:
            return self.terminated(state.latent).mean
        raise UserError(f"this model can't decode {key!r}; it decodes {', '.join(self.decodes)}")

    def track(self, obs: Obs, actions: Tensor, noise: Noise = NOISE) -> TDMPCState:
        """One call for all rows: a belief is the encoding of its last observations."""
        embedded = self.encoder(obs)
        more, time = self.frames - 1, embedded.shape[1]
        padded = torch.cat([embedded[:, :1].expand(-1, more, -1), embedded], 1)
        # Row t remembers the last K - 1 embeddings, its own included.
        history = [padded[:, 1 + i : 1 + i + time] for i in range(more)]
        latent = self._latents(padded)
        before = torch.cat([latent[:, :1], latent[:, :-1]], 1)
        action = torch.cat([torch.zeros_like(actions[:, :1]), actions[:, :-1]], 1)
        return TDMPCState(latent, before, action, torch.stack(history, 2) if more else embedded[:, :, None][:, :, :0])

    def imagine(self, state: TDMPCState, actions: Tensor, noise: Noise = NOISE) -> TDMPCState:
        latent, latents = state.latent, []
        for action in actions.unbind(1):
            latent = self._step(latent, action)
            latents.append(latent)
        imagined = torch.stack(latents, 1)
        before = torch.cat([state.latent[:, None], imagined[:, :-1]], 1)
        history = state.history[:, None].expand(-1, actions.shape[1], -1, -1)
        return TDMPCState(imagined, before, actions, history)

    def loss(self, segment: Segment, belief: TDMPCState | None = None, noise: Noise = NOISE) -> dict[str, Tensor]:
        """Windows of `horizon` steps, each unrolled from the encoding of its first row (equations 3 and 4)."""
        windows = Windows.cut(segment, self.config.horizon, self.frames)
        with torch.no_grad():
            target_latents = self._latents(self.encoder(windows.obs_after))
            targets = self._value_targets(target_latents, windows, noise)
        latent = self._latents(self.encoder(windows.obs_first))[:, 0]
        latents = [latent]
        steps = windows.steps
        for action in steps.action.unbind(1):
            latents.append(self._step(latents[-1], action))
        unrolled = torch.stack(latents, 1)
        before, after = unrolled[:, :-1], unrolled[:, 1:]
        pairs = torch.cat([before, steps.action], -1)
        terms = {
            "consistency": (after - target_latents).square().mean(-1),
            "reward": TwoHot(self.reward(pairs).float(), self.bins).nll(steps.reward),
            "value": self.value(pairs).nll(targets.expand(self.config.members, *targets.shape)).mean(0),
            "policy": self._policy_loss(before.detach(), noise),
        }
        if self.terminated is not None:
            terms["terminated"] = self.terminated(after).nll(steps.terminated)
        terms |= head_losses(self.heads, after, steps)
        powers = self.config.rho ** torch.arange(self.config.horizon, device=latent.device)
        weight = windows.valid * (powers / powers.mean())
        return {name: windows.to_rows(term * weight) for name, term in terms.items()}

    @torch.no_grad()
    def after_update(self) -> None:
        pairs = zip(self.slow_value.parameters(), self.value.parameters(), strict=True)
        slow, fast = (list(group) for group in zip(*pairs, strict=True))
        torch._foreach_lerp_(slow, fast, self.config.slow_rate)

    def _latents(self, embedded: Tensor) -> Tensor:
        """Embeddings of R rows `[N, R, E]` to latents of those that have K - 1 before them, `[N, R - K + 1, L]`."""
        if self.frames > 1:
            embedded = embedded.unfold(1, self.frames, 1).transpose(-1, -2).flatten(-2)
        return self.to_latent(embedded).float()

    def _step(self, latent: Tensor, action: Tensor) -> Tensor:
        return self.dynamics(torch.cat([latent, action], -1)).float()

    def _reward(self, latent: Tensor, action: Tensor) -> TwoHot:
        return TwoHot(self.reward(torch.cat([latent, action], -1)).float(), self.bins)

    def _mean_action(self, latent: Tensor) -> Tensor:
        parameters = self.prior(latent).float()
        if self.discrete:
            return F.one_hot(parameters.argmax(-1), self.spec.action.size).float()
        return parameters.chunk(2, -1)[0].tanh()

    def _sample_action(self, latent: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """A reparametrised action `[..., A]` of the prior and its negative log-likelihood `[...]`."""
        parameters = self.prior(latent).float()
        if self.discrete:
            return sample_choice(parameters, noise)
        mean, raw = parameters.chunk(2, -1)
        return sample_squashed(mean, raw, noise)

    def _draw_two(self, noise: Noise) -> Tensor | None:
        """Two members at random, None for all where there are no more."""
        if self.config.members <= 2:
            return None
        return noise.uniform((self.config.members,), self.bins).argsort()[:2]

    def _value_targets(self, after: Tensor, windows: "Windows", noise: Noise) -> Tensor:
        """One-step temporal-difference targets `[N, H]`, the smaller of two random members of the slow copy."""
        action, _ = self._sample_action(after, noise)
        values = self.slow_value(torch.cat([after, action], -1), members=self._draw_two(noise)).mean.amin(0)
        return windows.steps.reward + self.config.discount * ~windows.steps.terminated * values

    def _policy_loss(self, latent: Tensor, noise: Noise) -> Tensor:
        """The prior goes where the values are high; values are divided by their range in the batch."""
        action, surprise = self._sample_action(latent, noise)
        values = self.value(torch.cat([latent, action], -1), members=self._draw_two(noise), frozen=True).mean.mean(0)
        ordered = values.detach().flatten().sort().values
        low, high = ordered[int(0.05 * (len(ordered) - 1))], ordered[int(0.95 * (len(ordered) - 1))]
        return -(values / (high - low).clamp(min=1.0) + self.config.entropy * surprise)


@dataclass(frozen=True)
class Windows:
    """A segment `[B, T]` cut into N = B * W windows of H steps that share their border rows.

    obs_first `[N, K, ...]`, the frames of the first belief, and obs_after `[N, K - 1 + H, ...]`, those of the ones that
    follow; the actions of `steps` `[N, H]` lead to its signals. valid `[N, H]` is 1 where the step happened.
    """

    obs_first: dict[str, Tensor]
    obs_after: dict[str, Tensor]
    steps: Segment
    valid: Tensor
    rows: tuple[int, int]
    frames: int

    @classmethod
    def cut(cls, segment: Segment, horizon: int, frames: int = 1) -> "Windows":
        """The first `frames - 1` rows only show where the first window came from."""
        batch, time = segment.shape
        shortest = horizon + frames
        if time < shortest:
            raise UserError(
                f"family 'tdmpc' unrolls {horizon} steps from {frames} observed rows, but the segments have {time} "
                f"rows: --length {shortest} or more"
            )
        starts = torch.arange(0, time - shortest + 1, horizon)
        index = (starts[:, None] + torch.arange(shortest)).to(segment.action.device)

        def windows(x: Tensor) -> Tensor:
            return x[:, index].flatten(0, 1)

        obs = {k: windows(v) for k, v in segment.obs.items()}
        signals = {k: windows(v)[:, frames:] for k, v in segment.signals.items()}
        mask = windows(segment.mask)[:, frames:]
        return cls(
            obs_first={k: v[:, :frames] for k, v in obs.items()},
            obs_after={k: v[:, 1:] for k, v in obs.items()},
            steps=Segment({}, windows(segment.action)[:, frames - 1 : -1], signals, mask),
            valid=mask.float(),
            rows=(batch, time),
            frames=frames,
        )

    def to_rows(self, term: Tensor) -> Tensor:
        """A term `[N, H]` back at the rows the steps led to, `[B, T]`; 0 before the first and past the last window."""
        batch, time = self.rows
        steps = term.reshape(batch, -1)
        return F.pad(steps, (self.frames, time - self.frames - steps.shape[1]))


def sample_squashed(mean: Tensor, raw: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """A tanh-squashed normal `[..., A]`: a sample and its negative log-likelihood `[...]`, with gradients."""
    log_std = -4 + 6 * raw.tanh()  # within [-10, 2]
    drawn = noise.normal(mean.shape, mean)
    action = torch.addcmul(mean, drawn, log_std.exp()).tanh()
    nll = 0.5 * drawn.square() + log_std + (1 - action.square() + 1e-6).log() + 0.9189385
    return action, nll.sum(-1)


def sample_choice(logits: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """A one-hot choice `[..., A]` with straight-through gradients, and the entropy `[...]` in place of its surprise."""
    log_probs = logits.log_softmax(-1)
    probs = log_probs.exp()
    one_hot = draw(probs.detach()[..., None], noise)[..., 0]
    return one_hot + (probs - probs.detach()), -(probs * log_probs).sum(-1)


def initialise(module: nn.Module) -> None:
    """TD-MPC2's: truncated normal of standard deviation 0.02, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
