"""Intervals cover what they should, with few episodes and correlated rows too."""

from functools import partial
from statistics import NormalDist

import numpy as np
import pytest

from worldloom.stats import scores
from worldloom.stats.bootstrap import Figure, as_figure, bootstrap, expanded_tail, figure, t_quantile


@pytest.mark.parametrize(("freedom", "wanted"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (9, 2.2622), (30, 2.0423)])
def test_student_quantiles_are_those_of_the_tables(freedom: int, wanted: float):
    assert t_quantile(0.975, freedom) == pytest.approx(wanted, abs=1e-4)


def test_tails_shrink_with_few_episodes_and_become_ordinary_with_many():
    assert expanded_tail(10) < expanded_tail(30) < 0.025
    assert expanded_tail(3000) == pytest.approx(0.025, abs=5e-4)
    reach = np.sqrt(10 / 9) * 2.2622
    assert expanded_tail(10) == pytest.approx(NormalDist().cdf(-reach), abs=1e-5)


def clustered(rng: np.random.Generator, episodes: int = 10, rows: int = 15) -> tuple[np.ndarray, np.ndarray]:
    """Rows that share their episode's luck: as independent samples they would look far more certain than they are."""
    luck = rng.normal(0, 1, episodes)
    return np.repeat(luck, rows) + rng.normal(0, 1, episodes * rows), np.repeat(np.arange(episodes), rows)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = []
    for trial in range(400):
        values, episode = clustered(rng)
        _, low, high = bootstrap(partial(scores.mean, values), episode, resamples=400, seed=trial)
        covered.append(low <= 0 <= high)
    assert 0.915 <= np.mean(covered) <= 0.98


def test_resampling_rows_instead_of_episodes_would_not_cover():
    rng = np.random.default_rng(0)
    covered = []
    for trial in range(200):
        values, _ = clustered(rng)
        _, low, high = bootstrap(partial(scores.mean, values), np.arange(len(values)), resamples=200, seed=trial)
        covered.append(low <= 0 <= high)
    assert np.mean(covered) < 0.7


def test_the_same_seed_gives_the_same_interval():
    values, episode = clustered(np.random.default_rng(1))
    first, second = (bootstrap(partial(scores.mean, values), episode, seed=5) for _ in range(2))
    assert first == second
    assert bootstrap(partial(scores.mean, values), episode, seed=6) != first


def test_the_value_is_that_of_all_rows_and_lies_inside():
    values, episode = clustered(np.random.default_rng(2))
    value, low, high = bootstrap(partial(scores.mean, values), episode)
    assert value == pytest.approx(values.mean())
    assert low < value < high


def test_one_episode_gives_a_value_and_says_that_it_has_no_interval():
    found = figure(partial(scores.mean, np.array([1.0, 2.0])), np.array([7, 7]))
    assert (found.value, found.low, found.high) == (1.5, None, None)
    assert "fewer than two" in str(found.why)


def test_what_does_not_exist_is_missing_and_never_nan():
    assert as_figure(np.nan, np.nan, np.nan, "why not").to_json() == {
        "value": None, "low": None, "high": None, "why": "why not"
    }  # fmt: skip
    assert figure(partial(scores.mean, np.empty(0)), np.empty(0, int), why="nothing") == Figure.missing("nothing")


def test_resamples_without_a_positive_do_not_spoil_the_interval():
    labels = np.zeros(40, bool)
    labels[[3, 25]] = True
    values = np.linspace(0, 1, 40)
    episode = np.repeat(np.arange(8), 5)
    found = figure(lambda w: scores.auroc(values, labels, w), episode)
    assert found.low is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
