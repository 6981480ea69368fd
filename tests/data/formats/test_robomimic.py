import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.foreign import cut, make_robomimic
from worldloom.data.episode import BrokenEpisode
from worldloom.data.formats.robomimic import RobomimicSource
from worldloom.data.source import open_dataset
from worldloom.errors import UserError

h5py = pytest.importorskip("h5py")


def edit(file: Path, name: str, values: object) -> None:
    with h5py.File(file, "a") as opened:
        if name in opened:
            del opened[name]
        if values is not None:
            opened[name] = values


def test_next_obs_gives_the_row_after_the_last_action(tmp_path: Path) -> None:
    source = open_dataset(make_robomimic(tmp_path / "image.hdf5"))
    assert isinstance(source, RobomimicSource)
    episode = source.read(0)
    with h5py.File(tmp_path / "image.hdf5") as file:
        demo = file["data/demo_0"]
        eef = np.concatenate([demo["obs/robot0_eef_pos"][()], demo["next_obs/robot0_eef_pos"][-1:]])
        image = np.concatenate([demo["obs/agentview_image"][()], demo["next_obs/agentview_image"][-1:]])
        actions = demo["actions"][()]
    assert len(episode) == source.episodes[0].length == 4
    np.testing.assert_array_equal(episode.obs["robot0_eef_pos"], eef.astype(np.float32))
    np.testing.assert_array_equal(episode.obs["agentview_image"], image.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(episode.action[:-1], actions.astype(np.float32))
    assert (episode.action[-1] == 0).all()
    assert episode.reward.tolist() == [0, 0, 0, 1]
    assert episode.terminated.tolist() == [False, False, False, True]
    assert not episode.truncated.any()


def test_without_next_obs_the_last_action_is_padding_and_the_episode_a_cut_one(tmp_path: Path) -> None:
    source = RobomimicSource(make_robomimic(tmp_path / "image.hdf5", after=False))
    episode = source.read(0)
    assert len(episode) == source.episodes[0].length == 3
    assert (episode.action[-1] == 0).all()
    assert episode.action[:-1].all()
    assert episode.reward.tolist() == [0, 0, 0]
    assert episode.truncated.tolist() == [False, False, True]
    assert not episode.terminated.any()
    assert not source.spec.has_end


def test_demos_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    source = RobomimicSource(make_robomimic(tmp_path / "image.hdf5"))
    firsts = [source.read(i).obs["robot0_eef_pos"][0, 0] for i in range(len(source.episodes))]
    assert firsts == sorted(firsts)
    assert len(firsts) == 11


def test_rate_environment_and_what_was_left_out_are_told(tmp_path: Path) -> None:
    source = RobomimicSource(make_robomimic(tmp_path / "image.hdf5"))
    assert source.spec.fps == 10
    assert source.about["environment"] == "Lift"
    assert source.about["left_out"] == ["agentview_depth"]


def test_a_folder_of_files_is_one_dataset_with_each_files_task(tmp_path: Path) -> None:
    for name in ("open", "close"):
        file = make_robomimic(tmp_path / f"{name}.hdf5")
        with h5py.File(file, "a") as opened:
            opened["data"].attrs["problem_info"] = json.dumps({"language_instruction": f"{name} the drawer"})
    source = open_dataset(tmp_path)
    assert len(source.episodes) == 22
    assert source.episodes[0].task == source.read(0).task == "close the drawer"
    assert source.read(11).task == "open the drawer"


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("data/demo_2/actions", np.zeros((2, 7)), r"demo_2 has 2 actions, num_samples is 3"),
        ("data/demo_2/actions", np.full((3, 7), np.inf), r"demo_2/actions, row 0, is inf"),
        ("data/demo_2/rewards", np.zeros(2), r"demo_2/rewards has 2 entries for 3 actions"),
        ("data/demo_2/obs/robot0_eef_pos", np.zeros((3, 4)), r"4 numbers per row instead of 3"),
        ("data/demo_2/obs/agentview_image", None, r"demo_2 has no 'obs/agentview_image'"),
        ("data/demo_2/next_obs", None, r"demo_2 has no 'next_obs/agentview_image'"),
    ],
)
def test_a_broken_demo_names_itself_and_the_fix(tmp_path: Path, name: str, values: object, words: str) -> None:
    edit(make_robomimic(tmp_path / "image.hdf5"), name, values)
    source = RobomimicSource(tmp_path / "image.hdf5")
    with pytest.raises(BrokenEpisode, match=words) as caught:
        source.read(2)
    assert "image.hdf5" in str(caught.value)
    assert "--skip-broken" in str(caught.value)
    assert len(source.read(3)) == 4


def test_a_file_without_observations_says_how_to_get_them(tmp_path: Path) -> None:
    file = make_robomimic(tmp_path / "demo.hdf5")
    edit(file, "data/demo_0/obs", None)
    with pytest.raises(UserError, match="has no 'obs': extract observations first"):
        RobomimicSource(file)


def test_a_truncated_file_is_recognised_and_is_one_line(tmp_path: Path) -> None:
    file = make_robomimic(tmp_path / "image.hdf5")
    cut(file, 0.3)
    with pytest.raises(UserError, match=r"image.hdf5 cannot be read as HDF5"):
        open_dataset(file)
