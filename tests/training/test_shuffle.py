"""The shuffled-action test: exact where the answer is known, honest where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.toy import ToyConfig, ToyModel, toy_segment, toy_spec
from worldloom.training.shuffle import Ratio, ShuffleTest, _derangement, bootstrap_ratio, shuffle_test


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_model_that_ignores_actions_has_exactly_one_even_when_it_samples(noise: float) -> None:
    model = ToyModel(toy_spec(), ToyConfig(hidden=8, noise=noise, ignore_actions=True))
    with torch.no_grad():
        test = shuffle_test(model, [toy_segment(6, 8, seed) for seed in range(3)])
    assert test.total == Ratio(1.0, 1.0, 1.0)
    assert test.ignores_actions
    assert test.windows == 18


def test_actions_that_nobody_took_do_not_count() -> None:
    segment = toy_segment(6, 24)
    assert not segment.mask.all(), "some of these windows are padded"
    wild = segment.with_action(torch.where(segment.mask[..., None], segment.action, 1e6))
    model = ToyModel(toy_spec(), ToyConfig(hidden=8))
    with torch.no_grad():
        assert shuffle_test(model, [wild]).total == shuffle_test(model, [segment]).total


def test_the_spread_of_the_scaled_actions_is_told() -> None:
    model = ToyModel(toy_spec(), ToyConfig(hidden=8))
    with torch.no_grad():
        test = shuffle_test(model, [toy_segment(6, 8)])
    assert len(test.action_std) == 2
    assert all(0.1 < spread < 1 for spread in test.action_std)


def test_data_without_actions_are_skipped_with_a_note() -> None:
    spec = toy_spec()
    model = ToyModel(replace(spec, action=replace(spec.action, size=0)), ToyConfig(hidden=8))
    test = shuffle_test(model, [toy_segment().with_action(torch.zeros(4, 16, 0))])
    assert (test.total, test.note, test.ignores_actions) == (None, "the data have no actions", False)


def test_a_single_window_cannot_be_permuted() -> None:
    test = shuffle_test(ToyModel(toy_spec(), ToyConfig(hidden=8)), [toy_segment(1, 8)])
    assert test.total is None
    assert "fewer than two" in test.note


def test_one_term_that_listens_is_enough_and_a_tiny_effect_is_not() -> None:
    def verdict(low: float) -> bool:
        return ShuffleTest(9, Ratio(1.001, 1.0, 1.002), {"dynamics": Ratio(1.2, low, 1.4)}).ignores_actions

    assert not verdict(1.05)
    assert verdict(1.005)


def test_the_interval_holds_the_ratio_and_narrows_with_more_windows() -> None:
    rng = np.random.default_rng(0)

    def ratio(count: int) -> Ratio:
        below = rng.uniform(1, 2, count)
        found = bootstrap_ratio(below * rng.normal(1.5, 0.2, count), below)
        assert found is not None
        return found

    few, many = ratio(16), ratio(4096)
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 4
    assert many.low < 1.5 < many.high


def test_a_loss_that_is_not_positive_has_no_ratio() -> None:
    assert bootstrap_ratio(np.array([1.0, 2.0]), np.array([-1.0, 0.5])) is None


@pytest.mark.parametrize("count", [2, 3, 10])
def test_nothing_keeps_its_own_actions(count: int) -> None:
    permutation = _derangement(count, seed=1)
    assert sorted(permutation.tolist()) == list(range(count))
    assert (permutation != torch.arange(count)).all()
