from pathlib import Path

import numpy as np
import pytest

from tests.data.fakes import FakeSource
from worldloom.data.cache import cache_source
from worldloom.data.sampler import WindowSampler, split_episodes
from worldloom.errors import UserError


@pytest.mark.parametrize(("lengths", "length"), [([20, 9, 5], 4), ([5, 3, 1], 5), ([2], 6)])
def test_every_row_is_in_nearly_as_many_slots_as_a_window_is_long(lengths: list[int], length: int) -> None:
    sampler = WindowSampler(lengths, length, seed=0)
    assert sampler.slots == sum(rows + length - 2 for rows in lengths)
    counts = [np.zeros(rows) for rows in lengths]
    for episode, start in zip(*sampler.draw(sampler.slots), strict=True):
        counts[episode][start : start + length] += 1
        assert 0 <= start < max(lengths[episode] - 1, 1)
    assert min(count.min() for count in counts) >= length - 1


def test_an_end_comes_at_every_age_alike_so_that_no_memory_foretells_it_by_its_own_age() -> None:
    rows, length = 100, 8
    sampler = WindowSampler([rows], length, seed=0)
    _, starts = sampler.draw(sampler.slots)
    ages = np.bincount(rows - 1 - starts, minlength=length)
    assert ages[1:length].tolist() == [1] * (length - 1)
    assert (starts == 0).sum() == length


def test_an_epoch_repeats_no_slot_and_the_next_has_another_order() -> None:
    sampler = WindowSampler([10, 6], 3, seed=1)
    first = np.stack(sampler.draw(sampler.slots))
    second = np.stack(sampler.draw(sampler.slots))
    assert sorted(map(tuple, first.T)) == sorted(map(tuple, second.T))
    assert not np.array_equal(first, second)
    assert sampler.epoch == 1


def test_draws_do_not_depend_on_how_they_are_cut() -> None:
    one, other = WindowSampler([10, 6], 3, seed=1), WindowSampler([10, 6], 3, seed=1)
    whole = np.stack(one.draw(45))
    parts = np.concatenate([np.stack(other.draw(n)) for n in (7, 13, 25)], axis=1)
    assert np.array_equal(whole, parts)


def test_seeds_differ_and_repeat() -> None:
    draws = [np.stack(WindowSampler([50], 4, seed=s).draw(20)).tolist() for s in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_seek_continues_in_the_middle_of_a_later_epoch() -> None:
    sampler = WindowSampler([10, 6], 3, seed=1)
    sampler.draw(33)
    other = WindowSampler([10, 6], 3, seed=1)
    other.seek(sampler.epoch, sampler.position)
    assert np.array_equal(np.stack(sampler.draw(30)), np.stack(other.draw(30)))


def test_the_split_is_by_episode_seeded_and_never_empty(tmp_path: Path) -> None:
    dataset = cache_source(FakeSource([3] * 20), (8, 8), cache_dir=tmp_path)
    train, held_out = split_episodes(dataset, 0.2, seed=3)
    assert len(held_out) == 4
    assert sorted(train + held_out) == list(range(20))
    assert split_episodes(dataset, 0.2, seed=3) == (train, held_out)
    assert split_episodes(dataset, 0.2, seed=4) != (train, held_out)
    assert [len(side) for side in split_episodes(dataset, 0.001)] == [19, 1]
    assert [len(side) for side in split_episodes(dataset, 0.999)] == [1, 19]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_zero_and_one_is_refused(tmp_path: Path, share: float) -> None:
    dataset = cache_source(FakeSource([3] * 4), (8, 8), cache_dir=tmp_path)
    with pytest.raises(UserError, match="held-out share"):
        split_episodes(dataset, share)


def test_one_episode_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 episode"):
        split_episodes(cache_source(FakeSource([9]), (8, 8), cache_dir=tmp_path))
