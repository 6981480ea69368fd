"""The interface of an agent: it observes and acts, and its memory is a value.

B environments side by side, A action size. Actions are in model units: continuous in [-1, 1], discrete one-hot.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from worldloom.data.spec import DataSpec
from worldloom.model import Obs, State


class Agent(ABC):
    """Two verbs: `start` on the first observation of an episode, `act` on every later one.

    Both return actions `[B, A]` and the agent's memory, a `State`: it can be indexed, repeated, saved and reused later,
    and an agent keeps nothing else between calls. `spec` describes the agent's observations and actions.
    """

    spec: DataSpec

    @property
    def device(self) -> torch.device:
        """Where `obs` must be."""
        return torch.device("cpu")

    @abstractmethod
    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, State]:
        """The first action of an episode. All randomness of the episode follows from `seed`."""

    @abstractmethod
    def act(self, memory: State, obs: Obs) -> tuple[Tensor, State]:
        """The next action, after the last one led to `obs`."""


def next_seed(seed: Tensor) -> Tensor:
    """The seeds of the next decision, by Knuth's linear congruential generator: close seeds do not stay close."""
    return (seed * 6364136223846793005 + 1442695040888963407) & 0x7FFFFFFFFFFFFFFF
