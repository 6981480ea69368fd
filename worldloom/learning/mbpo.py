"""Dyna with a learned model around any off-policy learner, as MBPO has it (Janner et al., 2019).

What happens in the environment trains a world model and fills the learner's replay; so do short dreams in that model,
which branch from beliefs that were really held and in which the learner acts as it now would.

N steps, K H dreams and their length. Observations are `{key: [N, ...]}` as the environment returns them, actions in its
own units. In dreams the learner observes what the model decodes, and not the belief's features: those would change
their meaning with every update of the model, and so spoil whatever the replay already holds, while an observation stays
what it was. So the observation must hold what one needs to know to act, as it must for such a learner without a model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np

from worldloom.data.replay import Replay
from worldloom.data.spec import DataSpec
from worldloom.envs.adapt import AdaptedEnv
from worldloom.envs.dream import Arrays, DreamEnv, Starts
from worldloom.envs.rollout import RecordedRows, to_episode
from worldloom.limits import at_least, check_limits
from worldloom.training.trainer import Trainer


@dataclass(frozen=True)
class EnvSteps:
    """Steps in the environment's own units, real or imagined. A truncation is not `terminated`."""

    obs: Arrays
    action: np.ndarray
    reward: np.ndarray
    next_obs: Arrays
    terminated: np.ndarray

    def __len__(self) -> int:
        return len(self.reward)

    def __getitem__(self, index: np.ndarray) -> "EnvSteps":
        obs, next_obs = ({k: v[index] for k, v in arrays.items()} for arrays in (self.obs, self.next_obs))
        return EnvSteps(obs, self.action[index], self.reward[index], next_obs, self.terminated[index])


class OffPolicy(Protocol):
    """A learner that can learn from steps it did not choose, such as Q-learning, DDPG or SAC."""

    def act(self, obs: Arrays, explore: bool) -> np.ndarray:
        """Actions `[N, ...]` in the environment's own units."""

    def store(self, steps: EnvSteps, imagined: bool) -> None:
        """Keep these steps to learn from."""

    def update(self, times: int) -> None:
        """Learn from what is kept, so many gradient steps."""


@dataclass(frozen=True)
class DynaSettings:
    """How much is imagined. Raises `UserError` for values with which nothing can be learned.

    `branches` dreams of `horizon` steps begin after every `imagine_every` real steps; with 0 of them there is no model
    and the learner is what it would be alone. Once a model is made it gets `model_warmup` updates, and then
    `model_updates` after each real step, as the learner gets `updates`. `random_steps` are taken before anything is
    learned.
    """

    branches: Annotated[int, at_least(0)] = 100
    horizon: Annotated[int, at_least(1)] = 3
    imagine_every: Annotated[int, at_least(1)] = 10
    random_steps: Annotated[int, at_least(0)] = 500
    updates: Annotated[int, at_least(1)] = 1
    model_updates: Annotated[int, at_least(0)] = 1
    model_warmup: Annotated[int, at_least(0)] = 500

    def __post_init__(self) -> None:
        check_limits(self, "{} of Dyna".format)


class Dyna:
    """One learner in one environment. `make` builds the trainer of a world model on the steps of random actions.

    It is given the data's description, with the scales found so far, and the replay that the trainer is to draw from.
    Nothing here seeds torch; the environment's resets, the random steps and the dreams follow from `seed`.
    """

    obs: Arrays

    def __init__(
        self,
        env: AdaptedEnv,
        learner: OffPolicy,
        replay: Replay,
        make: Callable[[DataSpec, Replay], Trainer],
        settings: DynaSettings,
        seed: int = 0,
    ):
        self.env, self.learner, self.replay, self.make, self.settings = env, learner, replay, make, settings
        self.trainer: Trainer | None = None
        self.taken = self.imagined = 0
        self.random = np.random.default_rng(seed)
        env.action_space.seed(seed)
        self._reset()

    def step(self) -> None:
        """One real step, and what is learned from it and around it."""
        obs, action = self.obs, self._choose()
        self.obs, reward, terminated, truncated, _ = self.env.step(action)
        self.taken += 1
        row = EnvSteps(
            batch(obs), np.asarray(action)[None], np.array([reward]), batch(self.obs), np.array([terminated])
        )
        self.learner.store(row, imagined=False)
        self._remember(action, reward, terminated, truncated)
        if self.taken >= self.settings.random_steps:
            self._learn()

    def imagine(self, trainer: Trainer) -> None:
        """Dreams of `horizon` steps from real beliefs, in which the learner acts and of which it keeps every step."""
        count, horizon = self.settings.branches, self.settings.horizon
        rows, seed = next(self.replay).to(trainer.device), int(self.random.integers(2**31))
        with trainer.evaluation_mode(seed) as model:
            dreams = DreamEnv(model, Starts.track(model, rows, seed), count, horizon=horizon)
            obs, _ = dreams.reset(seed=seed)
            going = np.ones(count, bool)
            for _ in range(horizon):
                action = self.learner.act(obs, explore=True)
                next_obs, reward, terminated, _, _ = dreams.step(action)
                # A dream that has ended begins anew with the next step, which leads from the one to the other.
                kept = EnvSteps(obs, action, reward, next_obs, terminated)[np.flatnonzero(going)]
                self.learner.store(kept, imagined=True)
                self.imagined += len(kept)
                obs, going = next_obs, going & ~terminated
                if not going.any():
                    break

    def _choose(self) -> Any:
        if self.taken < self.settings.random_steps:
            return self.env.action_space.sample()
        return self.learner.act(batch(self.obs), explore=True)[0]

    def _learn(self) -> None:
        settings = self.settings
        # Dreams begin in whole episodes: while the first is under way there is nothing to imagine from.
        if settings.branches and self.replay.rows:
            if self.trainer is None:
                self.trainer = self.make(self.replay.fit(), self.replay)
                self._train(self.trainer, settings.model_warmup)
            self._train(self.trainer, settings.model_updates)
            if self.taken % settings.imagine_every == 0:
                self.imagine(self.trainer)
        self.learner.update(settings.updates)

    def _train(self, trainer: Trainer, updates: int) -> None:
        for _ in range(updates):
            trainer.update(next(self.replay).to(trainer.device))

    def _remember(self, action: Any, reward: float, terminated: bool, truncated: bool) -> None:
        """A row of the episode under way, which goes into the replay when it has ended."""
        self.rows.actions.append(action)
        self.rows.rewards.append(reward)
        self.rows.infos.append({})
        self.rows.obs.append(self.obs)
        if terminated or truncated:
            self.replay.add(to_episode(self.env, self.rows, terminated, not terminated))
            self._reset()

    def _reset(self) -> None:
        self.obs, _ = self.env.reset(seed=int(self.random.integers(2**31)))
        self.rows = RecordedRows(obs=[self.obs])


def batch(obs: Arrays) -> Arrays:
    """One observation as a batch of one."""
    return {key: value[None] for key, value in obs.items()}
