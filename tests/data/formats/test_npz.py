import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.foreign import cut, d4rl_arrays, ogbench_arrays, save_npz
from worldloom.data.episode import BrokenEpisode
from worldloom.data.formats.npz import NpzSource
from worldloom.errors import UserError


def opened(tmp_path: Path, arrays: dict[str, np.ndarray]) -> NpzSource:
    return NpzSource(save_npz(tmp_path / "data.npz", arrays))


def test_ogbench_marks_states_so_all_are_rows_and_none_is_terminal(tmp_path: Path) -> None:
    arrays = ogbench_arrays()
    source = opened(tmp_path, arrays)
    assert source.rule == "OGBENCH"
    assert [info.length for info in source.episodes] == [5, 4]
    second = source.read(1)
    np.testing.assert_array_equal(second.obs["state"], arrays["observations"][5:])
    np.testing.assert_array_equal(second.obs["qpos"], arrays["qpos"][5:])
    np.testing.assert_array_equal(second.action[:-1], arrays["actions"][5:8])
    assert (second.action[-1] == 0).all()
    assert second.truncated.tolist() == [False] * 3 + [True]
    assert not second.terminated.any()
    assert (source.spec.has_reward, source.spec.has_end) == (False, False)


def test_ogbench_pictures_turn_channels_first(tmp_path: Path) -> None:
    arrays = ogbench_arrays(visual=True)
    source = opened(tmp_path, arrays)
    assert source.spec.obs["image"].shape == (3, 8, 8)
    np.testing.assert_array_equal(source.read(0).obs["image"], arrays["observations"][:5].transpose(0, 3, 1, 2))
    assert source.read(0, (4, 4)).obs["image"].shape == (5, 3, 4, 4)


def test_next_observations_give_a_terminal_row_or_a_cut_one(tmp_path: Path) -> None:
    arrays = d4rl_arrays()
    source = opened(tmp_path, arrays)
    assert source.rule == "TRANSITIONS"
    assert [info.length for info in source.episodes] == [5, 4, 3]
    first, second, third = (source.read(i) for i in range(3))
    np.testing.assert_array_equal(first.obs["state"][:4], arrays["observations"][:4])
    np.testing.assert_array_equal(first.obs["state"][4], arrays["next_observations"][3])
    np.testing.assert_array_equal(first.action[:4], arrays["actions"][:4])
    assert first.reward.tolist() == [0, 1, 2, 3, 4]
    assert first.terminated.tolist() == [False] * 4 + [True]
    assert not first.truncated.any()
    assert second.truncated.tolist() == [False] * 3 + [True]
    assert not second.terminated.any()
    assert third.reward.tolist() == [0, 8, 9]
    assert third.truncated[-1]
    assert source.spec.has_end


def test_d4rl_without_next_observations_keeps_no_end_and_no_last_action(tmp_path: Path) -> None:
    arrays = d4rl_arrays(after=False)
    source = opened(tmp_path, arrays)
    assert source.rule == "D4RL"
    first = source.read(0)
    np.testing.assert_array_equal(first.obs["state"], arrays["observations"][:4])
    np.testing.assert_array_equal(first.obs["qpos"], arrays["infos/qpos"][:4].astype(np.float32))
    np.testing.assert_array_equal(first.action, np.concatenate([arrays["actions"][:3], np.zeros((1, 2))]))
    assert first.reward.tolist() == [0, 1, 2, 3]
    assert first.truncated.tolist() == [False] * 3 + [True]
    assert not first.terminated.any()
    assert not source.spec.has_end


def test_a_trajectory_ends_where_the_next_observation_is_not_the_one_that_follows(tmp_path: Path) -> None:
    arrays = d4rl_arrays()
    del arrays["timeouts"]
    assert [info.length for info in opened(tmp_path, arrays).episodes] == [5, 4, 3]


