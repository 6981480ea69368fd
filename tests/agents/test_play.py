from collections import Counter

import numpy as np
import pytest

from tests.agents.fakes import coin_agent, make_coin
from worldloom.agents.play import Decision, play
from worldloom.envs.adapt import AdaptedEnv
from worldloom.errors import UserError
from worldloom.evaluation.policies.score import Score

SEEDS = list(range(100))


def truly_won(seed: int) -> bool:
    env = make_coin()
    env.reset(seed=seed)
    return env.unwrapped.wins  # type: ignore[attr-defined]


@pytest.mark.parametrize("lengths", [(50, 5), (5, 50)], ids=["long successes", "short successes"])
@pytest.mark.parametrize("num_envs", [1, 8, 50])
def test_half_successes_read_half_however_long_they_take(lengths: tuple[int, int], num_envs: int) -> None:
    played = play(coin_agent(), lambda: make_coin(*lengths), SEEDS, num_envs)
    assert [episode.success or False for episode in played] == [truly_won(seed) for seed in SEEDS]
    assert [episode.length for episode in played] == [lengths[0] if truly_won(seed) else lengths[1] for seed in SEEDS]
    rate = Score.of(played).success_rate
    assert rate is not None
    assert rate.value == sum(map(truly_won, SEEDS)) / 100
    assert (rate.low or 1) <= 0.5 <= (rate.high or 0)


def test_every_seed_is_played_once_and_reported_in_order() -> None:
    seeds = [7, 3, 99, 4, 12]
    played = play(coin_agent(), make_coin, seeds, num_envs=3)
    assert [episode.seed for episode in played] == seeds
    assert [episode.batch for episode in played] == [3, 3, 3, 2, 2]
    assert all(len(episode.milliseconds) == episode.length for episode in played)


def test_the_return_is_that_of_one_environment_alone() -> None:
    alone = play(coin_agent(), make_coin, SEEDS[:12], 1)
    batched = play(coin_agent(), make_coin, SEEDS[:12], 5)
    assert [e.episode_return for e in alone] == [e.episode_return for e in batched]
    assert {e.episode_return for e in alone} == {25.0, 2.0}


def test_a_limit_truncates_and_does_not_terminate() -> None:
    played = play(coin_agent(), make_coin, SEEDS[:10], 4, max_steps=5)
    assert [episode.length for episode in played] == [5] * 10
    # A failure ends by itself on the very last step that is allowed: it is an end.
    assert [episode.terminated for episode in played] == [not truly_won(seed) for seed in SEEDS[:10]]


def test_who_watches_sees_every_decision_and_every_end() -> None:
    seen: list[Decision] = []
    played = play(coin_agent(), make_coin, SEEDS[:6], 4, on_decision=seen.append)
    ends = {d.seed: d.step for d in seen if d.action is None}
    assert ends == {episode.seed: episode.length for episode in played}
    decisions = Counter(d.seed for d in seen if d.action is not None)
    assert decisions == {episode.seed: episode.length for episode in played}
    assert all(d.memory.features.shape[0] == 1 for d in seen)
    assert all(d.obs["state"][0] == d.step for d in seen)


def test_environments_are_closed_even_when_one_cannot_be_made() -> None:
    closed: list[int] = []
    made: list[AdaptedEnv] = []

    def make() -> AdaptedEnv:
        if len(made) == 2:
            raise UserError("no third one")
        env = make_coin()
        env.close = lambda: closed.append(1)  # type: ignore[method-assign]
        made.append(env)
        return env

    with pytest.raises(UserError, match="no third one"):
        play(coin_agent(), make, SEEDS, 3)
    assert len(closed) == 2


@pytest.mark.parametrize(
    ("seeds", "num_envs", "max_steps", "words"),
    [
        ([], 1, None, "no seed to play"),
        ([1, -4], 1, None, "seed -4"),
        ([1], 0, None, "num_envs is 0"),
        ([1], 1, 0, "max_steps is 0"),
    ],
)
def test_nothing_to_play_is_an_error(seeds: list[int], num_envs: int, max_steps: int | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        play(coin_agent(), make_coin, seeds, num_envs, max_steps)


def test_a_reward_that_is_no_number_is_named() -> None:
    env = make_coin()
    env.env.step = lambda action: ({"state": np.ones(1, np.float32)}, float("nan"), False, False, {})  # type: ignore[method-assign]
    with pytest.raises(UserError, match="reward of step 1, seed 5, is nan"):
        play(coin_agent(), lambda: env, [5])
