"""An episode's rows: row t is what was known at t, then what was done."""

import gymnasium
import numpy as np
import pytest

from tests.envs.fakes import Alternating, Counter, Fragile, always_two
from worldloom.data.episode import Episode
from worldloom.envs.adapt import adapt
from worldloom.envs.policy import RandomPolicy
from worldloom.envs.rollout import play_episode, stack_signals
from worldloom.errors import UserError

SEED = 0


def play(env: gymnasium.Env, policy: object = always_two, max_steps: int | None = None, seed: int = SEED) -> Episode:
    sequence = np.random.SeedSequence(seed)
    return play_episode(adapt(env, "counter", 20), policy, sequence, max_steps=max_steps)  # type: ignore[arg-type]


def test_there_is_one_row_more_than_steps_and_the_last_shows_the_end() -> None:
    episode = play(Counter(goal=6))
    assert len(episode) == 4
    assert episode.obs["state"][:, 0].tolist() == [0, 2, 4, 6]
    assert episode.obs["image"].shape == (4, 3, 20, 20)
    assert episode.obs["image"][:, 0, 0, 0].tolist() == [0, 2, 4, 6]
    assert episode.action.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert episode.reward.tolist() == [0, 2, 2, 2], "a reward stands with the observation it arrived with"
    assert episode.terminated.tolist() == [False, False, False, True]
    assert not episode.truncated.any()
    assert episode.task == "count"


def test_a_time_limit_truncates_but_an_end_at_the_limit_terminates() -> None:
    cut = play(Counter(goal=6), max_steps=2)
    assert (len(cut), cut.truncated[-1], cut.terminated.any()) == (3, True, False)
    ended = play(Counter(goal=6), max_steps=3)
    assert (len(ended), ended.truncated.any(), ended.terminated[-1]) == (4, False, True)


def test_an_environment_that_ends_at_its_own_limit_has_terminated() -> None:
    """TimeLimit then reports both; only the end tells what the world does."""
    limited = gymnasium.wrappers.TimeLimit(Counter(goal=6), max_episode_steps=3)
    limited.reset(seed=0)
    assert [limited.step(2)[2:4] for _ in range(3)][-1] == (True, True)
    episode = play(limited)
    assert (len(episode), episode.truncated.any(), episode.terminated[-1]) == (4, False, True)


def test_success_and_cost_stand_with_the_row_they_arrived_with() -> None:
    episode = play(Counter(goal=4))
    assert episode.extra["success"].tolist() == [False, False, True]
    assert episode.extra["cost"].tolist() == [0, 1, 1]
    assert episode.extra["success"].dtype == bool


def test_an_episode_depends_on_its_seed_alone_and_not_on_what_was_played_before() -> None:
    env, policy = Counter(), RandomPolicy(adapt(Counter(), "counter").action_space)
    first, other, again = (play(env, policy, seed=seed) for seed in (1, 2, 1))
    assert np.array_equal(first.action, again.action)
    assert np.array_equal(first.obs["state"], again.obs["state"])
    assert first.obs["state"][0, 1] != other.obs["state"][0, 1]


def test_a_policy_with_a_memory_starts_every_episode_afresh() -> None:
    policy = Alternating(adapt(Counter(), "counter").action_space)  # type: ignore[arg-type]
    first, second = play(Counter(2), policy), play(Counter(2), policy)
    assert first.action.argmax(1).tolist() == second.action.argmax(1).tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nan", "observation 'state' in row 3, entry 1 is nan"),
        ("reward", "reward in row 3 is inf"),
        ("shape", r"observation 'state' is float32 \(1,\), but its space says float32 \(2,\)"),
    ],
)
def test_a_row_that_cannot_be_trusted_is_named(fault: str, words: str) -> None:
    odd = next(s for s in range(20) if play(Counter(), seed=s).obs["state"][0, 1] % 2)
    with pytest.raises(UserError, match=words):
        play(Fragile(fault), seed=odd)


@pytest.mark.parametrize("value", [True, 1, 1.0, np.bool_(True), np.array([True]), np.array(1)])
@pytest.mark.parametrize("others", [{}, {"is_success": None}, {"is_success": False}])
def test_a_success_may_be_told_in_any_form_and_only_at_the_end(value: object, others: dict[str, object]) -> None:
    found = stack_signals([dict(others), dict(others), {"is_success": value}])
    assert found["success"].tolist() == [False, False, False, True]


def test_a_signal_that_nobody_tells_is_none_and_a_strange_one_is_refused() -> None:
    assert stack_signals([{}, {"success": None}]) == {}
    for strange in ("yes", np.array([1.0, 2.0]), np.nan):
        with pytest.raises(UserError, match=r"must be (one number|finite)"):
            stack_signals([{"cost": strange}])
