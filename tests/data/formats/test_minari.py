import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.foreign import STEPS, cut, make_minari, serialised_box
from worldloom.data.episode import BrokenEpisode
from worldloom.data.formats.minari import MinariSource
from worldloom.data.source import open_dataset
from worldloom.errors import MissingExtra, UserError

h5py = pytest.importorskip("h5py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_minari(tmp_path / "box-v0")


def edit(folder: Path, name: str, values: np.ndarray | None) -> None:
    """Replace (or delete) one array of episode_1."""
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file[f"episode_1/{name}"]
        if values is not None:
            file[f"episode_1/{name}"] = values


def set_space(folder: Path, name: str, space: dict) -> None:
    path = folder / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: json.dumps(space)}))


def test_spaces_become_keys_of_the_right_kind_and_range(folder: Path) -> None:
    spec = MinariSource(folder).spec
    assert {k: (s.kind, s.shape) for k, s in spec.obs.items()} == {
        "robot_arm": ("vector", (2,)),
        "camera": ("image", (3, 8, 10)),
        "direction": ("vector", (4,)),
    }
    assert spec.obs["direction"].names == ("1", "2", "3", "4")
    assert (spec.action.kind, spec.action.low, spec.action.high) == ("continuous", (-1.0, -1.0), (1.0, 1.0))
    assert spec.has_reward
    assert spec.has_end


def test_every_observation_is_a_row_and_what_an_action_led_to_is_one_row_later(folder: Path) -> None:
    source = MinariSource(folder)
    episode = source.read(0)
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        group = file["episode_0"]
        arm, camera = group["observations/robot/arm"][()], group["observations/camera"][()]
        actions, direction = group["actions"][()], group["observations/direction"][()]
    assert len(episode) == source.episodes[0].length == STEPS[0] + 1
    np.testing.assert_array_equal(episode.obs["robot_arm"], arm.astype(np.float32))
    np.testing.assert_array_equal(episode.obs["camera"], camera.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(episode.obs["direction"].argmax(1) + 1, direction)
    np.testing.assert_array_equal(episode.action[:-1], actions)
    assert (episode.action[-1] == 0).all()
    assert episode.reward.tolist() == [0, 1, 2, 3, 4]
    assert episode.terminated.tolist() == [False] * 4 + [True]
    assert not episode.truncated.any()
    assert episode.extra["success"].tolist() == [0, 0, 0, 0, 1]


def test_a_cut_episode_is_truncated_and_not_terminated(folder: Path) -> None:
    episode = MinariSource(folder).read(1)
    assert episode.truncated.tolist() == [False] * 3 + [True]
    assert not episode.terminated.any()


def test_a_constant_text_is_the_task(folder: Path) -> None:
    source = MinariSource(folder)
    assert [info.task for info in source.episodes] == ["go to door 0", "go to door 1"]
    assert source.read(1).task == "go to door 1"


def test_pictures_come_at_the_size_asked_for(folder: Path) -> None:
    episode = MinariSource(folder).read(0, (4, 5))
    assert episode.obs["camera"].shape == (5, 3, 4, 5)
    assert episode.obs["robot_arm"].shape == (5, 2)
    full = MinariSource(folder).read(0).obs["camera"].astype(float)
    averaged = full.reshape(5, 3, 4, 2, 5, 2).mean((3, 5))
    assert np.abs(episode.obs["camera"] - averaged).max() <= 1


def test_a_lone_discrete_action_is_one_hot_from_its_first_choice(folder: Path) -> None:
    set_space(folder, "action_space", {"type": "Discrete", "dtype": "int64", "start": 2, "n": 3})
    edit(folder, "actions", np.array([2, 4, 3]))
    source = MinariSource(folder)
    assert (source.spec.action.kind, source.spec.action.names) == ("discrete", ("2", "3", "4"))
    assert source.read(1).action.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_several_actions_stand_side_by_side(folder: Path) -> None:
    parts = {"grip": {"type": "Discrete", "dtype": "int64", "start": 0, "n": 2}}
    parts["move"] = serialised_box((1,), "float32", -2, 2)
    set_space(folder, "action_space", {"type": "Dict", "subspaces": parts})
    edit(folder, "actions", None)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/actions/grip"], file["episode_1/actions/move"] = [1, 0, 1], [[-2.0], [0.0], [2.0]]
    source = MinariSource(folder)
    assert source.spec.action.names == ("grip.0", "grip.1", "move.0")
    assert source.spec.action.kind == "mixed"
    assert source.spec.action.low == (-1, -1, -2), "a choice is one-hot whatever its range is scaled to"
    assert source.read(1).action.tolist() == [[0, 1, -2], [1, 0, 0], [0, 1, 2], [0, 0, 0]]


def test_an_infinite_action_range_is_left_to_the_data(folder: Path) -> None:
    set_space(folder, "action_space", serialised_box((2,), "float32", -np.inf, np.inf))
    assert MinariSource(folder).spec.action.low is None


def test_a_lone_observation_is_called_state_or_image(folder: Path) -> None:
    set_space(folder, "observation_space", serialised_box((2,), "float32", -1, 1))
    edit(folder, "observations", np.zeros((4, 2)))
    source = MinariSource(folder)
    assert list(source.spec.obs) == ["state"]
    set_space(folder, "observation_space", serialised_box((84, 84, 3), "uint8", 0, 255))
    assert list(MinariSource(folder).spec.obs) == ["image"]


def test_metadata_may_stand_in_the_hdf5_attributes(folder: Path) -> None:
    path = folder / "data" / "metadata.json"
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for name, value in json.loads(path.read_text()).items():
            file.attrs[name] = value
    path.unlink()
    assert len(MinariSource(folder).read(0)) == STEPS[0] + 1


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("observations/robot/arm", np.full((4, 2), np.nan), r"episode_1/observations/robot/arm, row 0, is nan"),
        ("observations/robot/arm", np.zeros((3, 2)), r"has 3 rows where the rewards call for 4"),
        ("observations/camera", np.zeros((4, 8, 8, 3), np.uint8), r"\(8, 8, 3\).*\(3, 8, 10\)"),
        ("observations/direction", np.array([1, 2, 9, 1]), r"direction, row 2, is 8, which is none of 0 to 3"),
        ("observations/mission", [b"a", b"a", b"b", b"b"], r"mission, row 2: the text changes"),
        (
            "actions",
            np.array([[0, 0], [0, 1.5], [0, 0]]),
            r"actions, row 1: action\[1\] is 1.5, outside the declared range \[-1.0, 1.0\]",
        ),
        ("actions", np.zeros((2, 2)), r"actions has 2 rows where the rewards call for 3"),
        ("actions", None, r"episode_1 has no 'actions'"),
        ("rewards", np.array([0, np.inf, 0]), r"rewards, row 1, is inf"),
        ("rewards", np.zeros(0), r"holds no step"),
        ("terminations", np.array([True, False, False]), r"terminations, row 0, is true before the last row"),
    ],
)
def test_a_broken_episode_names_file_row_value_and_fix(folder: Path, name: str, values: object, words: str) -> None:
    edit(folder, name, values)
    source = MinariSource(folder)
    with pytest.raises(BrokenEpisode, match=words) as caught:
        source.read(1)
    assert "main_data.hdf5" in str(caught.value)
    assert "--skip-broken" in str(caught.value) or "leave the episode out" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(source.read(0)) == STEPS[0] + 1


