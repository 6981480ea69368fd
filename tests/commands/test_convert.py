import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.foreign import (
    cut,
    d4rl_arrays,
    make_minari,
    make_robomimic,
    moving_square,
    ogbench_arrays,
    save_npz,
    save_video,
    save_vpt,
    vpt_line,
)
from worldloom.commands.convert import ImportSettings, convert
from worldloom.data.episode import Episode
from worldloom.data.formats.npz import NpzSource
from worldloom.data.lerobot.writer import LeRobotWriter
from worldloom.data.source import open_dataset
from worldloom.data.spec import DataSpec
from worldloom.errors import UserError


def make_vpt(path: Path) -> Path:
    for stem in ("a", "b"):
        save_vpt(path, stem, [vpt_line(keys=["key.keyboard.w"], dx=float(t)) for t in range(5)], 5)
    return path


def make_videos(path: Path) -> Path:
    path.mkdir()
    for n in (4, 6, 5):
        save_video(path / f"{n}.mp4", moving_square(n))
    return path


IMPORT = [sys.executable, "-c", "from worldloom.cli import main; main()", "import"]
MAKERS: dict[str, Callable[[Path], Path]] = {
    "minari": make_minari,
    "robomimic": lambda path: make_robomimic(path.with_suffix(".hdf5")),
    "robomimic-without-next": lambda path: make_robomimic(path.with_suffix(".hdf5"), after=False),
    "ogbench": lambda path: save_npz(path.with_suffix(".npz"), ogbench_arrays(visual=True)),
    "d4rl": lambda path: save_npz(path.with_suffix(".npz"), d4rl_arrays(after=False)),
    "transitions": lambda path: save_npz(path.with_suffix(".npz"), d4rl_arrays()),
    "discrete": lambda path: save_npz(path.with_suffix(".npz"), ogbench_arrays() | {"actions": np.arange(9) % 4}),
    "vpt": make_vpt,
    "videos": make_videos,
}


