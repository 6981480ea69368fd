"""Reading LeRobotDataset v2.1: one parquet and one mp4 per episode, metadata in JSON lines."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldloom.data import video
from worldloom.data.episode import BrokenEpisode
from worldloom.data.source import open_dataset
from worldloom.errors import UserError

CAMERA = "observation.images.top"
LENGTHS = (5, 3)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two episodes of a robot with a camera, as the v2.1 tools lay them out; chunks of one episode."""
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}},
        "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        "next.success": {"dtype": "bool", "shape": [1], "names": None},
        CAMERA: {"dtype": "video", "shape": [32, 48, 3], "names": ["height", "width", "channel"]},
    }
    features |= {
        n: {"dtype": "int64", "shape": [1], "names": None}
        for n in ("frame_index", "episode_index", "index", "task_index")
    }
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "so100",
        "total_episodes": 2,
        "total_frames": 8,
        "total_tasks": 2,
        "total_videos": 2,
        "total_chunks": 2,
        "chunks_size": 1,
        "fps": 10,
        "splits": {"train": "0:2"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    meta = tmp_path / "meta"
    meta.mkdir()
    (meta / "info.json").write_text(json.dumps(info))
    lines = [{"episode_index": e, "tasks": [f"task {e}"], "length": n} for e, n in enumerate(LENGTHS)]
    (meta / "episodes.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (meta / "tasks.jsonl").write_text(
        "".join(json.dumps({"task_index": e, "task": f"task {e}"}) + "\n" for e in range(2))
    )
    for episode, length in enumerate(LENGTHS):
        write_episode(tmp_path, episode, length)
    return tmp_path


def write_episode(root: Path, episode: int, length: int) -> None:
    rows = np.arange(length)
    vector = pa.list_(pa.float32(), 2)
    columns = {
        "observation.state": pa.array([[episode, t] for t in range(length)], vector),
        "action": pa.array([[-t, t] for t in range(length)], vector),
        "next.reward": pa.array((rows + 1).astype(np.float32)),
        "next.success": pa.array(rows == length - 1),
        "timestamp": pa.array((rows / 10).astype(np.float32)),
        "frame_index": pa.array(rows),
        "episode_index": pa.array(np.full(length, episode)),
        "index": pa.array(rows + 5 * episode),
        "task_index": pa.array(np.full(length, episode)),
    }
    data = root / f"data/chunk-{episode:03d}/episode_{episode:06d}.parquet"
    data.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), data)
    path = root / f"videos/chunk-{episode:03d}/{CAMERA}/episode_{episode:06d}.mp4"
    path.parent.mkdir(parents=True)
    frames = np.broadcast_to((40 * rows + 10 * episode)[:, None, None, None], (length, 3, 32, 48)).astype(np.uint8)
    video.encode(path, frames, 10)


def test_episodes_tasks_and_frames_are_read(dataset: Path) -> None:
    source = open_dataset(dataset)
    assert source.about["format"] == "lerobot_v21"
    assert source.about["codebase_version"] == "v2.1"
    assert source.about["robot"] == "so100"
    assert [(e.length, e.task) for e in source.episodes] == [(5, "task 0"), (3, "task 1")]
    assert source.spec.obs["state"].names == ("a", "b")
    assert source.spec.obs["top"].shape == (3, 32, 48)
    episode = source.read(1)
    assert episode.task == "task 1"
    assert episode.obs["state"].tolist() == [[1, 0], [1, 1], [1, 2]]
    assert episode.action.tolist() == [[0, 0], [-1, 1], [-2, 2]]
    np.testing.assert_allclose(episode.obs["top"][:, 1, 16, 24], [10, 50, 90], atol=2)
    assert source.read(0, (8, 12)).obs["top"].shape == (5, 3, 8, 12)


def test_an_episode_ends_where_its_data_ends(dataset: Path) -> None:
    episode = open_dataset(dataset).read(0)
    assert episode.truncated.tolist() == [False] * 4 + [True]
    assert not episode.terminated.any()
    assert not open_dataset(dataset).spec.has_end


def test_rewards_arrive_with_the_next_row_and_success_stays_on_its_own(dataset: Path) -> None:
    source = open_dataset(dataset)
    assert source.read(1).reward.tolist() == [0, 1, 2]
    assert source.read(1).extra["success"].tolist() == [False, False, True]
    assert source.about["not_represented"] == ["the reward of the last action of each episode"]


def test_a_missing_file_breaks_its_episode_only(dataset: Path) -> None:
    (dataset / f"videos/chunk-001/{CAMERA}/episode_000001.mp4").unlink()
    source = open_dataset(dataset)
    with pytest.raises(BrokenEpisode, match=r"episode_000001\.mp4, episode 1: the video is missing"):
        source.read(1)
    assert len(source.read(0)) == 5


def test_a_truncated_parquet_names_the_file(dataset: Path) -> None:
    path = dataset / "data/chunk-000/episode_000000.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BrokenEpisode, match=r"episode_000000\.parquet.*truncated"):
        open_dataset(dataset).read(0)


def test_a_missing_column_is_named(dataset: Path) -> None:
    path = dataset / "data/chunk-000/episode_000000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["action"]), path)
    with pytest.raises(BrokenEpisode, match=r"episode_000000\.parquet.*'action'.*missing"):
        open_dataset(dataset).read(0)


def test_rows_that_are_not_those_of_the_metadata(dataset: Path) -> None:
    path = dataset / "data/chunk-000/episode_000000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 4), path)
    with pytest.raises(BrokenEpisode, match=r"has 4 rows, episodes.jsonl says 5"):
        open_dataset(dataset).read(0)


def test_a_line_that_is_not_json_is_named(dataset: Path) -> None:
    with (dataset / "meta/episodes.jsonl").open("a") as file:
        file.write('{"episode_index": 2,')
    with pytest.raises(UserError, match=r"episodes\.jsonl, line 3: is not JSON"):
        open_dataset(dataset)


@pytest.mark.parametrize("line", ['{"episode_index": 2}', '{"episode_index": 2, "length": "5"}', "[2, 5]", "7"])
def test_a_line_that_describes_no_episode_is_named(dataset: Path, line: str) -> None:
    with (dataset / "meta/episodes.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(UserError, match=r"episodes\.jsonl, line 3: (length|episode_index) is .*, not a whole number"):
        open_dataset(dataset)


def test_a_missing_episode_list_is_named(dataset: Path) -> None:
    (dataset / "meta/episodes.jsonl").unlink()
    with pytest.raises(UserError, match=r"episodes\.jsonl: cannot be read"):
        open_dataset(dataset)


def test_fewer_episodes_than_declared(dataset: Path) -> None:
    path = dataset / "meta/episodes.jsonl"
    path.write_text(path.read_text().splitlines()[0])
    with pytest.raises(UserError, match="has 1 episodes, meta/info.json says 2".replace(".", r"\.")):
        open_dataset(dataset)
