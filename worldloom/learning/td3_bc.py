"""TD3+BC (Fujimoto & Gu, 2021): learn to act from a dataset alone, close to what was done in it.

The smallest change of TD3 (Fujimoto et al., 2018) that learns offline: the policy loss also has a term for its distance
from the action that was taken, equation (3), against the value on a scale that the data set, equation (5).

K learners, N steps, B batch, D vector size, A action size.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.agents.scripted import Scripted
from worldloom.data.episode import EpisodeSource
from worldloom.errors import UserError
from worldloom.limits import above, at_least, between, check_limits
from worldloom.model import Obs
from worldloom.noise import seeded_generators


@dataclass(frozen=True)
class TD3BCConfig:
    """`alpha` weighs the value against the data: 0 is behaviour cloning. The others are TD3's, as published."""

    updates: Annotated[int, at_least(0)] = 5000
    batch_size: Annotated[int, at_least(1)] = 256
    units: Annotated[int, at_least(1)] = 128
    layers: Annotated[int, at_least(1)] = 2
    alpha: Annotated[float, at_least(0)] = 2.5
    discount: Annotated[float, between(0, 1)] = 0.99
    lr: Annotated[float, above(0)] = 1e-3
    follow: Annotated[float, between(0, 1)] = 0.005
    policy_noise: Annotated[float, at_least(0)] = 0.2
    noise_clip: Annotated[float, at_least(0)] = 0.5
    policy_every: Annotated[int, at_least(1)] = 2

    def __post_init__(self) -> None:
        """Raise `UserError` for a value nothing can be learned with."""
        check_limits(self, "{} of TD3+BC".format)


@dataclass(frozen=True)
class Transitions:
    """Single steps of a dataset: obs and next_obs `[N, D]`, action `[N, A]` in model units, reward and ends `[N]`."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor

    @classmethod
    def of(cls, source: EpisodeSource) -> Self:
        """Every step of every episode. Raises `UserError` for data that TD3+BC can't learn from."""
        spec = source.spec
        if spec.image_keys or not spec.vector_keys:
            raise UserError(f"{source.path}: TD3+BC learns from vectors and nothing else")
        if spec.action.kind != "continuous" or spec.action.low is None or not spec.has_reward:
            raise UserError(f"{source.path}: TD3+BC needs rewards and continuous actions whose range is declared")
        episodes = [source.read(index) for index in range(len(source.episodes))]
        rows = [np.concatenate([e.obs[key] for key in spec.vector_keys], 1) for e in episodes]
        columns = (
            [x[:-1] for x in rows],
            [spec.action.scale(e.action[:-1]) for e in episodes],
            [e.reward[1:] for e in episodes],
            [x[1:] for x in rows],
            [e.terminated[1:].astype(np.float32) for e in episodes],
        )
        return cls(*(torch.from_numpy(np.concatenate(column)) for column in columns))

    def __len__(self) -> int:
        return len(self.reward)

    def __getitem__(self, index: Tensor) -> Self:
        return type(self)(*(x[index] for x in vars(self).values()))


class Networks(nn.Module):
    """K networks of one shape, `[K, B, inputs]` to `[K, B, outputs]`: linear, then LayerNorm, SiLU, linear."""

    def __init__(self, count: int, inputs: int, outputs: int, units: int, layers: int):
        super().__init__()
        widths = [inputs, *[units] * layers, outputs]
        self.weights = nn.ParameterList(
            torch.empty(count, a, b).uniform_(-(a**-0.5), a**-0.5) for a, b in pairwise(widths)
        )
        self.biases = nn.ParameterList(torch.zeros(count, 1, b) for b in widths[1:])

    def forward(self, x: Tensor) -> Tensor:
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, F.silu(F.layer_norm(x, x.shape[-1:])) if number else x, weight)
        return x


