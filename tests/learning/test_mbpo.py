"""Dyna with a learned model: what is imagined branches from what was real, and any off-policy learner will do."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from worldloom.data.replay import Replay
from worldloom.data.spec import DataSpec
from worldloom.envs import make_env
from worldloom.envs.describe import describe
from worldloom.envs.dream import Arrays
from worldloom.errors import UserError
from worldloom.learning.mbpo import Dyna, DynaSettings, EnvSteps
from worldloom.learning.stable_baselines import StableBaselines
from worldloom.models import build
from worldloom.schedule import Budget, OptimizerSettings
from worldloom.training.trainer import Trainer

SHORT = DynaSettings(branches=6, horizon=3, imagine_every=5, random_steps=60, model_warmup=2)


class Notebook:
    """Acts at random and writes down what it is given."""

    def __init__(self, choices: int):
        self.choices, self.random = choices, np.random.default_rng(0)
        self.real: list[EnvSteps] = []
        self.imagined: list[EnvSteps] = []
        self.updates = 0

    def act(self, obs: Arrays, explore: bool) -> np.ndarray:
        return self.random.integers(self.choices, size=len(obs["state"]))

    def store(self, steps: EnvSteps, imagined: bool) -> None:
        (self.imagined if imagined else self.real).append(steps)

    def update(self, times: int) -> None:
        self.updates += times


def trainer(spec: DataSpec, replay: Replay) -> Trainer:
    torch.manual_seed(0)
    return Trainer(build("mlp", spec, "debug"), replay, Budget(100), OptimizerSettings(), torch.device("cpu"))


def played(settings: DynaSettings, steps: int = 100, learner: Any = None, name: str = "gym:CartPole-v1") -> Dyna:
    env = make_env(name)
    replay = Replay(describe(env), batch_size=16, length=4)
    dyna = Dyna(env, learner or Notebook(2), replay, trainer, settings)
    for _ in range(steps):
        dyna.step()
    return dyna


def test_real_steps_are_stored_as_they_happened_and_episodes_are_those_of_the_replay() -> None:
    dyna = played(SHORT)
    real, replay = dyna.learner.real, dyna.replay  # type: ignore[attr-defined]
    assert [len(step) for step in real] == [1] * 100
    ends = [bool(step.terminated[0]) for step in real]
    assert sum(ends) == len(replay.lengths) > 2
    for before, after, ended in zip(real, real[1:], ends, strict=False):
        assert np.array_equal(before.next_obs["state"], after.obs["state"]) != ended
    rows = sum(replay.lengths)
    held = np.concatenate([step.reward for step in real])[: rows - len(replay.lengths)]
    assert replay.table[:rows, replay.columns["reward"][0]].sum() == pytest.approx(held.sum())


def test_every_imagined_step_begins_where_the_one_before_led_and_none_follows_an_end() -> None:
    dyna, ends = played(replace(SHORT, model_warmup=100), 200), 0
    assert dyna.trainer is not None
    for _ in range(20):
        dyna.learner.imagined.clear()  # type: ignore[attr-defined]
        dyna.imagine(dyna.trainer)
        dreamt = dyna.learner.imagined  # type: ignore[attr-defined]
        assert len(dreamt[0]) == SHORT.branches
        for before, after in pairwise(dreamt):
            assert np.array_equal(before.next_obs["state"][~before.terminated], after.obs["state"])
        ends += sum(int(steps.terminated.sum()) for steps in dreamt[:-1])
    assert ends > 0  # or nothing was tested


def test_dreams_branch_from_rows_that_were_real() -> None:
    dyna = played(replace(SHORT, horizon=1))
    seen = dyna.replay.table[: dyna.replay.rows, slice(*dyna.replay.columns["state"])]
    for steps in dyna.learner.imagined:  # type: ignore[attr-defined]
        for row in steps.obs["state"]:
            assert np.abs(seen - row).sum(1).min() < 1e-4


def test_as_much_is_imagined_and_learned_as_was_asked_for_and_nothing_without_branches() -> None:
    dyna, alone = played(replace(SHORT, updates=3)), played(replace(SHORT, branches=0, updates=3))
    times = len([taken for taken in range(60, 101) if taken % 5 == 0])
    assert dyna.imagined <= times * 6 * 3
    assert len(dyna.learner.imagined) >= times  # type: ignore[attr-defined]
    assert dyna.learner.updates == alone.learner.updates == 41 * 3  # type: ignore[attr-defined]
    assert dyna.trainer is not None
    assert dyna.trainer.step == 2 + 41
    assert alone.trainer is None
    assert alone.imagined == 0


def test_a_learning_is_repeated_by_its_seeds() -> None:
    one, other = (played(SHORT).learner.imagined for _ in range(2))  # type: ignore[attr-defined]
    assert all(np.array_equal(a.next_obs["state"], b.next_obs["state"]) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("name", "value"), [("horizon", 0), ("branches", -1), ("updates", 0), ("imagine_every", 0)])
def test_settings_nothing_can_be_learned_with_are_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(UserError, match=f"{name} of Dyna is {value}"):
        replace(SHORT, **{name: value})


@pytest.mark.parametrize("kind", ["SAC", "TD3", "DQN"])
def test_off_policy_algorithms_of_stable_baselines3_learn_from_both(kind: str) -> None:
    sb3 = pytest.importorskip("stable_baselines3", reason="pip install 'worldloom[sb3]'")
    name = "gym:CartPole-v1" if kind == "DQN" else "gym:Pendulum-v1"
    algorithm = getattr(sb3, kind)("MultiInputPolicy", make_env(name), batch_size=16, seed=0, device="cpu")
    if kind == "TD3":
        algorithm.action_noise = sb3.common.noise.NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    learner = StableBaselines(algorithm, total=230, real=0.25)
    before = [p.clone() for p in algorithm.policy.parameters()]
    dyna = played(replace(SHORT, random_steps=200), 230, learner, name)
    drawn = learner.mixture.sample(16)
    imagined = torch.cat([each.rewards for each in learner.mixture.imagined])
    assert drawn.rewards.shape == (16, 1)
    assert torch.isin(drawn.rewards, imagined).sum() >= 12  # and 4 from the algorithm's own buffer
    assert any(not torch.equal(a, b) for a, b in zip(before, algorithm.policy.parameters(), strict=True))
    assert algorithm.num_timesteps == 230
    assert dyna.imagined > 0
    obs = {"state": np.zeros((5, *dyna.obs["state"].shape), np.float32)}
    assert all(dyna.env.action_space.contains(each) for each in learner.act(obs, explore=True))


def test_a_truncated_episode_is_not_an_end_to_learn_from() -> None:
    sb3 = pytest.importorskip("stable_baselines3", reason="pip install 'worldloom[sb3]'")
    learner = StableBaselines(sb3.SAC("MultiInputPolicy", make_env("gym:Pendulum-v1"), device="cpu"), total=300)
    dyna = played(replace(SHORT, branches=0, random_steps=1000), 250, learner, "gym:Pendulum-v1")
    assert len(dyna.replay.lengths) == 1
    assert learner.buffer.dones.sum() == learner.buffer.timeouts.sum() == 0


def test_algorithms_that_cannot_learn_from_dreams_are_refused() -> None:
    sb3 = pytest.importorskip("stable_baselines3", reason="pip install 'worldloom[sb3]'")
    env = make_env("gym:Pendulum-v1")
    with pytest.raises(UserError, match="PPO learns on-policy"):
        StableBaselines(sb3.PPO("MultiInputPolicy", env, device="cpu"), total=10)
    with pytest.raises(UserError, match="MultiInputPolicy"):
        StableBaselines(sb3.SAC("MlpPolicy", "Pendulum-v1", device="cpu"), total=10)
    pictures = sb3.SAC("MultiInputPolicy", make_env("point", pixels=True), device="cpu", buffer_size=10)
    with pytest.raises(UserError, match="only vectors"):
        StableBaselines(pictures, total=10)
    with pytest.raises(UserError, match="real is 0"):
        StableBaselines(sb3.SAC("MultiInputPolicy", env, device="cpu"), total=10, real=0)
