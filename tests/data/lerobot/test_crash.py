"""Finished episodes survive: a crash after any single file operation, kill -9 at a random instant, a full disk."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.data.recorded import LEAN, SPEC, assert_same, make_episode, record
from worldloom.data import durable
from worldloom.data.episode import Episode
from worldloom.data.lerobot.fold import recover
from worldloom.data.lerobot.writer import FileLimits, LeRobotWriter
from worldloom.data.source import open_dataset
from worldloom.data.spec import DataSpec, KeySpec
from worldloom.errors import UserError

# A simulated crash loses nothing that was written, so the simulations need not wait for the disk.
quick = pytest.mark.usefixtures("no_fsync")
OPERATIONS = ("sync", "rename", "remove", "remove_folder", "make_folder")


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Crash(BaseException):
    """The process is gone: from here on no file operation happens, not even those of clean-up code."""


@contextmanager
def crash_at(step: int) -> Iterator[list[int]]:
    """Let `step` file operations happen and no more. Yields a one-element list: the operations asked for."""
    count = [0]
    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(durable, name, stopping(getattr(durable, name), step, count))
        yield count


def stopping(operation: Callable[..., None], step: int, count: list[int]) -> Callable[..., None]:
    def run(*arguments: Any) -> None:
        count[0] += 1
        if count[0] > step:
            raise Crash
        operation(*arguments)

    return run


def session(path: Path, episodes: list[Episode], spec: DataSpec, saved: list[int]) -> None:
    """Two recordings into one folder, each episode in a file of its own; `saved` counts what `add` promised."""
    for part in (episodes[:2], episodes[2:]):
        with LeRobotWriter(path, spec, limits=FileLimits(0, 0, 2)) as writer:
            for episode in part:
                writer.add(episode)
                saved[0] += 1


def assert_saved(path: Path, episodes: list[Episode], at_least: int, lossy: tuple[str, ...] = ()) -> None:
    """A prefix of the episodes is there, at least as many as were promised, and nothing else lies around."""
    if not path.exists() or not any(p.is_file() and p.suffix in (".json", ".parquet") for p in path.rglob("*")):
        assert at_least == 0
        return
    if at_least == 0:
        recover(path)
        if not (path / "meta/info.json").exists():
            return
    source = open_dataset(path, "lerobot")
    assert at_least <= len(source.episodes) <= len(episodes)
    for index in range(len(source.episodes)):
        assert_same(source.read(index), episodes[index], lossy)
    assert not list(path.rglob("*.tmp"))
    assert not (path / ".journal").exists()
    files = len({(r["data/chunk_index"], r["data/file_index"]) for r in source._rows})
    assert len(list(path.glob("data/*/*.parquet"))) == len(list(path.glob("meta/episodes/*/*.parquet"))) == files


def crash_states(folder: Path, run: Callable[[], None], saved: list[int]) -> list[tuple[Path, int]]:
    """Run once and copy `folder` before every file operation: what a crash at that instant would leave, and how many
    episodes were saved by then.
    """
    states: list[tuple[Path, int]] = []

    def watching(operation: Callable[..., None]) -> Callable[..., None]:
        def watched(*arguments: Any) -> None:
            states.append((folder.with_name(f"state {len(states)}"), saved[0]))
            if folder.exists():
                shutil.copytree(folder, states[-1][0])
            operation(*arguments)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(durable, name, watching(getattr(durable, name)))
        run()
    return states


@quick
def test_a_crash_after_any_file_operation_loses_no_finished_episode(tmp_path: Path) -> None:
    episodes = [make_episode(LEAN, 3 + i, i, f"task {i % 2}") for i in range(3)]
    path, saved = tmp_path / "data", [0]
    states = crash_states(path, lambda: session(path, episodes, LEAN, saved), saved)
    assert len(states) > 60
    assert {at_least for _, at_least in states} == {0, 1, 2, 3}
    for state, at_least in states:
        assert_saved(state, episodes, at_least)


@quick
def test_a_crash_during_recovery_is_recovered_from(tmp_path: Path) -> None:
    """Wherever the first recovery stopped, and wherever the second one then stops too."""
    path, episodes = tmp_path / "data", [make_episode(LEAN, 3 + i, i) for i in range(3)]
    interrupted(path, LEAN, episodes)
    states = crash_states(path, lambda: recover(path), [3])
    assert len(states) > 30
    for step, (state, _) in list(enumerate(states))[::2]:
        with crash_at((7 * step) % len(states)), suppress(Crash):
            recover(state)
        assert_saved(state, episodes, 3)


@quick
def test_crashes_with_video_lose_nothing_either(tmp_path: Path) -> None:
    spec = LEAN.with_obs({"left": KeySpec("image", (3, 16, 16))})
    path, episodes = tmp_path / "data", [make_episode(spec, 2 + i, i) for i in range(2)]
    interrupted(path, spec, episodes, lossless=False)
    for state, _ in crash_states(path, lambda: recover(path), [2])[::2]:
        assert_saved(state, episodes, 2, lossy=("left",))


def interrupted(path: Path, spec: DataSpec, episodes: list[Episode], lossless: bool | None = None) -> None:
    """Leave the folder as a recording that died before it was closed."""
    writer = LeRobotWriter(path, spec, limits=FileLimits(0, 0), lossless=lossless)
    for episode in episodes:
        writer.add(episode)
    writer._release()


RECORDER = """
import sys
from pathlib import Path
from tests.data.recorded import SPEC, make_episode
from worldloom.data.lerobot.writer import LeRobotWriter, FileLimits

