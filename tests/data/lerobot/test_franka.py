"""A real robot dataset, where it is at hand: 13 episodes of a Franka arm with three cameras."""

from pathlib import Path

import numpy as np
import pytest

from worldloom.data.episode import EpisodeSource
from worldloom.data.source import open_dataset

SAMPLE = Path(__file__).resolve().parents[4] / "shared/data/franka_sample"
pytestmark = pytest.mark.skipif(not SAMPLE.is_dir(), reason="the Franka sample is not beside the repository")


@pytest.fixture(scope="module")
def source() -> EpisodeSource:
    return open_dataset(SAMPLE)


def test_the_episodes_rows_and_tasks_are_counted(source: EpisodeSource) -> None:
    assert len(source.episodes) == 13
    assert sum(e.length for e in source.episodes) == 1433
    assert len({e.task for e in source.episodes}) == 7
    assert "fold the towel" in {e.task for e in source.episodes}


def test_the_spec_is_three_cameras_a_state_and_an_action(source: EpisodeSource) -> None:
    names = ("x", "y", "z", "rx", "ry", "rz", "gripper")
    assert source.spec.image_keys == ("left", "right", "wrist")
    assert {source.spec.obs[k].shape for k in source.spec.image_keys} == {(3, 192, 320)}
    assert source.spec.vector_keys == ("state",)
    assert source.spec.obs["state"].names == source.spec.action.names == names
    assert (source.spec.action.kind, source.spec.action.size) == ("continuous", 7)
    assert source.spec.fps == 4
    assert not source.spec.has_reward
    assert not source.spec.has_end


def test_episodes_are_whole(source: EpisodeSource) -> None:
    for index in (0, 1, 5, 12):
        info = source.episodes[index]
        episode = source.read(index, (24, 40))
        assert len(episode) == info.length
        assert {episode.obs[k].shape for k in source.spec.image_keys} == {(info.length, 3, 24, 40)}
        assert episode.truncated.tolist() == [False] * (info.length - 1) + [True]
        assert episode.extra["success"].tolist() == [False] * (info.length - 1) + [True]
        assert all(np.abs(np.diff(episode.obs[k].astype(int), axis=0)).mean() < 20 for k in source.spec.image_keys)


def test_the_action_is_the_state_of_the_next_row(source: EpisodeSource) -> None:
    episode = source.read(5, (24, 40))
    np.testing.assert_allclose(episode.action[:-1], episode.obs["state"][1:], atol=0.02)


def test_the_first_frame_of_an_episode_is_not_the_last_of_the_one_before(source: EpisodeSource) -> None:
    """Episodes share one mp4: a seek that is off by one frame would show here."""
    before, after = source.read(8, (24, 40)).obs["left"], source.read(9, (24, 40)).obs["left"]
    within = np.abs(after[0].astype(int) - after[1]).mean()
    across = np.abs(after[0].astype(int) - before[-1]).mean()
    assert across > 2 * within