def test_shuffled_transitions_are_refused(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(9)
    arrays = {name: values[order] for name, values in d4rl_arrays().items()}
    with pytest.raises(UserError, match="the transitions are shuffled"):
        opened(tmp_path, arrays)


def test_d4rl_hdf5_reads_like_its_npz(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "hopper.hdf5", "w") as file:
        for name, values in d4rl_arrays().items():
            file[name] = values
    assert NpzSource.detect(tmp_path / "hopper.hdf5")
    flat, zipped = NpzSource(tmp_path / "hopper.hdf5"), opened(tmp_path, d4rl_arrays())
    for i in range(3):
        np.testing.assert_array_equal(flat.read(i).obs["state"], zipped.read(i).obs["state"])
        np.testing.assert_array_equal(flat.read(i).reward, zipped.read(i).reward)


def test_integer_actions_are_choices(tmp_path: Path) -> None:
    source = opened(tmp_path, ogbench_arrays() | {"actions": np.arange(9) % 3})
    assert (source.spec.action.kind, source.spec.action.size) == ("discrete", 3)
    assert source.read(0).action.argmax(1)[:4].tolist() == [0, 1, 2, 0]
    assert source.read(0).action[-1].sum() == 0


def test_episodes_read_in_any_order_are_the_same(tmp_path: Path) -> None:
    source = opened(tmp_path, ogbench_arrays())
    forward = [source.read(i).obs["state"] for i in (0, 1)]
    for i in (1, 0, 0, 1):
        np.testing.assert_array_equal(source.read(i).obs["state"], forward[i])


def test_a_folder_holds_several_files_and_none_runs_into_the_next(tmp_path: Path) -> None:
    arrays = d4rl_arrays(after=False)
    for name in ("a", "b"):
        save_npz(tmp_path / f"{name}.npz", arrays)
    assert [info.length for info in NpzSource(tmp_path).episodes] == [4, 3, 2, 4, 3, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"actions": None}, r"data.npz has no 'actions' \(it has observations, qpos, qvel, terminals\)"),
        ({"terminals": None}, r"has no 'terminals'"),
        ({"actions": np.zeros((8, 2))}, r"'actions' has 8 entries, 'observations' 9"),
        ({"observations": np.zeros((9, 32, 32, 6), np.uint8)}, r"uint8 \(32, 32, 6\)"),
        ({"actions": np.zeros((9, 2), int)}, r"several integers per row"),
        ({"actions": np.array([{}] * 9)}, r"'actions' holds pickled Python objects"),
    ],
)
def test_a_file_that_is_no_such_dataset_is_one_line(tmp_path: Path, change: dict, words: str) -> None:
    arrays = {name: values for name, values in (ogbench_arrays() | change).items() if values is not None}
    with pytest.raises(UserError, match=words) as caught:
        opened(tmp_path, arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards"])
def test_a_value_that_is_not_finite_is_named(tmp_path: Path, name: str) -> None:
    arrays = d4rl_arrays()
    arrays[name][5] = np.nan
    arrays["next_observations"][4] = arrays["observations"][5]
    source = opened(tmp_path, arrays)
    with pytest.raises(BrokenEpisode, match=rf"data.npz: entries 4 to 6: {name}, row 1, is nan; .*--skip-broken"):
        source.read(1)
    assert len(source.read(0)) == 5


def test_a_cut_npz_is_one_line(tmp_path: Path) -> None:
    cut(save_npz(tmp_path / "data.npz", ogbench_arrays()))
    with pytest.raises(UserError, match=r"data.npz cannot be read as npz .*fetch it again"):
        NpzSource(tmp_path / "data.npz")


def test_damaged_bytes_break_the_episodes_that_hold_them(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    arrays = {name: np.repeat(values, 2000, 0) for name, values in ogbench_arrays().items()}
    arrays["terminals"] = np.isin(np.arange(18000), [9999, 17999])
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("observations.npy")
    data = bytearray(path.read_bytes())
    data[info.header_offset + info.file_size] ^= 255
    path.write_bytes(data)
    damaged = NpzSource(path)
    np.testing.assert_array_equal(damaged.read(0).obs["state"], arrays["observations"][:10000])
    with pytest.raises(BrokenEpisode, match=r"entries 10000 to 17999: observations cannot be read \(Bad CRC"):
        damaged.read(1)


@pytest.mark.parametrize("name", ["terminals", "next_observations"])
def test_damage_where_episodes_end_is_one_line(tmp_path: Path, name: str) -> None:
    path = save_npz(tmp_path / "data.npz", d4rl_arrays())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + info.compress_size - 1] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"data\.npz.*fetch it again"):
        NpzSource(path)


def test_files_that_follow_different_rules_are_not_mixed(tmp_path: Path) -> None:
    save_npz(tmp_path / "a.npz", d4rl_arrays())
    save_npz(tmp_path / "b.npz", d4rl_arrays(after=False))
    with pytest.raises(UserError, match=r"b.npz is read as D4RL, .*a.npz as TRANSITIONS"):
        NpzSource(tmp_path)