with LeRobotWriter(Path(sys.argv[1]), SPEC, limits=FileLimits(0, 0)) as writer:
    print(writer.num_episodes, flush=True)
    for _ in range(int(sys.argv[2])):
        index = writer.num_episodes
        writer.add(make_episode(SPEC, 2 + index % 3, index))
        print(writer.num_episodes, flush=True)
"""


def test_kill_9_at_any_instant_keeps_every_episode_that_was_reported(tmp_path: Path) -> None:
    """The same folder is recorded into twice, and each recorder is killed, the second one while it closes."""
    path, saved, rng = tmp_path / "data", 0, random.Random(0)
    for episodes in (30, 4):
        command = [sys.executable, "-c", RECORDER, str(path), str(episodes)]
        root = Path(__file__).resolve().parents[3]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
            assert process.stdout is not None
            assert int(process.stdout.readline()) >= saved
            for _ in range(4 if episodes == 4 else rng.randint(2, 9)):
                saved = int(process.stdout.readline())
            with suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
    source = open_dataset(path)
    assert len(source.episodes) >= saved >= 6
    for index in range(len(source.episodes)):
        assert_same(source.read(index), make_episode(SPEC, 2 + index % 3, index), lossy=("front",))
    assert not (path / ".journal").exists()


@contextmanager
def full_disk(after: int) -> Iterator[None]:
    """Every attempt to make a file durable fails after so many: what a full disk does to a write."""
    real, count = durable.sync, [0]

    def sync(path: Path) -> None:
        count[0] += 1
        if count[0] > after and path.is_file():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "sync", sync)
        yield


@pytest.mark.parametrize(("spec", "lossy"), [(LEAN, ()), (SPEC, ("front",))])
def test_a_disk_that_fills_up_keeps_what_was_saved(tmp_path: Path, spec: DataSpec, lossy: tuple[str, ...]) -> None:
    path, episodes = tmp_path / "data", [make_episode(spec, 4, i) for i in range(3)]
    with LeRobotWriter(path, spec) as writer:
        writer.add(episodes[0])
        writer.add(episodes[1])
        with (
            full_disk(after=0),
            pytest.raises(UserError, match=r"disk is full. The 2 episodes before .* Free \d+ MB"),
        ):
            writer.add(episodes[2])
        assert not list(path.rglob("*.tmp"))
        assert writer.num_episodes == 2
    assert_saved(path, episodes[:2], 2, lossy)


@pytest.mark.parametrize("after", range(0, 14, 2))
def test_a_disk_that_fills_up_while_closing_keeps_the_journal(tmp_path: Path, after: int) -> None:
    path, episodes = tmp_path / "data", [make_episode(LEAN, 4, i) for i in range(3)]
    interrupted(path, LEAN, episodes)
    with (
        full_disk(after),
        pytest.raises(UserError, match=r"disk is full. Every finished episode is safe.* Free \d+ MB"),
    ):
        recover(path)
    assert not list(path.rglob("*.tmp"))
    assert_saved(path, episodes, 3)


def test_a_folder_being_recorded_is_not_touched_by_readers_or_a_second_writer(tmp_path: Path) -> None:
    path = tmp_path / "data"
    written = record(path)
    with LeRobotWriter(path, LEAN) as writer:
        writer.add(written[0])
        assert len(open_dataset(path).episodes) == 3
        with pytest.raises(UserError, match="another process is recording"):
            LeRobotWriter(path, LEAN)
        writer.add(written[1])
    assert len(open_dataset(path).episodes) == 5


def test_a_first_recording_that_is_still_running_cannot_be_read_yet(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path / "data", LEAN) as writer:
        writer.add(make_episode(LEAN, 3))
        with pytest.raises(UserError, match="no episode has been finished"):
            open_dataset(tmp_path / "data")


def test_an_unreadable_journal_entry_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    path, episodes = tmp_path / "data", [make_episode(LEAN, 4, i) for i in range(3)]
    interrupted(path, LEAN, episodes)
    damaged = path / ".journal/000001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(UserError, match=r"000001\.parquet: this finished episode cannot be read.*Delete"):
        open_dataset(path)
    damaged.unlink()
    assert_saved(path, [episodes[0], episodes[2]], 2)
