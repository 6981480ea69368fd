"""Tabular Dyna-Q and Dyna-Q+ (Sutton & Barto, 2018, section 8.2): one step of acting, then N steps of imagining.

S states, A actions, N imagined steps. What is imagined comes out of a world model by the contract's verbs.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from worldloom.data.spec import DataSpec
from worldloom.limits import at_least, between, check_limits
from worldloom.model import Obs, State


@dataclass(frozen=True)
class DynaConfig:
    """The book's names. `planning` imagined steps follow each real one; 0 is plain Q-learning.

    With a `bonus` (kappa of Dyna-Q+) an imagined reward grows with the square root of how long ago the action was last
    tried there, and actions never tried in states that were visited are imagined too.
    """

    planning: Annotated[int, at_least(0)] = 50
    step_size: Annotated[float, between(0, 1)] = 0.1
    discount: Annotated[float, between(0, 1)] = 0.95
    explore: Annotated[float, between(0, 1)] = 0.1
    bonus: Annotated[float, between(0, 1e6)] = 0.0

    def __post_init__(self) -> None:
        check_limits(self, "{} of Dyna-Q".format)


class TabularModel(Protocol):
    """A tabular world model to which single transitions are written, such as family `tabular`."""

    spec: DataSpec

    def start(self, obs: Obs) -> Any: ...
    def predict(self, state: Any, action: Tensor) -> State: ...
    def decode(self, state: Any, key: str) -> Tensor: ...
    def remember(self, state: int, action: int, reward: float, next_state: int, terminated: bool) -> None: ...


class DynaQ:
    """Action values `[S, A]` learned from what happens and from what `model` imagines."""

    def __init__(self, model: TabularModel, config: DynaConfig, seed: int = 0):
        self.model, self.config, self.random = model, config, np.random.default_rng(seed)
        (self.key,) = model.spec.vector_keys
        shape = (model.spec.obs[self.key].shape[0], model.spec.action.size)
        self.values = np.zeros(shape)
        self.tried = np.full(shape, -1)  # when each action was last taken, -1 for never
        self.time = 0

    def act(self, state: int) -> int:
        """Epsilon-greedy; equally good actions are equally likely."""
        if self.random.random() < self.config.explore:
            return int(self.random.integers(self.values.shape[1]))
        values = self.values[state]
        return int(self.random.choice(np.flatnonzero(values == values.max())))

    def learn(self, state: int, action: int, reward: float, next_state: int, terminated: bool) -> None:
        """One real step: Q-learning, a line in the model, and `planning` imagined steps."""
        self.time += 1
        self._update(state, action, reward, next_state, terminated)
        self.model.remember(state, action, reward, next_state, terminated)
        self.tried[state, action] = self.time
        if self.config.planning:
            self._plan()

    def _plan(self) -> None:
        known = self.tried >= 0
        if self.config.bonus:
            known = known | known.any(1, keepdims=True)
        states, actions = np.nonzero(known)
        drawn = self.random.integers(len(states), size=self.config.planning)
        states, actions = states[drawn], actions[drawn]
        rewards, next_state, terminated = self._imagine(states, actions)
        # An action never tried counts from the beginning of time.
        waited = self.time - np.maximum(self.tried[states, actions], 0)
        rewards = rewards + self.config.bonus * np.sqrt(waited)
        for step in zip(*(x.tolist() for x in (states, actions, rewards, next_state, terminated)), strict=True):
            self._update(*step)

    @torch.no_grad()
    def _imagine(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the model thinks of N steps: rewards, where they lead to, and whether they end the episode."""
        model, (count, choices) = self.model, self.values.shape
        now = model.start({self.key: torch.eye(count)[torch.from_numpy(states)]})
        then = model.predict(now, torch.eye(choices)[torch.from_numpy(actions)])
        rewards = model.decode(then, "reward").numpy()
        terminated = model.decode(then, "terminated").numpy() > 0.5
        return rewards, then.features.argmax(-1).numpy(), terminated

    def _update(self, state: int, action: int, reward: float, next_state: int, terminated: bool) -> None:
        """One step of Q-learning."""
        ahead = 0.0 if terminated else self.config.discount * self.values[next_state].max()
        self.values[state, action] += self.config.step_size * (reward + ahead - self.values[state, action])