def assert_equal(one: Episode, two: Episode) -> None:
    assert list(one.obs) == list(two.obs)
    for key in one.obs:
        np.testing.assert_array_equal(one.obs[key], two.obs[key], err_msg=key)
    for name in ("action", "reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    assert one.task == two.task
    assert one.extra.keys() == two.extra.keys()
    for name, values in one.extra.items():
        np.testing.assert_array_equal(values, two.extra[name], err_msg=name)


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_imported_reads_back_as_the_source(name: str, tmp_path: Path) -> None:
    src, out = MAKERS[name](tmp_path / "src"), tmp_path / "out"
    convert(ImportSettings(src=src, out=out, lossless=True))
    source, made = open_dataset(src), open_dataset(out)
    assert made.spec == source.spec
    assert made.episodes == source.episodes
    for index in range(len(source.episodes)):
        assert_equal(source.read(index), made.read(index))


def test_large_pictures_become_video_close_to_the_source(tmp_path: Path) -> None:
    save_video(tmp_path / "a.mp4", np.kron(moving_square(6), np.ones((1, 4, 4, 1), np.uint8)))
    convert(ImportSettings(src=tmp_path / "a.mp4", out=tmp_path / "out"))
    source, made = (open_dataset(p).read(0).obs["image"].astype(int) for p in (tmp_path / "a.mp4", tmp_path / "out"))
    assert list((tmp_path / "out" / "videos").rglob("*.mp4"))
    assert np.abs(source - made).mean() < 3


def test_pictures_are_resized_and_the_first_episodes_taken(tmp_path: Path) -> None:
    src, out = make_videos(tmp_path / "src"), tmp_path / "out"
    convert(ImportSettings(src=src, out=out, image_size=(16, 24), episodes=2))
    made = open_dataset(out)
    assert made.spec.obs["image"].shape == (3, 16, 24)
    assert [info.length for info in made.episodes] == [4, 5]


def test_the_last_line_is_what_to_type_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = MAKERS["d4rl"](tmp_path / "src")
    convert(ImportSettings(src=src, out=tmp_path / "out", license="apache-2.0", origin="https://example.org"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'out'}: 3 episodes, 9 rows")
    assert "20 frames per second are assumed" in lines[1]
    assert lines[-1] == f"worldloom inspect {tmp_path / 'out'}"
    about = open_dataset(tmp_path / "out").about
    assert (about["license"], about["origin"]) == ("apache-2.0", "https://example.org")
    assert about["imported_from"] == "D4RL / OGBench arrays, read as D4RL"
    assert about["format"] == "lerobot"


def test_a_rate_that_the_data_do_not_state_can_be_given(tmp_path: Path) -> None:
    convert(ImportSettings(src=MAKERS["ogbench"](tmp_path / "src"), out=tmp_path / "out", fps=5))
    assert open_dataset(tmp_path / "out").spec.fps == 5


def test_a_rate_that_the_data_state_cannot_be_changed(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    with pytest.raises(UserError, match="states 10 frames per second; leave --fps out"):
        convert(ImportSettings(src=make_robomimic(tmp_path / "src.hdf5"), out=tmp_path / "out", fps=5))
    assert not (tmp_path / "out").exists()


def test_plain_videos_are_sampled_at_the_rate_given(tmp_path: Path) -> None:
    src = make_videos(tmp_path / "src")
    convert(ImportSettings(src=src, out=tmp_path / "out", fps=10))
    made = open_dataset(tmp_path / "out")
    assert made.spec.fps == 10
    assert [info.length for info in made.episodes] == [2, 3, 3]


def test_a_broken_episode_stops_the_import_and_skip_broken_continues_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src, out = make_videos(tmp_path / "src"), tmp_path / "out"
    cut(src / "5.mp4")
    with pytest.raises(
        UserError, match=r"5.mp4 cannot be opened.*--skip-broken.*1 episodes before it are imported; with --skip-broken"
    ):
        convert(ImportSettings(src=src, out=out))
    assert len(open_dataset(out).episodes) == 1
    convert(ImportSettings(src=src, out=out, skip_broken=True))
    assert "left out episode 1: " in capsys.readouterr().out
    assert [info.length for info in open_dataset(out).episodes] == [4, 6]
    assert json.loads((out / "meta" / "import.json").read_text())["skipped"][0][0] == 1


def test_a_finished_import_run_again_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src, out = make_videos(tmp_path / "src"), tmp_path / "out"
    convert(ImportSettings(src=src, out=out))
    first, before = capsys.readouterr().out, open_dataset(out).fingerprint()
    convert(ImportSettings(src=src, out=out))
    assert capsys.readouterr().out == first
    assert open_dataset(out).fingerprint() == before


def test_an_import_that_brings_nothing_leaves_nothing(tmp_path: Path) -> None:
    arrays = ogbench_arrays()
    arrays["observations"][:] = np.nan
    src, out = save_npz(tmp_path / "src.npz", arrays), tmp_path / "out"
    with pytest.raises(UserError, match=r"no episode of .*src.npz could be imported: .*row 0, is nan"):
        convert(ImportSettings(src=src, out=out, skip_broken=True))
    assert not out.exists()


def test_an_import_killed_anywhere_is_continued_to_the_same_dataset(tmp_path: Path) -> None:
    arrays = {name: np.tile(values, (20, *[1] * (values.ndim - 1))) for name, values in ogbench_arrays().items()}
    arrays["observations"][100] = np.nan  # the episode that holds it is left out
    src = save_npz(tmp_path / "src.npz", arrays)
    convert(ImportSettings(src=src, out=tmp_path / "whole", skip_broken=True))
    command = [*IMPORT, str(src), str(tmp_path / "out")]
    for wait in (0, 12):
        process = subprocess.Popen([*command, "--skip-broken"], stdout=subprocess.DEVNULL)
        journal = tmp_path / "out" / ".journal"
        while process.poll() is None and len(list(journal.glob("*.parquet"))) <= wait:
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    convert(ImportSettings(src=src, out=tmp_path / "out", skip_broken=True))
    whole, made = open_dataset(tmp_path / "whole"), open_dataset(tmp_path / "out")
    assert made.episodes == whole.episodes
    assert len(made.episodes) == 39
    for index in range(len(made.episodes)):
        assert_equal(whole.read(index), made.read(index))


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    src, out = make_videos(tmp_path / "src"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"out.*already holds something else \('thesis.txt'\)"):
        convert(ImportSettings(src=src, out=out))
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]


def test_an_import_is_not_continued_from_other_data(tmp_path: Path) -> None:
    src, out = make_videos(tmp_path / "src"), tmp_path / "out"
    convert(ImportSettings(src=src, out=out, episodes=1))
    save_video(src / "7.mp4", moving_square(7))
    with pytest.raises(UserError, match=r"holds an import of src that was begun with other data or options"):
        convert(ImportSettings(src=src, out=out))
    (out / "meta" / "import.json").unlink()
    with pytest.raises(UserError, match="already holds 1 episodes that were not imported from"):
        convert(ImportSettings(src=src, out=out))
    assert len(open_dataset(out).episodes) == 1


def test_an_import_cannot_be_continued_at_another_size(tmp_path: Path) -> None:
    src, out = make_videos(tmp_path / "src"), tmp_path / "out"
    convert(ImportSettings(src=src, out=out, image_size=(16, 16)))
    with pytest.raises(UserError, match="Choose an empty folder"):
        convert(ImportSettings(src=src, out=out, image_size=(24, 24)))


def test_a_recording_of_ours_keeps_its_terminal_rows(tmp_path: Path) -> None:
    source = open_dataset(save_npz(tmp_path / "src.npz", d4rl_arrays()))
    with LeRobotWriter(tmp_path / "ours", source.spec) as writer:
        for index in range(3):
            writer.add(source.read(index))
    convert(ImportSettings(src=tmp_path / "ours", out=tmp_path / "again"))
    assert_equal(open_dataset(tmp_path / "again").read(0), source.read(0))
    assert open_dataset(tmp_path / "again").spec == source.spec


def test_a_foreign_lerobot_dataset_keeps_its_last_action(tmp_path: Path) -> None:
    source = open_dataset(save_npz(tmp_path / "src.npz", ogbench_arrays()))
    episode = source.read(0)
    episode.action[-1] = [0.5, -0.5]
    with LeRobotWriter(tmp_path / "foreign", source.spec, terminal_rows=False) as writer:
        writer.add(episode)
    convert(ImportSettings(src=tmp_path / "foreign", out=tmp_path / "again"))
    assert open_dataset(tmp_path / "again").read(0).action[-1].tolist() == [0.5, -0.5]


def test_lerobot_v21_becomes_v30(tmp_path: Path) -> None:
    src = make_v21(tmp_path / "old")
    assert type(open_dataset(src)).__name__ == "LeRobotV21Source"
    convert(ImportSettings(src=src, out=tmp_path / "new", lossless=True))
    old, new = open_dataset(src), open_dataset(tmp_path / "new")
    assert new.about["codebase_version"] == "v3.0"
    assert new.spec == old.spec
    assert [info.task for info in new.episodes] == ["push", "pull"]
    for index in range(2):
        assert_equal(old.read(index), new.read(index))


def make_v21(path: Path) -> Path:
    """Two episodes of four rows in the older layout: one parquet file per episode, JSON lines beside them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (path / "meta").mkdir(parents=True)
    (path / "data" / "chunk-000").mkdir(parents=True)
    vector = {"dtype": "float32", "shape": [2], "names": None}
    counters = {n: {"dtype": "int64", "shape": [1]} for n in ("frame_index", "episode_index", "index", "task_index")}
    features = {
        "observation.state": vector,
        "action": vector,
        "timestamp": {"dtype": "float32", "shape": [1]},
        **counters,
    }
    info = {"codebase_version": "v2.1", "robot_type": "toy", "fps": 5, "chunks_size": 1000, "features": features}
    info |= {"total_episodes": 2, "total_frames": 8, "total_tasks": 2, "total_chunks": 1, "total_videos": 0}
    info |= {"data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet", "video_path": None}
    (path / "meta" / "info.json").write_text(json.dumps(info | {"splits": {"train": "0:2"}}))
    lines = {"episodes": [], "tasks": [], "episodes_stats": []}
    rng = np.random.default_rng(0)
    for e, task in enumerate(("push", "pull")):
        lines["episodes"].append({"episode_index": e, "tasks": [task], "length": 4})
        lines["tasks"].append({"task_index": e, "task": task})
        lines["episodes_stats"].append({"episode_index": e, "stats": {}})
        rows = np.arange(4)
        table = {
            name: pa.array(list(rng.normal(size=(4, 2)).astype(np.float32))) for name in ("observation.state", "action")
        }
        table |= {"timestamp": pa.array((rows / 5).astype(np.float32)), "frame_index": rows, "index": rows + 4 * e}
        table |= {"episode_index": np.full(4, e), "task_index": np.full(4, e)}
        pq.write_table(pa.table(table), path / "data" / "chunk-000" / f"episode_{e:06d}.parquet")
    for name, entries in lines.items():
        (path / "meta" / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "minary"}, r"unknown dataset format 'minary'. Did you mean 'minari'\?.*lerobot, .*vpt"),
        ({"fps": 0}, "--fps is 0, but must be at least 1"),
        ({"episodes": -1}, "--episodes is -1, but must be at least 1"),
        ({"image_size": (0, 64)}, "--image-size is 0, but must be at least 1"),
        ({"format": "minari"}, "is no Minari dataset"),
        ({"format": "robomimic"}, r"has no demo_0|is no robomimic"),
        ({"format": "npz"}, r"holds no \.npz"),
        ({"format": "vpt"}, "holds no NAME.mp4"),
    ],
)
def test_an_option_that_cannot_be_right_is_one_line(tmp_path: Path, options: dict, words: str) -> None:
    src = make_videos(tmp_path / "src")
    with pytest.raises(UserError, match=words) as caught:
        convert(ImportSettings(src=src, out=tmp_path / "out", **options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_no_known_format_lists_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for make in (lambda: None, lambda: (tmp_path / "src" / "notes.txt").write_text("nothing")):
        make()
        with pytest.raises(UserError, match="lerobot, lerobot_v21, minari, robomimic, npz, vpt, videos"):
            convert(ImportSettings(src=tmp_path / "src", out=tmp_path / "out"))


def test_the_output_may_not_lie_in_the_source(tmp_path: Path) -> None:
    src = make_videos(tmp_path / "src")
    with pytest.raises(UserError, match="lies inside"):
        convert(ImportSettings(src=src, out=src / "out"))


def test_the_command_line_reads_its_flags(tmp_path: Path) -> None:
    src = MAKERS["d4rl"](tmp_path / "src")
    command = [*IMPORT, str(src), str(tmp_path / "out")]
    flags = [
        "--fps",
        "7",
        "--episodes",
        "2",
        "--skip-broken",
        "--license",
        "mit",
        "--image-size",
        "8",
        "8",
        "--lossless",
    ]
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"worldloom inspect {tmp_path / 'out'}"
    made = open_dataset(tmp_path / "out")
    assert isinstance(made.spec, DataSpec)
    assert (len(made.episodes), made.spec.fps) == (2, 7)
    wrong = subprocess.run([*command[:-1], str(tmp_path)], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "already holds something else" in wrong.stderr


def test_the_tutorials_source_of_twenty_lines_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "your-own-robot-data.md").read_text()
    (tmp_path / "arm_logs.py").write_text(page.split("<!-- file: arm_logs.py -->\n```python\n")[1].split("```")[0])
    (tmp_path / "logs").mkdir()
    rng = np.random.default_rng(0)
    for drive, (pictures, joints) in enumerate(((5, 5), (4, 5), (6, 6))):
        camera = rng.integers(0, 256, (pictures, 96, 128, 3), np.uint8)
        arrays = {"joints": rng.normal(size=(joints, 6)), "command": rng.uniform(-1, 1, (joints, 6))}
        np.savez(tmp_path / "logs" / f"drive-{drive}.npz", camera=camera, collided=drive == 2, **arrays)  # type: ignore[arg-type]
    done = subprocess.run([sys.executable, "arm_logs.py", "logs", "arm"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 pictures for 5 joint angles" in done.stdout
    made = open_dataset(tmp_path / "arm")
    assert [(info.length, info.task) for info in made.episodes] == [(5, "sort the blocks"), (6, "sort the blocks")]
    assert [bool(made.read(i).terminated[-1]) for i in (0, 1)] == [False, True]
    np.testing.assert_array_equal(made.read(1).obs["front"], camera.transpose(0, 3, 1, 2))
    assert made.about["imported_from"] == "arm logs"


@pytest.mark.parametrize("name", MAKERS)
def test_damage_anywhere_is_one_line_or_does_no_harm(name: str, tmp_path: Path) -> None:
    """Bytes changed or cut off at random: an import succeeds or says so in one line, and never with a traceback."""
    rng = np.random.default_rng(len(name))
    src = MAKERS[name](tmp_path / "src")
    whole = {file: file.read_bytes() for file in [src, *src.rglob("*")] if file.is_file()}
    said = []
    for trial in range(6):
        file, data = list(whole.items())[rng.integers(len(whole))]
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged[: rng.integers(len(data)) if trial % 3 == 0 else None])
        try:
            convert(ImportSettings(src=src, out=tmp_path / f"out{trial}", skip_broken=trial % 2 == 0))
        except UserError as error:
            said.append(str(error))
        file.write_bytes(data)
    assert not [words for words in said if "\n" in words]


class Renamed(NpzSource):
    """An importer from outside: npz files that are called otherwise."""

    @staticmethod
    def detect(path: Path) -> bool:
        return path.suffix == ".numbers"


def test_an_importer_of_yours_is_typed_by_name(tmp_path: Path) -> None:
    src = save_npz(tmp_path / "src.npz", d4rl_arrays()).rename(tmp_path / "src.numbers")
    with pytest.raises(UserError, match="not a dataset of a known format"):
        convert(ImportSettings(src=src, out=tmp_path / "out"))
    convert(ImportSettings(src=src, out=tmp_path / "out", format=f"{__name__}:Renamed"))
    assert len(open_dataset(tmp_path / "out").episodes) == len(open_dataset(src, f"{__name__}:Renamed").episodes)
    with pytest.raises(UserError, match=r"must be a subclass of worldloom\.data\.episode\.EpisodeSource"):
        convert(ImportSettings(src=src, out=tmp_path / "other", format=f"{__name__}:Path"))
    assert not (tmp_path / "other").exists()
