"""Rows are found by their own episode and frame columns, wherever they lie and whatever the metadata say of it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.lerobot.test_reader import write_foreign
from worldloom.data.episode import BrokenEpisode
from worldloom.data.source import open_dataset

FILE = "data/chunk-000/file-{:03d}.parquet"
LENGTHS = st.lists(st.integers(1, 6), min_size=2, max_size=7)


def written(path: Path, lengths: Sequence[int], numbers: Sequence[int] | None = None) -> Path:
    """A dataset whose action tells episode and frame: [number, frame]. `numbers` are the episodes' own."""
    numbers = list(range(len(lengths))) if numbers is None else numbers
    told = np.concatenate([np.stack([np.full(n, e), np.arange(n)], 1) for e, n in zip(numbers, lengths, strict=True)])
    write_foreign(path, {"action": ("float32", [2])}, {"action": told.astype(np.float32)}, lengths)
    edit_episodes(path, [{"episode_index": number} for number in numbers])
    table = pq.read_table(path / FILE.format(0))
    column = table.column_names.index("episode_index")
    table = table.set_column(column, "episode_index", pa.array(told[:, 0].astype(np.int64)))
    pq.write_table(table, path / FILE.format(0))
    return path


def edit_episodes(path: Path, changes: Sequence[dict[str, Any]]) -> None:
    file = path / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(file).to_pylist()
    changed = [{**row, **change} for row, change in zip(rows, changes, strict=True)]
    pq.write_table(pa.Table.from_pylist(changed), file)


def scatter(path: Path, order: np.ndarray, files: int, group: int) -> None:
    """The rows in another order over several files, in row groups of `group` rows."""
    table = pq.read_table(path / FILE.format(0)).take(pa.array(order))
    for number, rows in enumerate(np.array_split(np.arange(len(order)), files)):
        pq.write_table(table.take(pa.array(rows)), path / FILE.format(number), row_group_size=group)


def check(path: Path, lengths: Sequence[int], numbers: Sequence[int]) -> None:
    source = open_dataset(path)
    assert [info.length for info in source.episodes] == list(lengths)
    for index, (length, number) in enumerate(zip(lengths, numbers, strict=True)):
        action = source.read(index).action
        assert action.tolist() == [[number, frame] for frame in range(length)]


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_rows_are_found_in_any_order_over_any_files(
    lengths: list[int], seed: int, files: int, group: int, gaps: bool
) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.choice(3 * len(lengths), len(lengths), replace=False)) if gaps else np.arange(len(lengths))
    with TemporaryDirectory() as folder:
        path = written(Path(folder) / "data", lengths, numbers.tolist())
        scatter(path, rng.permutation(sum(lengths)), files, group)
        stale = [
            {"data/file_index": int(rng.integers(files)), "dataset_from_index": int(rng.integers(99))} for _ in lengths
        ]
        edit_episodes(path, stale)
        check(path, lengths, numbers.tolist())


@pytest.mark.parametrize("change", ["one row less", "one row twice"])
def test_an_episode_without_just_its_rows_is_broken_and_the_others_are_read(tmp_path: Path, change: str) -> None:
    path = written(tmp_path / "data", [4, 5, 3])
    rows = [i for i in range(12) if i != 6] if change == "one row less" else [*range(12), 6]
    table = pq.read_table(path / FILE.format(0)).take(pa.array(rows))
    pq.write_table(table, path / FILE.format(0))
    source = open_dataset(path)
    found = len(rows) - 7
    with pytest.raises(BrokenEpisode, match=f"episode 1: {found} rows of it are there, meta/episodes says 5"):
        source.read(1)
    assert [len(source.read(index)) for index in (0, 2)] == [4, 3]


@pytest.mark.parametrize(
    "name", ["data/chunk-000/._file-000.parquet", "data/.trash/file-007.parquet", "meta/episodes/chunk-000/.x.parquet"]
)
def test_hidden_files_of_other_programs_are_not_read(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "data", [4, 2])
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_bytes(b"no parquet")
    check(path, [4, 2], [0, 1])


@pytest.mark.parametrize("how", ["text", "list", "rows", "nothing"])
def test_a_task_is_read_wherever_it_is_told(tmp_path: Path, how: str) -> None:
    path = written(tmp_path / "data", [4, 2])
    pq.write_table(pa.table({"task_index": [0, 1], "task": ["open", "shut"]}), path / "meta/tasks.parquet")
    tasks = {"text": ("open", "shut"), "list": (["open"], ["shut"]), "rows": (None, None), "nothing": (None, None)}[how]
    edit_episodes(path, [{"tasks": task} for task in tasks])
    if how == "nothing":
        (path / "meta/tasks.parquet").unlink()
    wanted = ["", ""] if how == "nothing" else ["open", "shut"]
    assert [info.task for info in open_dataset(path).episodes] == wanted


