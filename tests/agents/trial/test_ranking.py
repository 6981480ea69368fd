"""Whether a dream ranks policies as reality does: by hand, at its best and worst, and what cannot be said."""

import json

import numpy as np
import pytest

from worldloom.agents.trial.gap import Scores
from worldloom.agents.trial.ranking import FEWEST, FIGURES, correlation, mmrv, rank_policies, ranking, ranks, regret
from worldloom.evaluation.plots import scatter_plot
from worldloom.evaluation.verdict import verdict


def policies(order: list[float], count: int = 30, noise: float = 1.0) -> list[Scores]:
    """Policies worth 0, 10, 20, ... in reality, which the dream pays as `order` says; episodes differ by `noise`."""
    rng = np.random.default_rng(0)
    return [
        Scores(list(10 * i + noise * rng.standard_normal(count)), list(paid + noise * rng.standard_normal(count)))
        for i, paid in enumerate(order)
    ]


def test_the_violation_is_what_its_definition_says() -> None:
    dream, reality = np.array([3.0, 2.0, 1.0]), np.array([5.0, 9.0, 1.0])
    # the first two are the wrong way round, by 4; the third is lowest in both
    assert mmrv(dream, reality) == pytest.approx((4 + 4 + 0) / 3)
    assert regret(dream, reality) == pytest.approx(4)


def test_ranks_of_equals_are_shared() -> None:
    np.testing.assert_allclose(ranks(np.array([5.0, 1.0, 5.0, 9.0])), [1.5, 0, 1.5, 3])
    spearman = correlation(ranks(np.array([1.0, 2.0, 3.0])), ranks(np.array([1.0, 100.0, 50.0])))
    assert spearman == pytest.approx(0.5)


def test_a_dream_that_agrees_is_perfect_and_one_that_is_upside_down_costs_everything() -> None:
    agrees = ranking(policies([100.0 * i for i in range(FEWEST)]))
    assert agrees["spearman"].value == pytest.approx(1)
    assert agrees["regret"].value == agrees["mmrv"].value == 0
    reverse = ranking(policies([-100.0 * i for i in range(FEWEST)]))
    assert reverse["spearman"].value == pytest.approx(-1)
    assert reverse["regret"].value == pytest.approx(10 * (FEWEST - 1), abs=2)
    assert reverse["spearman"].high is not None
    assert reverse["spearman"].high < 0


def test_too_few_policies_and_equal_ones_are_not_ranked() -> None:
    few = ranking(policies([1.0, 2.0]))
    assert all(few[name].value is None and "2 policies are too few" in str(few[name].why) for name in FIGURES)
    equal = ranking([Scores([1.0, 1.0, 1.0], [float(i)] * 3) for i in range(FEWEST)])
    assert equal["spearman"].value is None
    assert equal["regret"].value == 0
    json.dumps({name: figure.to_json() for name, figure in equal.items()}, allow_nan=False)


def test_the_card_and_the_report_say_what_it_means() -> None:
    tables = rank_policies({f"policy {i}": each for i, each in enumerate(policies([5.0 * i for i in range(FEWEST)]))})
    last = verdict(tables, [], [1], 10.0)[-1]
    assert last.mark == "yes"
    assert f"choosing among {FEWEST} policies" in last.words
    points = [(name, tables["policy_reality"][name], tables["policy_dream"][name]) for name in tables["policy_dream"]]
    assert scatter_plot(points, "dream", "x", "y").count("<circle") == FEWEST
