"""Learning to act inside a world model: DreamerV3's actor and critic (Hafner et al., 2023), on the contract alone.

B batch, T time, N dreams, H horizon, F features. Dreams begin in beliefs that were tracked on real rows. The critic
learns the lambda returns of the dream, the actor what leads to more than the critic expected (REINFORCE) or, where
actions are numbers, what raises the returns back through the model (DreamerV2's other way, Hafner et al., 2021).
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from worldloom.agents.actor import Actor
from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.model import State, WorldModel, dream
from worldloom.nets.dense import initialise
from worldloom.nets.heads import ClippedDoubleHead, TwoHotHead
from worldloom.nets.observation import blank
from worldloom.noise import NOISE, Noise, TorchNoise

# The reward on arrival in each of the states `[N, H]` of a dream whose actions were `[N, H, A]`: `[N, H]`.
Reward = Callable[[WorldModel, State, Tensor], Tensor]


def decoded_reward(model: WorldModel, states: State, actions: Tensor) -> Tensor:
    """The reward that the model predicts."""
    return model.decode(states, "reward")


class ActorCritic(nn.Module):
    """Actor, critic, and the critic's slow copy. Called on beliefs, it returns named loss terms as a family does.

    Terms: "actor" and "critic" (scalars) from dreams, "replay_critic" `[B, T]` from the real rows, whose gradients go
    into the beliefs. In dreams `reward` gives the reward, by default the model's; "terminated" is used where it is
    decoded. What model and actor sample there is drawn from `noise`.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        features: int,
        spec: DataSpec,
        config: ActorCriticConfig,
        reward: Reward = decoded_reward,
        noise: Noise = NOISE,
    ):
        super().__init__()
        self.features, self.config, self.reward, self.noise = features, config, reward, noise
        self.actor = Actor(features, spec.action, units=config.units, layers=config.layers)
        if config.gradient == "dynamics" and self.actor.discrete:
            raise UserError("gradient=dynamics needs continuous actions, and these are choices: use reinforce")
        self.critic = make_critic(features, config)
        self.critic.zero_output()
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.loss_weights = {"actor": 1.0, "critic": 1.0, "replay_critic": config.replay_weight}

    @classmethod
    def of(cls, model: WorldModel, config: ActorCriticConfig, noise: Noise = NOISE) -> "ActorCritic":
        """For the beliefs of `model`. Raises `UserError` when it knows no reward or takes no actions."""
        if "reward" not in model.decodes:
            raise UserError(
                f"the model decodes {', '.join(model.decodes)} but no reward: a policy can only learn in the dreams of "
                "a model that was trained on data with rewards"
            )
        return cls(feature_size(model), model.spec, config, noise=noise)

    def forward(self, model: WorldModel, belief: State, segment: Segment) -> dict[str, Tensor]:
        """The terms for beliefs `[B, T]` tracked on `segment`."""
        terms = self.dream_terms(model, self.starts(belief, segment))
        return terms | {"replay_critic": self.replay_terms(belief, segment)}

    def starts(self, belief: State, segment: Segment) -> State:
        """Beliefs `[N]` for dreams to begin in: all that an episode goes on from, or as many as are asked for."""
        going = segment.mask & ~segment.terminated
        start = belief.detach()[going]
        if self.config.starts and len(start.features) > self.config.starts:
            start = start[torch.randperm(len(start.features))[: self.config.starts].to(start.features.device)]
        return start

    def dream_terms(self, model: WorldModel, start: State) -> dict[str, Tensor]:
        """Actor and critic on one dream from each of `start` `[N]`."""
        config, dynamics = self.config, self.config.gradient == "dynamics"
        with torch.set_grad_enabled(dynamics and torch.is_grad_enabled()), unmoved(model):
            states, actions, drawn = self.dream(model, start, config.horizon + 1)
            reward, discount = self.reward(model, states, actions), self._discounts(model, states)
        features = states.features.detach()
        critic = self.critic(features)
        with torch.no_grad():
            value, slow = critic.mean, self.slow(features).mean
            target = lambda_return(reward, discount, value, config.lam)
            # How probable it is that the dream has come so far; the start has.
            weight = torch.cat([torch.ones_like(discount[:, :1]), discount[:, 1:-1]], 1).cumprod(1)
        policy, scale = self.actor(features[:, :-1]), self._range(target)
        if dynamics:
            with unmoved(self.critic):
                gain = lambda_return(reward, discount, self.critic(states.features).mean, config.lam) / scale
        else:
            gain = policy.log_prob(drawn[:, :-1]) * (target - value[:, :-1]) / scale
        error = critic.nll(torch.cat([target, slow[:, -1:]], 1)) + critic.nll(slow)
        return {
            "actor": -(weight * (gain + config.entropy * policy.entropy)).mean(),
            "critic": (weight * error[:, :-1]).mean(),
        }

    def dream(self, model: WorldModel, start: State, steps: int) -> tuple[State, Tensor, Tensor]:
        """Beliefs `[N, H]`, the actions `[N, H, A]` carried out in them, and as drawn, before any was clipped."""
        drawn: list[Tensor] = []

        def act(state: State, noise: Noise) -> Tensor:
            chosen = self.actor(state.features)
            drawn.append(chosen.rsample(noise) if torch.is_grad_enabled() else chosen.sample(noise))
            return chosen.carried_out(drawn[-1])

        states, actions = dream(model, start, act, steps, self.noise)
        return states, actions, torch.stack(drawn, 1)

    def replay_terms(self, belief: State, segment: Segment) -> Tensor:
        """The critic's error `[B, T]` on real rows, towards the lambda returns of the recorded rewards."""
        critic = self.critic(belief.features)
        with torch.no_grad():
            value, slow = critic.mean, self.slow(belief.features).mean
            discount = self.config.discount * (~segment.terminated).float()
            target = lambda_return(segment.reward, discount, value, self.config.lam, segment.mask)
            # The last row has no return of its own, and nothing follows an end.
            target = torch.cat([target, slow[:, -1:]], 1).masked_fill(segment.terminated, 0.0)
        return critic.nll(target) + critic.nll(slow)

    @torch.no_grad()
    def after_update(self) -> None:
        """Move the slow critic."""
        slow: list[Tensor] = [*self.slow.parameters()]
        fast: list[Tensor] = [*self.critic.parameters()]
        torch._foreach_lerp_(slow, fast, self.config.slow_rate)

    def _discounts(self, model: WorldModel, states: State) -> Tensor:
        """By how much what follows each state counts: `[N, H + 1]`."""
        if "terminated" in model.decodes:
            return self.config.discount * (1 - model.decode(states, "terminated"))
        return torch.full_like(states.features[..., 0], self.config.discount, dtype=torch.float32)

    def _range(self, returns: Tensor) -> Tensor:
        """The running range from the 5th to the 95th percentile, at least 1: small returns are not blown up."""
        if self.training:
            found = torch.quantile(returns.flatten()[: 2**20].float(), returns.new_tensor([0.05, 0.95]))
            fresh = bool(self.low == self.high)
            for kept, now in ((self.low, found[0]), (self.high, found[1])):
                kept.copy_(now if fresh else torch.lerp(now, kept, self.config.decay))
        return (self.high - self.low).clamp(min=1.0)


