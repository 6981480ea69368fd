from dataclasses import replace

import numpy as np
import pytest

from worldloom.agents.play import EpisodeResult
from worldloom.evaluation.policies.score import Score, calls, latency, mean, wilson


def played(
    episode_return: float, success: bool | None = None, milliseconds: tuple[float, ...] = (1.0,)
) -> EpisodeResult:
    return EpisodeResult(0, episode_return, len(milliseconds), True, success, None, 1, list(milliseconds), 0.5)


@pytest.mark.parametrize(
    ("wins", "count", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)]
)
def test_wilson_agrees_with_the_published_interval(wins: int, count: int, low: float, high: float) -> None:
    figure = wilson(wins, count)
    assert (figure.low, figure.high) == pytest.approx((low, high), abs=1e-4)


def test_wilson_covers_the_truth_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(0)
    figures = [wilson(int(rng.binomial(30, 0.1)), 30) for _ in range(2000)]
    covered = np.mean([(f.low or 0) <= 0.1 <= (f.high or 0) for f in figures])
    assert 0.93 <= covered <= 0.98


def test_the_mean_and_its_interval_are_over_episodes() -> None:
    values = np.random.default_rng(1).normal(100, 10, 20)
    figure = mean(values.tolist())
    assert figure.value == pytest.approx(values.mean())
    assert figure.low is not None
    assert figure.high is not None
    half = 2.09 * values.std(ddof=1) / 20**0.5
    assert figure.high - figure.low == pytest.approx(2 * half, rel=0.25)


def test_one_episode_has_no_interval() -> None:
    figure = Score.of([played(3.0)]).episode_return
    assert (figure.value, figure.low, figure.high) == (3.0, None, None)


def test_a_success_that_is_only_reported_when_there_is_one_counts_the_others_as_failures() -> None:
    assert Score.of([played(0), played(0)]).success_rate is None
    rate = Score.of([played(0, success=True), played(0), played(0), played(0)]).success_rate
    assert rate is not None
    assert rate.value == 0.25


def test_repeated_actions_are_not_decisions() -> None:
    spent = latency([played(0, milliseconds=(10.0, 0.1, 0.1, 20.0, 0.1, 0.1))], repeat=3, deadline=15.0)
    assert (spent["decisions"], spent["mean"], spent["kept"]) == (2, 15.0, 0.5)


def test_the_calls_of_a_wave_are_counted_once() -> None:
    short, long, alone = (played(0, milliseconds=ms) for ms in ((1.0,), (1.0, 2.0, 3.0), (7.0, 8.0)))
    wave = [replace(episode, batch=2) for episode in (short, long)]
    assert calls([*wave, alone]) == [1.0, 2.0, 3.0, 7.0, 8.0]
    assert calls([alone, *wave], repeat=2) == [7.0, 1.0, 3.0]
