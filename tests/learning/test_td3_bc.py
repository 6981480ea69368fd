"""TD3+BC: it copies where told to, improves on what it saw where it may, and learners side by side do not meet."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.data.fakes import FakeSource
from worldloom.data.episode import Episode, EpisodeInfo
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.errors import UserError
from worldloom.learning.td3_bc import TD3BC, TD3BCConfig, Transitions, learn_offline

SMALL = TD3BCConfig(updates=300, batch_size=64, units=32, discount=0.0)
ACTION = ActionSpec("continuous", 1, low=(-2.0,), high=(2.0,))


class Bandit(FakeSource):
    """One step an episode: the action is uniform around 0.4 and the reward is highest near 1, both in own units."""

    def __init__(self, best: float = 1.0, seed: int = 0):
        super().__init__([2] * 200)
        self.spec = DataSpec({"state": KeySpec("vector", (1,)), **signal_keys(reward=True)}, ACTION, 1.0)
        self.episodes = [EpisodeInfo(2)] * 200
        self.best, self.seed = best, seed

    def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
        action = np.float32(0.4 + np.random.default_rng([self.seed, index]).uniform(-1, 1))
        state = np.random.default_rng(index).normal(size=(2, 1)).astype(np.float32)
        reward = np.array([0, -((action - self.best) ** 2)], np.float32)
        flags = np.zeros(2, bool), np.array([False, True])
        return Episode({"state": state}, np.array([[action], [0]], np.float32), reward, *flags)


def acts(sources: Sequence[Bandit], config: TD3BCConfig) -> list[float]:
    """The mean action of each agent in own units."""
    obs = {"state": torch.linspace(-1, 1, 9)[:, None]}
    return [2 * float(agent.start(obs)[0].mean()) for agent in learn_offline(sources, config)]


def test_it_copies_with_alpha_0_and_improves_with_more():
    copied = acts([Bandit()], TD3BCConfig(**{**vars(SMALL), "alpha": 0.0}))[0]
    improved = acts([Bandit()], TD3BCConfig(**{**vars(SMALL), "alpha": 1.0}))[0]
    assert copied == pytest.approx(0.4, abs=0.15)
    assert improved == pytest.approx(1.0, abs=0.25)


def test_learners_side_by_side_learn_each_from_its_own_data():
    towards, away = acts([Bandit(1.0), Bandit(-0.4)], TD3BCConfig(**{**vars(SMALL), "alpha": 1.0}))
    assert towards > 0.7
    assert away < 0


def test_the_update_of_one_learner_does_not_move_another():
    torch.manual_seed(0)
    data = [Transitions.of(Bandit()), Transitions.of(Bandit())]
    learners = TD3BC(data, SMALL)
    before = learners.policy.weights[0].detach().clone()
    batch = learners.draw()
    alone = Transitions(**{**vars(batch), "reward": batch.reward.clone()})
    alone.reward[1] += 1
    first, second = (TD3BC(data, SMALL) for _ in range(2))
    for learner in (first, second):
        learner.load_state_dict(learners.state_dict())
    torch.manual_seed(1)
    first.update(batch, policy_too=True)
    torch.manual_seed(1)
    second.update(alone, policy_too=True)
    assert not torch.equal(first.policy.weights[0], before)
    assert torch.equal(first.critics.weights[0][:2], second.critics.weights[0][:2])
    assert not torch.equal(first.critics.biases[-1][2:], second.critics.biases[-1][2:])


def test_the_seed_decides_what_is_learned_and_the_callers_generator_stays():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    config = TD3BCConfig(**{**vars(SMALL), "updates": 5})
    once, again = acts([Bandit()], config), acts([Bandit()], config)
    assert once == again
    assert torch.equal(state, torch.get_rng_state())


def test_data_it_can_not_learn_from_are_refused():
    with pytest.raises(UserError, match="vectors and nothing else"):
        learn_offline([FakeSource([5])])
    open_range = Bandit()
    open_range.spec = DataSpec({**open_range.spec.obs, **signal_keys(reward=True)}, ActionSpec("continuous", 1), 1.0)
    with pytest.raises(UserError, match="range is declared"):
        learn_offline([open_range])