class TD3BC(nn.Module):
    """K learners side by side: the policies, two critics each, and the slow copies of all.

    Small networks cost a CPU more for the calls than for the arithmetic, so that an update of ten learners takes twice
    the time of one and not ten times. They share nothing: their losses are summed. Observations enter at unit scale.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, data: Sequence[Transitions], config: TD3BCConfig):
        super().__init__()
        self.data, self.config, count = data, config, len(data)
        inputs, actions = data[0].obs.shape[1], data[0].action.shape[1]
        self.register_buffer("mean", torch.stack([steps.obs.mean(0, keepdim=True) for steps in data]))
        self.register_buffer("std", torch.stack([steps.obs.std(0, keepdim=True) for steps in data]).clamp(min=1e-3))
        self.policy = Networks(count, inputs, actions, config.units, config.layers)
        self.critics = Networks(2 * count, inputs + actions, 1, config.units, config.layers)
        self.slow_policy, self.slow_critics = (copy.deepcopy(x).requires_grad_(False) for x in self.fast)
        self.policy_optimizer, self.critic_optimizer = (
            torch.optim.Adam(x.parameters(), config.lr, fused=True) for x in self.fast
        )

    @property
    def fast(self) -> tuple[Networks, Networks]:
        return self.policy, self.critics

    def act(self, obs: Tensor) -> Tensor:
        """What each learner would do: `[K, B, D]`, or `[1, B, D]` for all, to `[K, B, A]`."""
        return self.policy((obs - self.mean) / self.std).tanh()

    def draw(self) -> Transitions:
        """A batch of its own data for each learner, `[K, B, ...]`."""
        size = self.config.batch_size
        drawn = [steps[torch.randint(len(steps), (size,))] for steps in self.data]
        return Transitions(*(torch.stack(column) for column in zip(*(vars(d).values() for d in drawn), strict=True)))

    def update(self, batch: Transitions, policy_too: bool) -> None:
        obs, next_obs = ((x - self.mean) / self.std for x in (batch.obs, batch.next_obs))
        error = values(self.critics, obs, batch.action) - self._target(batch, next_obs)[:, None]
        step(self.critic_optimizer, error.square().mean((1, 2)).sum())
        if policy_too:
            self._update_policies(obs, batch.action)

    @torch.no_grad()
    def _target(self, batch: Transitions, next_obs: Tensor) -> Tensor:
        """What a step is worth by the more pessimistic slow critic, whose action is blurred: `[K, B]`."""
        config = self.config
        noise = (config.policy_noise * torch.randn_like(batch.action)).clamp(-config.noise_clip, config.noise_clip)
        action = (self.slow_policy(next_obs).tanh() + noise).clamp(-1, 1)
        value = values(self.slow_critics, next_obs, action).amin(1)
        return batch.reward + config.discount * (1 - batch.terminated) * value

    def _update_policies(self, obs: Tensor, taken: Tensor) -> None:
        action = self.policy(obs).tanh()
        value = values(self.critics, obs, action)[:, 0]
        with torch.no_grad():
            scale = self.config.alpha / values(self.critics, obs, taken)[:, 0].abs().mean(1).clamp(min=1e-6)
        step(self.policy_optimizer, ((action - taken).square().mean((1, 2)) - scale * value.mean(1)).sum())
        for slow, fast in zip((self.slow_policy, self.slow_critics), self.fast, strict=True):
            torch._foreach_lerp_(list(slow.parameters()), [p.detach() for p in fast.parameters()], self.config.follow)


def values(critics: Networks, obs: Tensor, action: Tensor) -> Tensor:
    """What both critics of each learner say, `[K, 2, B]`."""
    return critics(torch.cat([obs, action], -1).repeat_interleave(2, 0)).unflatten(0, (-1, 2))[..., 0]


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def learn_offline(sources: Sequence[EpisodeSource], config: TD3BCConfig | None = None, seed: int = 0) -> list[Scripted]:
    """An agent for each of `sources`, which are of one kind; torch's generators are left as they were.

    Raises `UserError` for data that TD3+BC can't learn from.
    """
    config, data = config or TD3BCConfig(), [Transitions.of(source) for source in sources]
    with seeded_generators(seed, torch.device("cpu")):
        learners = TD3BC(data, config)
        for number in range(config.updates):
            learners.update(learners.draw(), policy_too=number % config.policy_every == 0)
    return [agent(learners, number, source) for number, source in enumerate(sources)]


def agent(learners: TD3BC, number: int, source: EpisodeSource) -> Scripted:
    """One of the learners, acting."""
    keys = source.spec.vector_keys

    def act(obs: Obs) -> Tensor:
        return learners.act(torch.cat([obs[key] for key in keys], -1)[None])[number]

    return Scripted(source.spec, act)