def test_of_several_tasks_in_an_episode_the_loss_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "data", [4, 2])
    edit_episodes(path, [{"tasks": ["reach", "grasp"]}, {"tasks": ["reach"]}])
    source = open_dataset(path)
    assert [info.task for info in source.episodes] == ["reach", "reach"]
    assert "all but the first task of 1 episode with several" in source.about["not_represented"]


def test_a_link_to_other_data_is_another_dataset(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one", [4, 2]), written(tmp_path / "two", [4, 2], [0, 1])
    os.utime(two / FILE.format(0), ns=(1, 1))
    root = tmp_path / "linked"
    (root / "data").mkdir(parents=True)
    (root / "meta").symlink_to(one / "meta")
    prints = []
    for target in (one, two):
        link = root / "data/chunk-000"
        link.unlink(missing_ok=True)
        link.symlink_to(target / "data/chunk-000")
        prints.append(open_dataset(root).fingerprint())
    assert prints[0] != prints[1]


def test_a_dataset_in_which_nothing_is_recognised_is_refused_with_its_names(tmp_path: Path) -> None:
    features = {"eef_pose": ("float32", [3]), "words": ("string", [1])}
    columns = {"eef_pose": pa.array(np.zeros((3, 3), np.float32).tolist()), "words": ["a", "b", "c"]}
    path = write_foreign(tmp_path / "data", features, columns, [3])
    with pytest.raises(ValueError, match="none of its features is an observation: eef_pose, words"):
        open_dataset(path)


@pytest.mark.parametrize("names", [("actions",), ("action.pose", "action.grip"), ("actions.b", "actions.a")])
def test_an_action_of_another_name_or_in_parts_is_read_in_the_order_declared(
    tmp_path: Path, names: Sequence[str]
) -> None:
    features = {name: ("float32", [2]) for name in names}
    columns = {name: np.full((3, 2), number, np.float32).tolist() for number, name in enumerate(names)}
    path = write_foreign(tmp_path / "data", features, {k: pa.array(v) for k, v in columns.items()}, [3])
    source = open_dataset(path)
    assert source.read(0).action[0].tolist() == [float(i) for i in range(len(names)) for _ in range(2)]
    if len(names) > 1:
        assert list(source.spec.action.slices) == [name.partition(".")[2] for name in names]


@pytest.mark.parametrize("least", [-3, -1, 0, 2])
def test_choices_may_begin_below_zero(tmp_path: Path, least: int) -> None:
    chosen = least + np.array([0, 2, 1, 0, 2, 1])
    path = write_foreign(tmp_path / "data", {"action": ("int64", [1])}, {"action": chosen}, [3, 3])
    source = open_dataset(path)
    first, last = min(least, 0), max(least + 2, 0)  # 0 is a choice even where it was never made
    assert source.spec.action.size == last + 1 - first
    assert source.read(1).action.argmax(1).tolist() == (chosen[3:] - first).tolist()
    if least < 0:
        assert source.spec.action.names == tuple(map(str, range(first, last + 1)))


def test_the_state_needs_no_prefix(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = write_foreign(tmp_path / "data", {"state": ("float32", [2])}, {"state": pa.array(values.tolist())}, [3])
    assert open_dataset(path).read(0).obs["state"].tolist() == values.tolist()


@pytest.mark.parametrize(
    "names",
    [
        ["hip", "knee"],
        [["hip", "knee"]],
        {"motors": ["hip", "knee"]},
        {"a": ["hip"], "b": ["knee"]},
        {"knee": 1, "hip": 0},
    ],
)
def test_names_are_read_however_they_are_nested(tmp_path: Path, names: Any) -> None:
    path = written(tmp_path / "data", [3])
    info = json.loads((path / "meta/info.json").read_text())
    info["features"]["action"]["names"] = names
    (path / "meta/info.json").write_text(json.dumps(info))
    assert open_dataset(path).spec.action.names == ("hip", "knee")


@pytest.mark.parametrize("shape", [(12, 20, 3), (3, 12, 20), (12, 20, 1)])
def test_raw_arrays_of_the_shape_of_a_picture_are_pictures(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    columns = {"observation.top": pa.array(rows.tolist(), pa.list_(pa.list_(pa.list_(pa.uint8()))))}
    path = write_foreign(tmp_path / "data", {"observation.top": ("uint8", list(shape))}, columns, [3])
    wanted = rows if shape[0] == 3 else rows.transpose(0, 3, 1, 2)
    assert np.array_equal(open_dataset(path).read(0).obs["top"], wanted)


@pytest.mark.parametrize("began", [5.0, 1e4, 1.7e9])
def test_a_clock_may_have_begun_anywhere(tmp_path: Path, began: float) -> None:
    path = written(tmp_path / "data", [6])
    table = pq.read_table(path / FILE.format(0))
    clock = pa.array((began + np.arange(6) / 10).astype(np.float32))
    column = table.column_names.index("timestamp")
    pq.write_table(table.set_column(column, "timestamp", clock), path / FILE.format(0))
    check(path, [6], [0])
