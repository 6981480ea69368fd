"""Action repeat as a wrapper: decide once, act several times, as a model's steps may be longer than the environment's.

B environments, A action size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldloom.agents.agent import Agent
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError
from worldloom.model import Obs, State, state


@state
class RepeatMemory(State):
    """The inner agent's memory, its last action `[B, A]` and for how many steps that has been repeated, `[B]`."""

    inner: State
    action: Tensor
    held: Tensor

    @property
    def features(self) -> Tensor:
        return self.inner.features


@dataclass(frozen=True)
class Repeat(Agent):
    """Each action of `agent` is taken `times` times; the agent does not get the observations in between."""

    agent: Agent
    times: int

    def __post_init__(self) -> None:
        if self.times < 1:
            raise UserError(f"the action repeat is {self.times}, but it must be 1 or more")

    @property
    def spec(self) -> DataSpec:  # type: ignore[override]
        return self.agent.spec

    @property
    def device(self) -> torch.device:
        return self.agent.device

    def start(self, obs: Obs, seed: int = 0) -> tuple[Tensor, RepeatMemory]:
        action, inner = self.agent.start(obs, seed)
        return action, RepeatMemory(inner, action, torch.zeros(len(action), dtype=torch.long))

    def act(self, memory: State, obs: Obs) -> tuple[Tensor, RepeatMemory]:
        assert isinstance(memory, RepeatMemory), f"this is the memory of another agent: {type(memory).__name__}"
        held = memory.held + 1
        assert int(held.min()) == int(held.max()), f"rows that are repeated differently cannot act together: {held}"
        if int(held[0]) < self.times:
            return memory.action, RepeatMemory(memory.inner, memory.action, held)
        action, inner = self.agent.act(memory.inner, obs)
        return action, RepeatMemory(inner, action, torch.zeros_like(held))


def innermost(memory: State) -> tuple[State, bool]:
    """The memory inside any repeats, and whether its agent has just decided (and does not repeat its last action)."""
    fresh = True
    while isinstance(memory, RepeatMemory):
        fresh = fresh and int(memory.held[0]) == 0
        memory = memory.inner
    return memory, fresh
