"""Every way a LeRobot folder is known to be broken is refused with the file, the row, the value and the fix."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.recorded import LEAN, SPEC, assert_same, make_episode, record
from worldloom.data import video
from worldloom.data.episode import BrokenEpisode
from worldloom.data.lerobot.writer import FileLimits, LeRobotWriter
from worldloom.data.source import open_dataset
from worldloom.data.spec import KeySpec
from worldloom.errors import UserError

DATA = "data/chunk-000/file-001.parquet"
VIDEO = "videos/observation.images.front/chunk-000/file-001.mp4"
SKIP = "--skip-broken"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three episodes, each in files of its own; the tests break the middle one."""
    record(tmp_path / "data", SPEC, (6, 8, 5), limits=FileLimits(0, 0))
    return tmp_path / "data"


def edit_info(dataset: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = dataset / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def edit_column(dataset: Path, name: str, change: Callable[[np.ndarray], object]) -> None:
    """Change the values of one column of the middle episode in place."""
    table = pq.read_table(dataset / DATA)
    values = np.array(table[name].to_pylist())
    change(values)
    column = pa.array(values.tolist(), table.schema.field(name).type)
    pq.write_table(table.set_column(table.schema.names.index(name), name, column), dataset / DATA)


def replace_column(dataset: Path, name: str, column: pa.Array) -> None:
    table = pq.read_table(dataset / DATA)
    pq.write_table(table.set_column(table.schema.names.index(name), name, column), dataset / DATA)


def set_at(place: Any, value: Any) -> Callable[[np.ndarray], object]:
    return lambda values: values.__setitem__(place, value)


def assert_broken(dataset: Path, *words: str) -> None:
    """The middle episode is refused with these words, the two others can still be read."""
    source = open_dataset(dataset)
    with pytest.raises(BrokenEpisode) as caught:
        source.read(1)
    for word in (*words, SKIP, "episode 1"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(source.read(0)) == 6
    assert len(source.read(2)) == 5


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_missing_parquet(dataset: Path) -> None:
    (dataset / DATA).unlink()
    assert_broken(dataset, DATA, "missing")


def test_a_truncated_parquet(dataset: Path) -> None:
    cut_in_half(dataset / DATA)
    assert_broken(dataset, DATA, "truncated or not parquet")


def test_a_parquet_damaged_in_the_middle(dataset: Path) -> None:
    content = bytearray((dataset / DATA).read_bytes())
    content[40:400] = bytes(360)
    (dataset / DATA).write_bytes(content)
    with pytest.raises(BrokenEpisode, match=DATA):
        open_dataset(dataset).read(1)


def test_a_missing_video(dataset: Path) -> None:
    (dataset / VIDEO).unlink()
    assert_broken(dataset, VIDEO, "missing")


def test_a_video_in_another_place_than_video_path_is_pointed_at(dataset: Path) -> None:
    other = dataset / "videos/observation.images.front/elsewhere/file-001.mp4"
    other.parent.mkdir()
    (dataset / VIDEO).rename(other)
    assert_broken(dataset, VIDEO, str(other), "video_path")


def test_a_truncated_video(dataset: Path) -> None:
    cut_in_half(dataset / VIDEO)
    assert_broken(dataset, VIDEO, "cannot be decoded")


def test_a_video_one_frame_shorter_than_its_rows(dataset: Path) -> None:
    video.encode(dataset / VIDEO, np.zeros((7, 3, 128, 160), np.uint8), 10)
    assert_broken(dataset, VIDEO, "row 7", "ends at 0.6")


def test_a_video_of_another_size_than_declared(dataset: Path) -> None:
    video.encode(dataset / VIDEO, np.zeros((8, 3, 64, 64), np.uint8), 10)
    assert_broken(dataset, VIDEO, "(3, 64, 64)", "(3, 128, 160)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite(dataset: Path, value: float) -> None:
    edit_column(dataset, "observation.state", set_at((4, 2), value))
    source = open_dataset(dataset)
    with pytest.raises(BrokenEpisode, match=rf"{DATA}.*observation.state, row 4: entry 2 is {value}"):
        source.read(1)


def test_a_reward_that_is_not_finite(dataset: Path) -> None:
    edit_column(dataset, "next.reward", set_at(3, np.nan))
    with pytest.raises(BrokenEpisode, match=r"next.reward, row 3: is nan"):
        open_dataset(dataset).read(1)


def test_a_value_that_is_missing(dataset: Path) -> None:
    replace_column(dataset, "observation.speed", pa.array([1.0, 2.0, None, *range(5)], pa.float32()))
    assert_broken(dataset, DATA, "observation.speed, row 2", "null")


def test_a_column_of_another_dtype(dataset: Path) -> None:
    replace_column(dataset, "observation.speed", pa.array(["fast"] * 8))
    assert_broken(dataset, DATA, "observation.speed", "string", "float32")


def test_a_vector_of_another_length(dataset: Path) -> None:
    replace_column(dataset, "observation.state", pa.array([[1.0, 2.0, 3.0]] * 8, pa.list_(pa.float32(), 3)))
    assert_broken(dataset, DATA, "observation.state", "24 values in 8 rows", "[4]")


def test_a_row_of_another_length(dataset: Path) -> None:
    rows = [[1.0, 2.0, 3.0, 4.0]] * 7 + [[1.0]]
    replace_column(dataset, "observation.state", pa.array(rows, pa.list_(pa.float32())))
    assert_broken(dataset, DATA, "observation.state, row 7", "1 entries", "4")


def test_timestamps_that_go_back(dataset: Path) -> None:
    edit_column(dataset, "timestamp", set_at(5, 0.1))
    assert_broken(dataset, DATA, "row 5", "goes back", "0.1000 s after 0.4000 s")


def test_timestamps_that_repeat(dataset: Path) -> None:
    edit_column(dataset, "timestamp", set_at(5, 0.4))
    assert_broken(dataset, DATA, "row 5", "repeats")


def test_an_action_outside_its_declared_range(dataset: Path) -> None:
    edit_column(dataset, "action", set_at((2, 1), 9.0))
    with pytest.raises(BrokenEpisode, match=r"row 2: action\[1\] is 9.0, outside the declared range \[0.0, 2.0\]"):
        open_dataset(dataset).read(1)


def test_an_end_before_the_last_row(dataset: Path) -> None:
    edit_column(dataset, "next.done", set_at(3, True))
    assert_broken(dataset, DATA, "row 3", "next.done")


def test_a_missing_column(dataset: Path) -> None:
    table = pq.read_table(dataset / DATA)
    pq.write_table(table.drop_columns(["observation.state"]), dataset / DATA)
    assert_broken(dataset, DATA, "observation.state", "missing")


def test_rows_that_belong_to_another_episode(dataset: Path) -> None:
    edit_column(dataset, "episode_index", set_at(slice(6, 8), 2))
    assert_broken(dataset, DATA, "6 rows of it", "says 8")


def test_fewer_rows_than_declared(dataset: Path) -> None:
    pq.write_table(pq.read_table(dataset / DATA).slice(0, 5), dataset / DATA)
    assert_broken(dataset, DATA, "5 rows of it", "says 8")


def test_a_picture_that_is_no_picture(dataset: Path) -> None:
    column = pq.read_table(dataset / DATA)["observation.image"].to_pylist()
    column[3]["bytes"] = column[3]["bytes"][:60]
    replace_column(dataset, "observation.image", pa.array(column))
    assert_broken(dataset, DATA, "observation.image, row 3", "cannot be decoded")


def test_a_picture_that_is_absent(dataset: Path) -> None:
    column = pq.read_table(dataset / DATA)["observation.image"].to_pylist()
    column[6]["bytes"] = None
    replace_column(dataset, "observation.image", pa.array(column))
    assert_broken(dataset, DATA, "observation.image, row 6", "missing")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda info: info.pop("fps"), "'fps' is 'missing'"),
        (lambda info: info.update(fps=0), "fps is 0"),
        (lambda info: info.update(fps="ten"), "'fps' is 'ten'"),
        (lambda info: info.update(features=[]), r"'features' is \[\]"),
        (lambda info: info.pop("total_episodes"), "'total_episodes' is 'missing'"),
        (lambda info: info.update(total_episodes=7), "describes 3 episodes, meta/info.json says 7"),
        (lambda info: info["features"]["action"].pop("dtype"), "feature 'action': has no dtype"),
        (lambda info: info["features"]["action"].update(shape="two"), "feature 'action': its shape is 'two'"),
        (lambda info: info["features"]["observation.images.front"].update(info="x"), "its info is 'x'"),
        (lambda info: info.update(worldloom=5), "'worldloom' is 5"),
        (lambda info: info["worldloom"].update(about=5), "worldloom.about is 5"),
        (lambda info: info["worldloom"].update(fps=-1), "worldloom.fps is -1"),
        (lambda info: info["worldloom"]["action"].update(kind="x"), "worldloom.action.kind is 'x'"),
        (lambda info: info["worldloom"]["action"].update(low=-1), "worldloom.action.low is -1"),
        (lambda info: info["worldloom"]["action"].update(high=[1, None]), r"worldloom.action.high is \[1, None\]"),
        (lambda info: info["worldloom"]["action"].update(names=["one"]), "worldloom.action.names is"),
    ],
)
def test_a_malformed_info(dataset: Path, change: Callable[[dict[str, Any]], object], words: str) -> None:
    edit_info(dataset, change)
    with pytest.raises(UserError, match=words):
        open_dataset(dataset)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "not json"])
