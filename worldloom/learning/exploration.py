"""Exploration by disagreement: a second policy that seeks what the model has yet to learn (Plan2Explore).

Sekar et al. (2020): networks that all learn to predict the next belief agree where there are many data and
differ where there are few. Their disagreement is the reward of the exploring policy, in the same dreams' model as the
task's policy.

B batch, T time, N dreams, H horizon, K networks, F features, C code, A action size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldloom.agents.actor import Actor
from worldloom.data.segment import Segment
from worldloom.data.spec import DataSpec
from worldloom.errors import unknown
from worldloom.learning.actor_critic import ActorCritic
from worldloom.learning.actor_critic_config import ActorCriticConfig
from worldloom.model import State, WorldModel
from worldloom.nets.dense import initialise, mlp

DISAGREEMENT = "disagreement"


class Disagreement(nn.Module):
    """K networks from the features of a belief and an action to a code of the belief that follows.

    The code is a fixed random rotation of its features, cut off after 64 numbers: they vary as a thousand do, and an
    update takes half the time. `reward` is the variance of what the networks predict, in units of its mean on the last
    real rows (`scale`): features have the units of their family, and all the networks differ less as they learn.
    """

    members, longest = 5, 64
    scale: Tensor
    rotation: Tensor

    def __init__(self, features: int, spec: DataSpec, config: ActorCriticConfig):
        super().__init__()
        inputs, code = features + spec.action.size, min(features, self.longest)
        self.networks = nn.ModuleList(
            nn.Sequential(mlp(inputs, config.units, config.layers), nn.Linear(config.units, code))
            for _ in range(self.members)
        )
        self.apply(initialise)
        self.register_buffer("rotation", nn.init.orthogonal_(torch.empty(features, code)))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """`[..., F]` and `[..., A]` to what each network predicts, `[K, ..., C]`."""
        inputs = torch.cat([features, action.to(features.dtype)], -1)
        return torch.stack([network(inputs) for network in self.networks]).float()

    def loss(self, belief: State, segment: Segment) -> Tensor:
        """`[B, T]`: row t > 0 holds the networks' mean squared error in foreseeing its belief, which stays as it is."""
        features = belief.features.detach()
        predicted, target = self(features[:, :-1], segment.action[:, :-1]), features[:, 1:] @ self.rotation
        real = segment.mask[:, 1:]
        if self.training and real.any():
            self.scale.copy_(spread(predicted.detach())[real].mean())
        return F.pad((predicted - target).square().mean((0, -1)), (1, 0))

    def reward(self, model: WorldModel, states: State, actions: Tensor) -> Tensor:
        """What arriving in each of `states` `[N, H]` was worth, `[N, H]`; nothing is known of how the first was met."""
        found = spread(self(states.features[:, :-1], actions[:, :-1]))
        return F.pad(found / self.scale.clamp(min=torch.finfo(torch.float32).tiny), (1, 0))


def spread(predicted: Tensor) -> Tensor:
    """The variance between the networks' means, averaged over the code: `[K, ..., C]` to `[...]`."""
    # `Tensor.var` over the first dimension takes five times as long on a CPU.
    return (predicted - predicted.mean(0)).square().mean((0, -1))


class Exploration(nn.Module):
    """A task's policy that learns as it would alone, and beside it an `explorer` that collects for both.

    Called on beliefs it returns the terms of the task's policy, "disagreement" `[B, T]` for the networks, and
    "explorer_actor" and "explorer_critic" (scalars).
    """

    def __init__(self, task: ActorCritic, spec: DataSpec):
        super().__init__()
        self.task = task
        self.disagreement = Disagreement(task.features, spec, task.config)
        self.explorer = ActorCritic(task.features, spec, task.config, self.disagreement.reward)
        own = dict.fromkeys((DISAGREEMENT, "explorer_actor", "explorer_critic"), 1.0)
        self.loss_weights = task.loss_weights | own

    @property
    def actor(self) -> Actor:
        """The task's, which is the one that is evaluated."""
        return self.task.actor

    def forward(self, model: WorldModel, belief: State, segment: Segment) -> dict[str, Tensor]:
        """The terms for beliefs `[B, T]` tracked on `segment`."""
        terms = self.task(model, belief, segment) | {DISAGREEMENT: self.disagreement.loss(belief, segment)}
        dreamt = self.explorer.dream_terms(model, self.explorer.starts(belief, segment))
        return terms | {f"explorer_{name}": term for name, term in dreamt.items()}

    def after_update(self) -> None:
        self.task.after_update()
        self.explorer.after_update()


def policy_for(model: WorldModel, config: ActorCriticConfig, explore: str | None = None) -> ActorCritic | Exploration:
    """What learns to act in the dreams of `model`, with an explorer beside it if asked. Raises `UserError`."""
    task = ActorCritic.of(model, config)
    if explore is None:
        return task
    if explore != DISAGREEMENT:
        raise unknown("way to explore", explore, (DISAGREEMENT,))
    return Exploration(task, model.spec)
