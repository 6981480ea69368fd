"""The agreement of two rows of scores, by hand: orders kept, reversed, tied and constant."""

import numpy as np
import pytest

from worldloom.stats.agreement import mmrv, pearson, ranks, regret, spearman


def test_an_order_kept_is_perfect_and_costs_nothing() -> None:
    dream, real = [10.0, 20.0, 90.0], [1.0, 2.0, 3.0]
    assert spearman(dream, real) == pytest.approx(1)
    assert mmrv(dream, real) == 0
    assert regret(dream, real) == 0
    assert pearson(dream, real) == pytest.approx(80 / np.sqrt(2 * 3800))


def test_a_reversed_order_costs_each_policy_its_distance_to_the_farthest() -> None:
    dream, real = [3.0, 2.0, 1.0], [0.0, 1.0, 5.0]
    assert spearman(dream, real) == pytest.approx(-1)
    assert mmrv(dream, real) == pytest.approx((5 + 4 + 5) / 3)
    assert regret(dream, real) == 5


def test_one_swap_violates_only_its_two_policies() -> None:
    dream, real = [1.0, 3.0, 2.0, 4.0], [0.0, 1.0, 3.0, 9.0]
    assert mmrv(dream, real) == pytest.approx((0 + 2 + 2 + 0) / 4)
    assert spearman(dream, real) == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_ties_share_their_rank_and_a_tie_in_the_dream_violates_the_better_one() -> None:
    assert ranks([5.0, 1.0, 5.0, 0.0]).tolist() == [2.5, 1, 2.5, 0]
    dream, real = [1.0, 1.0, 2.0], [0.0, 4.0, 6.0]
    assert mmrv(dream, real) == pytest.approx(4 / 3)  # S_2 > S_1 is false where R_2 > R_1 is true, and not the reverse
    assert spearman(dream, real) == pytest.approx(np.sqrt(3) / 2)
    assert regret([2.0, 2.0, 1.0], [0.0, 4.0, 6.0]) == 6 - 2  # of tied favourites the mean


def test_constant_scores_have_no_correlation_and_a_constant_reality_has_no_order() -> None:
    same, real = [2.0, 2.0, 2.0], [0.0, 1.0, 5.0]
    assert np.isnan([pearson(same, real), spearman(same, real), pearson(real, same), mmrv(real, same)]).all()
    assert np.isnan(regret(real, same))
    assert mmrv(same, real) == pytest.approx((0 + 1 + 5) / 3)


def test_sums_that_were_only_rounded_differently_are_tied() -> None:
    assert np.isnan(spearman([0.1 + 0.2, 0.3], [1.0, 2.0]))


def test_many_resamples_are_scored_at_once() -> None:
    dream, real = np.random.default_rng(0).normal(size=(2, 5, 8))
    for score in (pearson, spearman, mmrv, regret):
        assert score(dream, real) == pytest.approx([float(score(dream[i], real[i])) for i in range(5)])