def make_critic(features: int, config: ActorCriticConfig) -> TwoHotHead | ClippedDoubleHead:
    heads = [
        TwoHotHead(features, units=config.units, layers=config.layers).apply(initialise) for _ in range(config.critics)
    ]
    return heads[0] if len(heads) == 1 else ClippedDoubleHead(heads)


def lambda_return(reward: Tensor, discount: Tensor, value: Tensor, lam: float, real: Tensor | None = None) -> Tensor:
    """TD(lambda) returns of the first H - 1 of states `[N, H]` (DreamerV3, equation 6): `[N, H - 1]`.

    Reward and discount are those known on arrival in a state. Where the next row is not `real`, a state's return is its
    own value, and so nothing is learned from padding.
    """
    next_return = value[:, -1]
    returns: list[Tensor] = []
    for t in range(value.shape[1] - 1, 0, -1):
        bootstrap = torch.lerp(value[:, t], next_return, lam)
        next_return = reward[:, t] + discount[:, t] * bootstrap
        if real is not None:
            next_return = torch.where(real[:, t], next_return, value[:, t - 1])
        returns.append(next_return)
    return torch.stack(returns[::-1], 1)


@contextmanager
def unmoved(module: nn.Module) -> Iterator[None]:
    """Gradients flow through `module` and leave its weights alone."""
    learning = [weights for weights in module.parameters() if weights.requires_grad]
    try:
        for weights in learning:
            weights.requires_grad_(False)
        yield
    finally:
        for weights in learning:
            weights.requires_grad_(True)


@torch.no_grad()
def feature_size(model: WorldModel) -> int:
    """How many features a belief of `model` has, found by looking at an empty observation."""
    device = next(model.parameters()).device
    return int(model.start(blank(model.spec, device), TorchNoise.seeded(0, device)).features.shape[-1])
