"""`worldloom record`: every finished episode is kept whatever happens, and the dataset is what was played."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from worldloom.commands.record import RecordSettings, record
from worldloom.data import durable
from worldloom.data.episode import Episode
from worldloom.data.source import open_dataset
from worldloom.envs.options import parse_options
from worldloom.errors import UserError

COUNTER, SLOW, FRAGILE = (f"tests.envs.fakes:{name}" for name in ("make_counter", "Slow", "Fragile"))


def episodes_of(path: Path) -> list[Episode]:
    source = open_dataset(path)
    return [source.read(index) for index in range(len(source.episodes))]


def drawn(path: Path) -> list[int]:
    """The number that each episode's seed drew, which tells episodes apart."""
    return [int(episode.obs["state"][0, 1]) for episode in episodes_of(path)]


def start_recording(out: Path, *more: str) -> subprocess.Popen[str]:
    """A recording in a process of its own, as in a terminal, once at least two episodes are finished."""
    command = "import sys; from worldloom.cli import main; main()"
    arguments = ["record", SLOW, str(out), "--episodes", "1000", "--num-envs", "2", "--image-size", "20", *more]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 60
    while len(list((out / ".journal").glob("0*.parquet"))) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "no episode was finished in a minute"
        time.sleep(0.05)
    return process


def test_a_recording_reads_back_as_it_was_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(
        RecordSettings(
            env=COUNTER, out=tmp_path / "out", episodes=3, num_envs=2, image_size=20, seed=1, license="CC0-1.0"
        )
    )
    source = open_dataset(tmp_path / "out")
    assert source.spec.action.names == ("rest", "one", "two")
    assert source.spec.fps == 10
    assert source.spec.has_end
    assert source.about["license"] == "CC0-1.0"
    assert "make_counter" in source.about["origin"]
    for episode in episodes_of(tmp_path / "out"):
        moved = episode.action.argmax(1)[:-1]
        assert np.array_equal(np.diff(episode.obs["state"][:, 0]), moved)
        assert np.array_equal(episode.reward, [0, *moved])
        assert np.array_equal(episode.obs["image"][:, 0, 0, 0], episode.obs["state"][:, 0])
        assert episode.terminated.tolist() == [False] * len(moved) + [True]
        assert episode.action[-1].tolist() == [0, 0, 0]
        assert episode.extra["success"].tolist() == [False] * len(moved) + [True]
        assert episode.task == "count"
    assert "3 episodes" in capsys.readouterr().out


def test_a_seed_gives_the_same_dataset_for_any_number_of_environments(tmp_path: Path) -> None:
    """Byte by byte, whichever episode finished first: a held-out split is then the same too."""
    found = []
    for num_envs in (1, 2):
        folder = tmp_path / str(num_envs)
        record(RecordSettings(env="tests.envs.fakes:Uneven", out=folder, episodes=4, num_envs=num_envs, image_size=20))
        found.append({file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()})
    assert len(set(drawn(tmp_path / "1"))) == 4
    assert found[0] == found[1]


def test_the_same_command_again_records_what_is_missing_and_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for episodes in (2, 5, 5):
        record(RecordSettings(env=COUNTER, out=tmp_path, episodes=episodes, num_envs=1, image_size=20))
    assert "already holds 5 episodes" in capsys.readouterr().out
    assert len(set(drawn(tmp_path))) == 5


def test_a_number_of_steps_finishes_the_episodes_that_were_begun(tmp_path: Path) -> None:
    record(RecordSettings(env=COUNTER, out=tmp_path, steps=50, num_envs=2, image_size=20))
    episodes = episodes_of(tmp_path)
    assert 50 <= sum(len(episode) - 1 for episode in episodes) < 50 + 3 * 60
    assert all(episode.terminated[-1] for episode in episodes)
    held = len(episodes)
    record(RecordSettings(env=COUNTER, out=tmp_path, steps=50, num_envs=2, image_size=20))
    assert len(open_dataset(tmp_path).episodes) == held


def test_episodes_can_be_cut_and_played_by_ones_own_policy(tmp_path: Path) -> None:
    policy = "tests.envs.fakes:always_two"
    record(
        RecordSettings(
            env=COUNTER, out=tmp_path, episodes=1, num_envs=1, image_size=20, policy=policy, max_episode_steps=4
        )
    )
    (episode,) = episodes_of(tmp_path)
    assert episode.obs["state"][:, 0].tolist() == [0, 2, 4, 6, 8]
    assert (episode.truncated[-1], episode.terminated.any()) == (True, False)


def test_options_reach_the_environment(tmp_path: Path) -> None:
    record(RecordSettings(env=COUNTER, out=tmp_path, episodes=1, num_envs=1, image_size=20, options=("goal=3",)))
    assert episodes_of(tmp_path)[0].obs["state"][-1, 0] in (3, 4)
    assert parse_options(("a=true", "b=3", "c=text", "d=x=y")) == {"a": True, "b": 3, "c": "text", "d": "x=y"}
    with pytest.raises(UserError, match="name=value"):
        parse_options(("pixels",))


