"""An agent of a learned policy and the world model whose beliefs it reads: observe, track the belief, act."""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.agents.actor import Actor, LinearController
from worldloom.agents.agent import Agent, next_seed
from worldloom.data.spec import DataSpec
from worldloom.model import Obs, State, WorldModel, state
from worldloom.noise import Noise, TorchNoise


@state
class PolicyMemory(State):
    """The belief `[B]`, the action just taken `[B, A]` and the seed of the next decision `[B]`."""

    belief: State
    action: Tensor
    seed: Tensor

    @property
    def features(self) -> Tensor:
        return self.belief.features


@dataclass(frozen=True)
class PolicyAgent(Agent):
    """Acts by `actor` on the belief of `model`: its most likely action, or with `explore` a sampled one.

    All samples follow from the seed of the episode, and torch's generators are left unchanged; rows decided together
    use the first row's seed.
    """

    model: WorldModel
    actor: Actor | LinearController
    explore: bool = False

    @property
    def spec(self) -> DataSpec:  # type: ignore[override]
        return self.model.spec

    @property
    def device(self) -> torch.device:
        return next(self.actor.parameters()).device

    @torch.no_grad()
    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, PolicyMemory]:
        batch = next(iter(obs.values())).shape[0]
        seeds = next_seed(torch.full((batch,), seed, device=self.device))
        noise = TorchNoise.seeded(int(seeds[0]), self.device)
        return self._decide(self.model.start(obs, noise), seeds, noise)

    @torch.no_grad()
    def act(self, memory: State, obs: Obs) -> tuple[Tensor, PolicyMemory]:
        assert isinstance(memory, PolicyMemory), f"this is the memory of another agent: {type(memory).__name__}"
        seeds = next_seed(memory.seed)
        noise = TorchNoise.seeded(int(seeds[0]), self.device)
        return self._decide(self.model.observe(memory.belief, memory.action, obs, noise), seeds, noise)

    def _decide(self, belief: State, seeds: Tensor, noise: Noise) -> tuple[Tensor, PolicyMemory]:
        chosen = self.actor(belief.features)
        action = chosen.carried_out(chosen.sample(noise) if self.explore else chosen.mode)
        return action, PolicyMemory(belief, action, seeds)