def test_an_info_that_is_not_an_object(dataset: Path, content: str) -> None:
    (dataset / "meta/info.json").write_text(content)
    with pytest.raises(UserError, match=r"meta/info\.json: (is not JSON|holds a list).*Restore"):
        open_dataset(dataset)


def test_truncated_episode_metadata(dataset: Path) -> None:
    cut_in_half(dataset / "meta/episodes/chunk-000/file-002.parquet")
    with pytest.raises(UserError, match=r"meta/episodes/chunk-000/file-002\.parquet: cannot be read"):
        open_dataset(dataset)


def test_missing_episode_metadata(dataset: Path) -> None:
    (dataset / "meta/episodes/chunk-000/file-002.parquet").unlink()
    with pytest.raises(UserError, match=r"describes 2 episodes, meta/info\.json says 3"):
        open_dataset(dataset)


def test_an_unknown_key_in_info_is_ignored(dataset: Path, tmp_path: Path) -> None:
    edit_info(dataset, lambda info: info.update(tools=[{"name": "say"}]))
    written = record(tmp_path / "again", SPEC, (6, 8, 5))
    assert_same(open_dataset(dataset).read(1), written[1], lossy=("front",))


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("data_path", "../../elsewhere/{chunk_index}-{file_index}.parquet"),
        ("video_path", "/elsewhere/{video_key}-{chunk_index}.mp4"),
        ("video_path", "{video_key:.0}../../{chunk_index}.mp4"),
        ("data_path", "{chunk_index.real.secret}"),
    ],
)
def test_a_path_out_of_the_dataset_is_never_followed(dataset: Path, template: str, path: str) -> None:
    edit_info(dataset, lambda info: info.update({template: path}))
    with pytest.raises(UserError, match=f"{template} is .*(leads out of the dataset|It may use)"):
        open_dataset(dataset).read(1)


