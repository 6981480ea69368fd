import numpy as np
import pytest
import torch

from tests.toy import toy_episode, toy_spec
from worldloom.data.episode import Episode
from worldloom.data.replay import Replay
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec, signal_keys
from worldloom.errors import UserError

SPEC = DataSpec(
    {"state": KeySpec("vector", (1,)), **signal_keys(reward=True, terminated=True)},
    ActionSpec("continuous", 1, low=(-2.0,), high=(2.0,)),
    10.0,
)


def episode(number: int, rows: int, terminated: bool = False) -> Episode:
    """Every observation says which episode and which row it is; the reward is the row too."""
    time = np.arange(rows, dtype=np.float32)
    last = np.arange(rows) == rows - 1
    state = (100 * number + time)[:, None].astype(np.float32)
    return Episode({"state": state}, np.full((rows, 1), 2.0, np.float32), time, last & terminated, last & ~terminated)


def replay(length: int = 4, **options: int) -> Replay:
    return Replay(SPEC, batch_size=64, length=length, **options)


def test_windows_are_rows_in_order_and_never_cross_an_episode() -> None:
    held = replay()
    for number, rows in enumerate((5, 9, 17)):
        held.add(episode(number, rows))
    for _ in range(20):
        segment = next(held)
        step = segment.obs["state"][..., 0].diff(dim=1)
        assert torch.equal(step == 1, segment.mask[:, 1:])


def test_a_window_that_outlasts_its_episode_is_padded_and_masked() -> None:
    held = replay(length=6)
    held.add(episode(0, 3, terminated=True))
    segment = next(held)
    assert segment.mask.sum(1).unique().tolist() == [2, 3]
    assert segment.terminated.sum(1).unique().tolist() == [1]
    assert (segment.reward[~segment.mask] == 0).all()


def test_actions_are_in_model_units_and_the_last_row_did_nothing() -> None:
    held = replay()
    held.add(episode(0, 4))
    segment = next(held)
    last = segment.truncated.bool() | ~segment.mask
    assert torch.equal(segment.action[..., 0], (~last).float())


def test_an_end_comes_at_every_age_of_a_window_but_the_first() -> None:
    held = replay()
    held.add(episode(0, 40, terminated=True))
    ends = torch.stack([next(held).terminated.sum(0) for _ in range(200)]).sum(0)
    assert ends[0] == 0
    assert (ends[1:] / ends[1:].float().mean()).sub(1).abs().max() < 0.25


def test_beyond_its_capacity_the_oldest_episodes_are_forgotten() -> None:
    held = replay(capacity=25)
    for number in range(5):
        held.add(episode(number, 10))
    assert held.rows == 20
    numbers = next(held).obs["state"].div(100, rounding_mode="floor").unique()
    assert numbers.tolist() == [3, 4]


def test_an_episode_larger_than_everything_is_refused() -> None:
    with pytest.raises(UserError, match="does not fit into a replay of 25"):
        replay(capacity=25).add(episode(0, 26))


def test_the_same_state_draws_the_same_windows() -> None:
    held, again = replay(), replay(seed=7)
    for each in (held, again):
        each.add(episode(0, 50))
    next(held)
    again.load_state_dict(held.state_dict())
    assert torch.equal(next(held).obs["state"], next(again).obs["state"])


def test_what_is_fitted_is_what_numpy_says_of_everything_held() -> None:
    episodes = [toy_episode(seed) for seed in range(3)]
    for episode in episodes:
        episode.obs["state"][:, 1] = 7.0
    replay = Replay(toy_spec(fitted=False), batch_size=2, length=4)
    for episode in episodes:
        replay.add(episode)
    fitted, rows = replay.fit(), np.concatenate([e.obs["state"] for e in episodes])
    assert fitted.obs["state"].mean == pytest.approx(rows.mean(0).tolist())
    assert fitted.obs["state"].std == pytest.approx([rows[:, 0].std(), 1.0])
    pixels = np.concatenate([e.obs["image"] for e in episodes]) / 255
    assert fitted.obs["image"].std == pytest.approx(pixels.std((0, 2, 3)).tolist(), rel=1e-3)
