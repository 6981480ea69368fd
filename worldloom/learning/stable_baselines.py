"""Stable-Baselines3's off-policy algorithms (DQN, DDPG, TD3, SAC) as learners that also learn from dreams.

N steps, A action size. Needs the extra `sb3`.
"""

from collections import deque
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch.utils._pytree import tree_map

from worldloom.envs.dream import Arrays
from worldloom.errors import UserError
from worldloom.learning.mbpo import EnvSteps
from worldloom.registry import require


class StableBaselines:
    """An algorithm made with "MultiInputPolicy" for an environment of `make_env`; its own `learn` is not called.

    Of each batch the share `real` comes from the algorithm's own replay buffer and the rest from the steps of the last
    `keep` calls that stored imagined ones: older ones are of a model that knew less and of a policy that did. `total`
    real steps are the length of the algorithm's schedules. Raises `UserError` for an algorithm that cannot be used so.
    """

    def __init__(self, algorithm: Any, total: int, real: float = 0.5, keep: int = 20):
        check(algorithm)
        if not (0 < real <= 1 and keep >= 1 and total >= 1):
            raise UserError(f"real is {real}, keep {keep}, total {total}: want a share above 0, and 1 or more of each")
        self.algorithm, self.total = algorithm, total
        logger = require("stable_baselines3.common.logger", "sb3")
        algorithm.set_logger(logger.Logger(folder=None, output_formats=[]))
        self.buffer = algorithm.replay_buffer
        self.mixture = algorithm.replay_buffer = MixedReplay(self.buffer, real, keep)

    def act(self, obs: Arrays, explore: bool) -> np.ndarray:
        algorithm = self.algorithm
        action, _ = algorithm.predict(obs, deterministic=not explore)
        if explore and algorithm.action_noise is not None:
            noise = np.stack([algorithm.action_noise() for _ in action])
            action = algorithm.policy.unscale_action(np.clip(algorithm.policy.scale_action(action) + noise, -1, 1))
        return action

    def store(self, steps: EnvSteps, imagined: bool) -> None:
        if imagined:
            self.mixture.add(self._samples(steps))
            return
        algorithm = self.algorithm
        for row in range(len(steps)):
            one = steps[np.array([row])]
            self.buffer.add(one.obs, one.next_obs, self._scaled(one.action), one.reward, one.terminated, [{}])
            algorithm.num_timesteps += 1
            algorithm._update_current_progress_remaining(algorithm.num_timesteps, self.total)
            algorithm._on_step()  # where DQN explores less and less, and copies its target

    def update(self, times: int) -> None:
        self.algorithm.train(times, self.algorithm.batch_size)

    def _scaled(self, action: np.ndarray) -> np.ndarray:
        """Actions as the algorithm keeps them: continuous ones in [-1, 1]."""
        if isinstance(self.algorithm.action_space, spaces.Box):
            return self.algorithm.policy.scale_action(action)
        return action.reshape(-1, 1)

    def _samples(self, steps: EnvSteps) -> Any:
        kinds = require("stable_baselines3.common.type_aliases", "sb3")
        reward, terminated = (x.astype(np.float32)[:, None] for x in (steps.reward, steps.terminated))
        made = kinds.DictReplayBufferSamples(steps.obs, self._scaled(steps.action), steps.next_obs, terminated, reward)
        return tree_map(lambda x: x if x is None else torch.as_tensor(x, device=self.algorithm.device), made)


class MixedReplay:
    """Stands where an algorithm's `train` draws its batches from."""

    def __init__(self, buffer: Any, real: float, keep: int):
        self.buffer, self.real = buffer, real
        self.imagined: deque[Any] = deque(maxlen=keep)
        self.pool: Any = None

    def add(self, samples: Any) -> None:
        """Keep imagined samples, and forget the oldest."""
        self.imagined.append(samples)
        self.pool = None

    def sample(self, batch_size: int, env: Any = None) -> Any:
        """Real ones alone until there are imagined ones."""
        count = round(self.real * batch_size) if self.imagined else batch_size
        real = self.buffer.sample(max(count, 1), env)
        if len(real.rewards) == batch_size:
            return real
        if self.pool is None:
            self.pool = tree_map(joined, *self.imagined)
        drawn = torch.from_numpy(np.random.randint(len(self.pool.rewards), size=batch_size - len(real.rewards)))
        chosen = tree_map(lambda x: x if x is None else x[drawn.to(x.device)], self.pool)
        return tree_map(joined, real, chosen)


def joined(*parts: Any) -> Any:
    """Tensors one after the other; what the samples do not have stays None."""
    return None if parts[0] is None else torch.cat([part.to(parts[0].dtype) for part in parts])


def check(algorithm: Any) -> None:
    """Refuse what does not learn off-policy, or would not understand what an environment of `make_env` shows."""
    off_policy = require("stable_baselines3.common.off_policy_algorithm", "sb3").OffPolicyAlgorithm
    if not isinstance(algorithm, off_policy):
        raise UserError(f"{type(algorithm).__name__} learns on-policy: use DQN, DDPG, TD3 or SAC")
    space = algorithm.observation_space
    if not isinstance(space, spaces.Dict):
        raise UserError(
            f'{type(algorithm).__name__} was made for {space}: make it with "MultiInputPolicy" and an environment of '
            "worldloom's make_env, whose observations have keys"
        )
    for key, each in space.spaces.items():
        if not isinstance(each, spaces.Box) or len(each.shape) != 1:
            raise UserError(f"the observation {key!r} is {each}: only vectors can be passed on from dreams")
    if algorithm.n_envs != 1:
        raise UserError(f"{type(algorithm).__name__} was made for {algorithm.n_envs} environments: give it one")