def test_a_journal_from_a_stranger_writes_nothing_outside_its_folder(tmp_path: Path) -> None:
    writer = LeRobotWriter(tmp_path / "outer" / "data", LEAN)
    writer.add(make_episode(LEAN, 4))
    os.close(writer._lock or 0)  # as after kill -9
    head = tmp_path / "outer" / "data" / ".journal" / "info.json"
    head.write_text(head.read_text().replace('"data/chunk', '"../chunk'))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"data_path is .* leads out of the dataset"):
        open_dataset(tmp_path / "outer" / "data")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_is_a_path_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'arm/wrist': LeRobot's names hold no '/'"):
        LeRobotWriter(tmp_path / "data", LEAN.with_obs({"arm/wrist": KeySpec("vector", (2,))}))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["meta/tasks.parquet", "meta/episodes/chunk-000/file-001.parquet"])
def test_broken_metadata_are_named_when_a_recording_goes_on(dataset: Path, name: str) -> None:
    cut_in_half(dataset / name)
    before = sorted(path.name for path in (dataset / "data").rglob("*"))
    with (
        pytest.raises(UserError, match=rf"{name}: cannot be read, it is truncated"),
        LeRobotWriter(dataset, SPEC) as writer,
    ):
        writer.add(make_episode(SPEC, 4))
    assert sorted(path.name for path in (dataset / "data").rglob("*")) == before


def test_what_a_library_says_in_several_lines_is_one_line() -> None:
    assert str(UserError("x.parquet: cannot be read (no more data.\n). Restore it.")) == (
        "x.parquet: cannot be read (no more data. ). Restore it."
    )