def test_ctrl_c_keeps_every_finished_episode_and_says_how_many(tmp_path: Path) -> None:
    process = start_recording(tmp_path / "out")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    held = len(open_dataset(tmp_path / "out").episodes)
    assert process.returncode == 130
    assert held >= 2
    assert f"holds {held} episodes" in out
    assert "Traceback" not in err
    assert not (tmp_path / "out" / ".journal").exists()


def test_kill_9_keeps_every_finished_episode_and_the_recording_goes_on(tmp_path: Path) -> None:
    process = start_recording(tmp_path)
    process.kill()
    process.communicate()
    held = len(list((tmp_path / ".journal").glob("0*.parquet")))
    assert len(open_dataset(tmp_path).episodes) == held >= 2
    record(RecordSettings(env=SLOW, out=tmp_path, episodes=held + 2, num_envs=1, image_size=20))
    assert len(set(drawn(tmp_path))) == held + 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise", r"crashed while playing episode \d+ .*RuntimeError: the wheel fell off .*fakes\.py, line \d+"),
        ("die", "was killed by SIGKILL while playing episode"),
        ("nan", r"'state' in row 3, entry 1 is nan.*while playing episode"),
    ],
)
def test_a_failing_environment_is_named_and_the_finished_episodes_are_kept(
    fault: str, words: str, tmp_path: Path
) -> None:
    options = (f"fault={fault}",)
    policy = "tests.envs.fakes:always_two"
    with pytest.raises(UserError, match=words):
        record(
            RecordSettings(
                env=FRAGILE,
                out=tmp_path,
                episodes=50,
                num_envs=1,
                image_size=20,
                options=options,
                policy=policy,
                seed=3,
            )
        )
    numbers = drawn(tmp_path)
    assert numbers
    assert all(number % 2 == 0 for number in numbers), "only the episodes that went well"


def test_an_action_outside_the_space_is_the_policys_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"policy 'tests.envs.fakes:outside' returned 7, .*Discrete\(3\)"):
        record(
            RecordSettings(env=COUNTER, out=tmp_path / "out", episodes=1, num_envs=1, policy="tests.envs.fakes:outside")
        )


def test_a_full_disk_keeps_the_episodes_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, renamed = durable.rename, []

    def full_after_three(source: Path, target: Path) -> None:
        renamed.append(target)
        if target.suffix == ".parquet" and len([t for t in renamed if t.suffix == ".parquet"]) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        rename(source, target)

    monkeypatch.setattr(durable, "rename", full_after_three)
    with pytest.raises(UserError, match="disk is full"):
        record(RecordSettings(env=COUNTER, out=tmp_path, episodes=50, num_envs=1, image_size=20))
    monkeypatch.undo()
    assert len(open_dataset(tmp_path).episodes) == 3
    record(RecordSettings(env=COUNTER, out=tmp_path, episodes=5, num_envs=1, image_size=20))
    assert len(set(drawn(tmp_path))) == 5


@pytest.mark.parametrize(
    ("env", "changes", "words"),
    [
        ("dom", {}, "Did you mean 'doom'"),
        (COUNTER, {"options": ("gaol=3",)}, "Did you mean 'goal'"),
        (COUNTER, {"policy": "randm"}, "Did you mean 'random'"),
        (COUNTER, {"episodes": None}, "--episodes N or --steps N"),
        (COUNTER, {"steps": 5}, "--episodes N or --steps N"),
        (COUNTER, {"episodes": 0}, "must be 1 or more"),
        (COUNTER, {"num_envs": 0}, "--num-envs is 0"),
        (COUNTER, {"max_episode_steps": 0}, "--max-episode-steps is 0"),
        (COUNTER, {"image_size": -1}, "must be at least 0"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing_behind(
    env: str, changes: dict[str, object], words: str, tmp_path: Path
) -> None:
    request = {"episodes": 1, "num_envs": 1, **changes}
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        record(RecordSettings(env=env, out=tmp_path / "out", **request))  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_take_a_dataset_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear diary")
    (tmp_path / "file").write_text("x")
    record(RecordSettings(env=COUNTER, out=tmp_path / "other", episodes=1, num_envs=1, image_size=24))
    for name, words in (("notes", r"diary\.txt"), ("file", "is a file")):
        with pytest.raises(UserError, match=words):
            record(
                RecordSettings(env="dom", out=tmp_path / name, episodes=2, num_envs=1)
            )  # said before the environment is looked at
    for name, words in (("file/out", "file"), ("other", "image")):
        with pytest.raises(UserError, match=words):
            record(RecordSettings(env=COUNTER, out=tmp_path / name, episodes=2, num_envs=1, image_size=20))
    assert [p.name for p in (tmp_path / "notes").iterdir()] == ["diary.txt"]
    assert len(open_dataset(tmp_path / "other").episodes) == 1
