"""What comes out of LeRobot folders: ours exactly as it went in, foreign ones aligned as docs/formats.md says."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.recorded import LEAN, SPEC, assert_same, make_episode, record
from worldloom.data import video
from worldloom.data.card.figures import data_card
from worldloom.data.convert import import_source
from worldloom.data.episode import BrokenEpisode, Episode
from worldloom.data.lerobot.writer import FileLimits, LeRobotWriter
from worldloom.data.source import open_dataset
from worldloom.data.spec import ActionSpec, DataSpec, KeySpec
from worldloom.errors import UserError

DEFAULT = {n: ("int64", [1]) for n in ("frame_index", "episode_index", "index", "task_index")}
DEFAULT["timestamp"] = ("float32", [1])


def write_foreign(
    path: Path,
    features: dict[str, tuple[str, list[int]]],
    columns: dict[str, Any],
    lengths: Sequence[int],
    fps: int = 10,
) -> Path:
    """A v3.0 dataset as another tool would write it: one data file, one row group, no marker of ours."""
    total = sum(lengths)
    frame = np.concatenate([np.arange(n) for n in lengths])
    episode = np.repeat(np.arange(len(lengths)), lengths)
    own = {"frame_index": frame, "episode_index": episode, "index": np.arange(total), "task_index": episode % 2}
    own["timestamp"] = (frame / fps).astype(np.float32)
    everything = {**DEFAULT, **features}
    info = {
        "codebase_version": "v3.0",
        "robot_type": "arm",
        "fps": fps,
        "total_episodes": len(lengths),
        "total_frames": total,
        "total_tasks": 2,
        "chunks_size": 1000,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {n: {"dtype": d, "shape": s, "names": None} for n, (d, s) in everything.items()},
    }
    (path / "meta/episodes/chunk-000").mkdir(parents=True)
    (path / "data/chunk-000").mkdir(parents=True)
    (path / "meta/info.json").write_text(json.dumps(info))
    stored = {n: v if isinstance(v, pa.Array) else pa.array(list(v)) for n, v in {**own, **columns}.items()}
    pq.write_table(pa.table(stored), path / "data/chunk-000/file-000.parquet")
    ends = np.cumsum(lengths)
    rows: list[dict[str, Any]] = []
    for e, n in enumerate(lengths):
        first = int(ends[e]) - n
        row = {
            "episode_index": e,
            "tasks": [["open", "shut"][e % 2]],
            "length": n,
            "data/chunk_index": 0,
            "data/file_index": 0,
        }
        row |= {"dataset_from_index": first, "dataset_to_index": first + n}
        for name, (dtype, _) in features.items():
            if dtype == "video":
                row |= {f"videos/{name}/chunk_index": 0, f"videos/{name}/file_index": 0}
                row |= {f"videos/{name}/from_timestamp": first / fps, f"videos/{name}/to_timestamp": (first + n) / fps}
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), path / "meta/episodes/chunk-000/file-000.parquet")
    return path


@pytest.mark.parametrize("lossless", [None, True])
def test_what_was_written_is_read_back(tmp_path: Path, lossless: bool | None) -> None:
    written = record(tmp_path / "data", SPEC, (7, 5, 9, 1), lossless=lossless)
    source = open_dataset(tmp_path / "data")
    assert source.spec == SPEC
    assert [(e.length, e.task) for e in source.episodes] == [(len(e), e.task) for e in written]
    for index, episode in enumerate(written):
        assert_same(source.read(index), episode, lossy=() if lossless else ("front",))


def test_discrete_actions_stay_one_hot_with_their_names(tmp_path: Path) -> None:
    written = record(tmp_path / "data", LEAN)
    source = open_dataset(tmp_path / "data")
    assert source.spec == LEAN
    assert_same(source.read(1), written[1])


def test_grey_pictures_without_actions_rewards_or_ends_are_data(tmp_path: Path) -> None:
    spec = DataSpec({"left": KeySpec("image", (1, 6, 4))}, ActionSpec("continuous", 0), 24)
    frames = np.random.default_rng(0).integers(0, 255, (5, 1, 6, 4), dtype=np.uint8)
    cut = np.array([False] * 4 + [True])
    episode = Episode({"left": frames}, np.zeros((5, 0), np.float32), np.zeros(5, np.float32), np.zeros(5, bool), cut)
    with LeRobotWriter(tmp_path / "data", spec, terminal_rows=False) as writer:
        writer.add(episode)
    source = open_dataset(tmp_path / "data")
    assert source.spec == spec
    assert_same(source.read(0), episode)


def test_extra_signals_come_back(tmp_path: Path) -> None:
    """Row by row, the first and the last one too, with and without a terminal row."""
    for terminal_rows in (True, False):
        path = tmp_path / f"terminal rows {terminal_rows}"
        episode = make_episode(LEAN, 6, truncated=not terminal_rows)
        success = np.array([True, False, True, False, False, True])
        episode.extra = {"success": success, "cost": np.arange(6, dtype=np.float32)}
        with LeRobotWriter(path, LEAN, terminal_rows=terminal_rows) as writer:
            writer.add(episode)
        assert "next.success" in json.loads((path / "meta/info.json").read_text())["features"]
        found = open_dataset(path).read(0)
        assert found.extra["success"].tolist() == success.tolist()
        assert found.extra["cost"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_fractional_frame_rate_is_kept_beside_the_whole_one(tmp_path: Path) -> None:
    record(tmp_path / "data", replace(LEAN, fps=8.75))
    assert json.loads((tmp_path / "data/meta/info.json").read_text())["fps"] == 9
    assert open_dataset(tmp_path / "data").spec.fps == 8.75


def test_two_keys_that_would_share_a_name_keep_their_long_ones(tmp_path: Path) -> None:
    features = {
        "observation.left": ("float32", [2]),
        "observation.images.left": ("image", [4, 6, 3]),
        "observation.b": ("int64", [1]),
    }
    columns = {
        "observation.left": np.ones((3, 2), np.float32),
        "observation.b": np.arange(3),
        "observation.images.left": pictures(3),
    }
    source = open_dataset(write_foreign(tmp_path / "data", features, columns, [3]))
    assert set(source.spec.obs) == {"observation.left", "observation.images.left", "b"}
    assert source.read(0).obs["b"].tolist() == [[0], [1], [2]]
    assert source.read(0).obs["b"].dtype == np.float32


def pictures(count: int) -> pa.Array:
    files = []
    for t in range(count):
        file = io.BytesIO()
        Image.fromarray(np.full((4, 6, 3), 40 * t, np.uint8)).save(file, "JPEG", quality=100)
        files.append({"bytes": file.getvalue(), "path": None})
    return pa.array(files)


def test_a_foreign_dataset_is_shifted_and_ends_truncated(tmp_path: Path) -> None:
    """next.reward of row t arrives with row t + 1; the terminal observation was not stored, so no end is seen."""
    features = {"observation.state": ("float32", [2]), "action": ("float32", [3]), "next.reward": ("float64", [1])}
    features |= {"next.done": ("bool", [1]), "next.success": ("bool", [1])}
    state, action = np.arange(14, dtype=np.float32).reshape(7, 2), np.ones((7, 3), np.float32)
    done = np.array([False, False, False, True, False, False, True])
    columns = {
        "observation.state": state,
        "action": action,
        "next.reward": np.arange(1.0, 8),
        "next.done": done,
        "next.success": done,
    }
    source = open_dataset(write_foreign(tmp_path / "data", features, columns, [4, 3]))
    assert source.spec.has_reward
    assert not source.spec.has_end
    assert source.about["format"] == "lerobot"
    assert source.about["robot"] == "arm"
    assert [e.task for e in source.episodes] == ["open", "shut"]
    first, second = source.read(0), source.read(1)
    assert first.reward.tolist() == [0, 1, 2, 3]
    assert second.reward.tolist() == [0, 5, 6]
    assert second.reward.dtype == np.float32
    assert first.truncated.tolist() == [False, False, False, True]
    assert not first.terminated.any()
    assert second.obs["state"].tolist() == state[4:].tolist()
    assert first.extra["success"].tolist() == [False, False, False, True]
    assert "the reward of the last action of each episode is not represented." in data_card(source).notes


def test_a_foreign_signal_is_imported_row_by_row(tmp_path: Path) -> None:
    """A flag in the last row has no next row to move to; whole numbers may be of any width."""
    features = {"observation.state": ("float32", [1]), "next.success": ("bool", [1]), "next.level": ("int8", [1])}
    state, success = np.zeros((5, 1), np.float32), np.array([True, False, True, False, True])
    level = np.arange(5, dtype=np.int8)
    columns = {"observation.state": state, "next.success": success, "next.level": level}
    src = write_foreign(tmp_path / "data", features, columns, [3, 2])
    import_source(open_dataset(src), tmp_path / "ours")
    for path in (src, tmp_path / "ours"):
        source = open_dataset(path)
        assert [source.read(e).extra["success"].tolist() for e in (0, 1)] == [[True, False, True], [False, True]]
        assert [source.read(e).extra["level"].tolist() for e in (0, 1)] == [[0, 1, 2], [3, 4]]
        assert source.about["not_represented"] == []


def test_of_two_signals_with_one_name_the_other_is_listed(tmp_path: Path) -> None:
    features = {"success": ("float32", [1]), "next.success": ("bool", [1]), "observation.state": ("float32", [1])}
    columns = {"success": np.full(2, 0.5, np.float32), "next.success": np.array([False, True])}
    columns["observation.state"] = np.zeros((2, 1), np.float32)
    source = open_dataset(write_foreign(tmp_path / "data", features, columns, [2]))
    assert source.read(0).extra["success"].tolist() == [False, True]
    assert source.about["ignored_features"] == ["success"]


@pytest.mark.parametrize("name", ["reward", "rewards", "next.rewards"])
def test_a_reward_by_another_name_is_a_reward(tmp_path: Path, name: str) -> None:
    path = write_foreign(tmp_path / "data", {name: ("float32", [1])}, {name: np.arange(3, dtype=np.float32) + 1}, [3])
    assert open_dataset(path).read(0).reward.tolist() == [0, 1, 2]


def test_a_foreign_integer_action_is_a_choice(tmp_path: Path) -> None:
    columns = {"action": np.array([0, 2, 1, 0, 3])}
    source = open_dataset(write_foreign(tmp_path / "data", {"action": ("int64", [1])}, columns, [2, 3]))
    assert source.spec.action == ActionSpec("discrete", 4)
    assert source.read(1).action.argmax(1).tolist() == [1, 0, 3]
    assert source.read(1).action.sum(1).tolist() == [1, 1, 1]


def test_names_of_a_vector_may_be_nested(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "data", {"action": ("float32", [2])}, {"action": np.ones((3, 2), np.float32)}, [3])
    info = json.loads((path / "meta/info.json").read_text())
    info["features"]["action"]["names"] = {"motors": ["shoulder", "elbow"]}
    (path / "meta/info.json").write_text(json.dumps(info))
    assert open_dataset(path).spec.action.names == ("shoulder", "elbow")


def test_matrices_are_flattened_and_strings_left_out(tmp_path: Path) -> None:
    features = {"observation.touch": ("float32", [2, 3]), "observation.words": ("string", [1])}
    touch = np.arange(18, dtype=np.float32).reshape(3, 2, 3)
    columns = {"observation.touch": pa.array(touch.tolist()), "observation.words": ["a", "b", "c"]}
    source = open_dataset(write_foreign(tmp_path / "data", features, columns, [3]))
    assert source.read(0).obs["touch"].tolist() == touch.reshape(3, 6).tolist()
    assert source.about["ignored_features"] == ["observation.words"]


def test_a_foreign_video_with_a_higher_frame_rate_gives_the_nearest_frames(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "data", {"observation.images.top": ("video", [16, 16, 3])}, {}, [3, 4], fps=5)
    frames = np.repeat(np.arange(21, dtype=np.uint8) * 10, 3 * 16 * 16).reshape(21, 3, 16, 16)
    (path / "videos/observation.images.top/chunk-000").mkdir(parents=True)
    video.encode(path / "videos/observation.images.top/chunk-000/file-000.mp4", frames, 15)
    found = open_dataset(path).read(1).obs["top"][:, 0, 8, 8]
    np.testing.assert_allclose(found, [90, 120, 150, 180], atol=2)


def test_images_are_averaged_to_the_asked_size(tmp_path: Path) -> None:
    record(tmp_path / "data", SPEC, (3,))
    full, small = (open_dataset(tmp_path / "data").read(0, size) for size in (None, (4, 6)))
    for key in ("image", "front"):
        pictures = [Image.fromarray(frame.transpose(1, 2, 0)) for frame in full.obs[key]]
        wanted = [np.asarray(p.resize((6, 4), Image.Resampling.BOX)).transpose(2, 0, 1) for p in pictures]
        assert small.obs[key].shape == (3, 3, 4, 6)
        np.testing.assert_allclose(small.obs[key], np.stack(wanted), atol=2 if key == "front" else 0)


def test_about_holds_what_the_writer_declared(tmp_path: Path) -> None:
    about = {"license": "cc-by-4.0", "origin": "a toy", "synthetic": {"checkpoint": "abc"}}
    record(tmp_path / "data", robot_type="toy", about=about)
    found = open_dataset(tmp_path / "data").about
    assert {k: found[k] for k in about} == about
    assert (found["robot"], found["codebase_version"]) == ("toy", "v3.0")


def test_the_licence_is_read_from_the_readme(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "data", {"action": ("float32", [1])}, {"action": np.ones(2, np.float32)}, [2])
    (path / "README.md").write_text("---\nlicense: apache-2.0\ntags: [robot]\n---\nWords.\n")
    assert open_dataset(path).about["license"] == "apache-2.0"


def test_the_fingerprint_changes_with_the_data(tmp_path: Path) -> None:
    record(tmp_path / "data")
    before = open_dataset(tmp_path / "data").fingerprint()
    assert open_dataset(tmp_path / "data").fingerprint() == before
    record(tmp_path / "data", lengths=(3,))
    assert open_dataset(tmp_path / "data").fingerprint() != before


def test_episodes_are_found_in_any_order_across_many_files(tmp_path: Path) -> None:
    written = record(tmp_path / "data", SPEC, (4, 2, 6, 3), limits=FileLimits(0, 0, 2))
    source = open_dataset(tmp_path / "data")
    for index in (3, 0, 2, 1, 3):
        assert_same(source.read(index), written[index], lossy=("front",))


def test_opening_nothing_or_something_else_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        open_dataset(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="not a dataset of a known format"):
        open_dataset(tmp_path)
    with pytest.raises(UserError, match="Did you mean 'lerobot'"):
        open_dataset(tmp_path, "lerobto")


def test_a_broken_episode_is_a_user_error() -> None:
    assert issubclass(BrokenEpisode, UserError)