def test_a_truncated_file_is_one_line(folder: Path) -> None:
    cut(folder / "data" / "main_data.hdf5")
    with pytest.raises(UserError, match=r"main_data.hdf5 cannot be read as HDF5 .*fetch it again"):
        MinariSource(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_format": "arrow"}, "'arrow'; only 'hdf5'"),
        ({"observation_space": None}, "declares no 'observation_space'"),
    ],
)
def test_metadata_that_does_not_suffice_is_one_line(folder: Path, change: dict, words: str) -> None:
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text()) | change
    path.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))
    with pytest.raises(UserError, match=words):
        MinariSource(folder)


def test_metadata_cut_in_the_middle_is_one_line(folder: Path) -> None:
    cut(folder / "data" / "metadata.json")
    with pytest.raises(UserError, match=r"metadata.json is not valid JSON"):
        MinariSource(folder)


def test_the_fingerprint_follows_the_data(folder: Path) -> None:
    before = MinariSource(folder).fingerprint()
    assert MinariSource(folder).fingerprint() == before
    edit(folder, "rewards", np.zeros(3))
    assert MinariSource(folder).fingerprint() != before


def test_without_h5py_the_line_to_type_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"pip install 'worldloom\[hdf5\]' -c constraints.txt"):
        MinariSource(folder)
    (folder / "x.hdf5").write_bytes((folder / "data" / "main_data.hdf5").read_bytes())
    with pytest.raises(MissingExtra):
        open_dataset(folder / "x.hdf5")
