import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.fakes import FakeSource
from worldloom.data import cache_build
from worldloom.data.cache import CachedDataset, cache_source
from worldloom.data.episode import BrokenEpisode, Episode
from worldloom.data.spec import ActionSpec
from worldloom.errors import UserError


@pytest.fixture
def made(tmp_path: Path) -> CachedDataset:
    return cache_source(FakeSource([5, 7, 4], tasks=["lift", "push"]), (8, 8), cache_dir=tmp_path)


def test_every_row_comes_back_as_it_was_written(made: CachedDataset) -> None:
    assert made.lengths.tolist() == [5, 7, 4]
    for episode, rows in enumerate([5, 7, 4]):
        segment = made.segment(episode)
        assert segment.shape == (1, rows)
        assert segment.obs["image"].dtype == torch.uint8
        assert segment.obs["image"][0, :, 0, 0, 0].tolist() == [episode] * rows
        assert segment.obs["image"][0, :, 1, 3, 3].tolist() == list(range(rows))
        assert segment.obs["state"][0, :, 1].tolist() == list(range(rows))
        assert segment.reward[0].tolist() == list(range(rows))
        assert segment.terminated[0].tolist() == [False] * (rows - 1) + [True]
        assert not segment.truncated.any()
        assert segment.mask.all()


def test_actions_are_scaled_by_their_declared_range_and_padding_is_zero(made: CachedDataset) -> None:
    action = made.segment(1).action[0]
    assert torch.allclose(action[:-1, 0], torch.arange(6) / 200)
    assert torch.allclose(action[:-1, 1], torch.full((6,), -0.98))
    assert action[-1].tolist() == [0, 0]


def test_a_window_past_the_end_is_padded_and_masked(made: CachedDataset) -> None:
    segment = made.segment(2, start=2, length=5)
    assert segment.mask[0].tolist() == [True, True, False, False, False]
    assert segment.obs["state"][0, :, 1].tolist() == [2, 3, 3, 3, 3]
    assert segment.terminated[0].tolist() == [False, True, False, False, False]
    assert segment.reward[0, 2:].abs().sum() == 0
    assert segment.action[0, 1:].abs().sum() == 0


def test_tasks_are_one_hot_only_when_there_are_several(made: CachedDataset, tmp_path: Path) -> None:
    assert made.spec.obs["task"].names == ("lift", "push")
    assert made.segment(1).obs["task"][0, 0].tolist() == [0, 1]
    assert [made.task(e) for e in range(3)] == ["lift", "push", "lift"]
    alone = cache_source(FakeSource([5], tasks=["lift"]), (8, 8), cache_dir=tmp_path)
    assert "task" not in alone.spec.obs
    assert "task" not in alone.segment(0).obs


def test_a_task_keeps_its_meaning_under_a_wider_spec(made: CachedDataset) -> None:
    names = ("fold", "push", "lift")
    task = replace(made.spec.obs["task"], shape=(3,), names=names)
    wider = made.with_spec(made.spec.with_obs({**made.spec.obs, "task": task}))
    assert wider.segment(1).obs["task"][0, 0].tolist() == [0, 1, 0]
    narrower = made.spec.with_obs({**made.spec.obs, "task": replace(task, shape=(1,), names=("lift",))})
    with pytest.raises(UserError, match="push"):
        made.with_spec(narrower)


def test_fit_uses_only_the_given_episodes_and_survives_constants(made: CachedDataset) -> None:
    key = made.fit([0, 1]).obs["state"]
    assert key.mean is not None
    assert key.std is not None
    rows = np.array([[0, t, 5] for t in range(5)] + [[1, t, 5] for t in range(7)])
    assert np.allclose(key.mean, rows.mean(0))
    assert np.allclose(key.std[:2], rows.std(0)[:2])
    assert key.std[2] == 1.0
    assert made.fit([2]).obs["state"].mean[0] == 2.0  # type: ignore[index]


def test_an_undeclared_action_range_is_that_of_the_training_episodes_without_padding(tmp_path: Path) -> None:
    source = FakeSource([5, 7, 4], action=ActionSpec("continuous", 2))
    dataset = cache_source(source, (8, 8), cache_dir=tmp_path)
    action = dataset.fit([1, 2]).action
    assert np.allclose(action.low, [0, 1])  # type: ignore[arg-type]
    assert np.allclose(action.high, [0.5, 2])  # type: ignore[arg-type]
    scaled = dataset.with_spec(dataset.fit([1, 2])).segment(1).action[0]
    assert torch.allclose(scaled[:-1, 0], torch.linspace(-1, 1, 6))


def test_a_declared_action_range_is_kept(made: CachedDataset) -> None:
    assert made.fit([0]).action == made.spec.action


def test_the_second_opening_decodes_nothing_and_other_sizes_are_other_caches(tmp_path: Path) -> None:
    source = FakeSource([5, 7])
    first = cache_source(source, (8, 8), cache_dir=tmp_path)
    again = cache_source(source, (8, 8), cache_dir=tmp_path)
    assert source.reads == 2
    assert again.folder == first.folder
    assert cache_source(source, (4, 6), cache_dir=tmp_path).images["image"].shape == (12, 3, 4, 6)
    assert cache_source(source, None, cache_dir=tmp_path).folder != first.folder
    assert source.reads == 6


def test_changed_data_are_decoded_again(tmp_path: Path) -> None:
    cache_source(FakeSource([5, 7]), (8, 8), cache_dir=tmp_path)
    changed = FakeSource([5, 8])
    assert cache_source(changed, (8, 8), cache_dir=tmp_path).lengths.tolist() == [5, 8]


def test_a_broken_episode_stops_unless_it_may_be_skipped(tmp_path: Path) -> None:
    source = FakeSource([5, 7, 4], broken=[1])
    with pytest.raises(BrokenEpisode, match=r"episode 1: fake.mp4, row 3.*--skip-broken"):
        cache_source(source, (8, 8), cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    dataset = cache_source(source, (8, 8), cache_dir=tmp_path, skip_broken=True)
    assert [index for index, _ in dataset.skipped] == [1]
    assert "fake.mp4, row 3" in dataset.skipped[0][1]
    assert dataset.source_index.tolist() == [0, 2]
    assert dataset.segment(1).obs["image"][0, 0, 0, 0, 0] == 2


def test_a_cache_made_with_skipping_does_not_hide_broken_episodes_later(tmp_path: Path) -> None:
    source = FakeSource([5, 7, 4], broken=[1])
    cache_source(source, (8, 8), cache_dir=tmp_path, skip_broken=True)
    with pytest.raises(BrokenEpisode, match="--skip-broken"):
        cache_source(source, (8, 8), cache_dir=tmp_path)


def test_nothing_readable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no readable episode.*fake.mp4"):
        cache_source(FakeSource([5], broken=[0]), (8, 8), cache_dir=tmp_path, skip_broken=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: e.obs["state"].__setitem__((2, 1), np.nan), r"episode 0: .*, state, row 2: entry 1 is nan"),
        (lambda e: e.action.__setitem__((1, 0), np.inf), r"action, row 1: entry 0 is inf"),
        (lambda e: e.obs.update(image=e.obs["image"][:-1]), r"image: shape \(4, 3, 8, 8\), expected \(5, 3, 8, 8\)"),
        (lambda e: e.obs.update(image=e.obs["image"].astype(np.float32)), "image: dtype float32, expected uint8"),
        (lambda e: e.obs.pop("state"), "the observation 'state' is missing"),
        (lambda e: e.obs.update(stat=e.obs["state"]), "unknown observation key .* Did you mean 'state'"),
        (lambda e: e.truncated.__setitem__(-1, True), "row 4: both terminated and truncated"),
        (lambda e: e.terminated.__setitem__(1, True), "row 1: terminated before the last row"),
        (lambda e: e.action.__setitem__((1, 0), 30), r"row 1: action\[0\] is 30.0, outside the declared range"),
    ],
)
def test_an_episode_unlike_its_spec_is_broken(tmp_path: Path, spoil: Callable[[Episode], Any], message: str) -> None:
    class Spoiled(FakeSource):
        def read(self, index: int, image_size: tuple[int, int] | None = None) -> Episode:
            episode = super().read(index, image_size)
            spoil(episode)
            return episode

    with pytest.raises(BrokenEpisode, match=message):
        cache_source(Spoiled([5]), (8, 8), cache_dir=tmp_path)


def test_further_signals_are_kept(tmp_path: Path) -> None:
    dataset = cache_source(FakeSource([6, 5], extra=True), (8, 8), cache_dir=tmp_path)
    assert dataset.column("extra.success", 0)[:, 0].tolist() == [0, 0, 0, 0, 1, 1]


def test_discrete_actions_stay_one_hot(tmp_path: Path) -> None:
    source = FakeSource([6], action=ActionSpec("discrete", 3, names=("a", "b", "c")))
    action = cache_source(source, (8, 8), cache_dir=tmp_path).segment(0).action[0]
    assert action.argmax(1)[:-1].tolist() == [0, 1, 2, 0, 1]
    assert action.sum(1).tolist() == [1, 1, 1, 1, 1, 0]


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_build._ArrayFile, "append", full)
    with pytest.raises(UserError, match=r"No space left.*WORLDLOOM_CACHE"):
        cache_source(FakeSource([5]), (8, 8), cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_noticed_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_build.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    source = FakeSource([5])
    with pytest.raises(UserError, match="GB are free"):
        cache_source(source, (8, 8), cache_dir=tmp_path)
    assert source.reads == 0


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the cache"):
        cache_source(FakeSource([5]), (8, 8), cache_dir=tmp_path / "file" / "cache")


def test_a_damaged_cache_says_what_to_delete(made: CachedDataset) -> None:
    (made.folder / "table.npy").write_bytes((made.folder / "table.npy").read_bytes()[:-8])
    with pytest.raises(UserError, match="Delete it"):
        CachedDataset.load(made.folder, made.path)


SLOW = """
import sys, time
from pathlib import Path
from tests.data.fakes import FakeSource
from worldloom.data.cache_build import build, cache_folder
class Slow(FakeSource):
    def read(self, index, image_size=None):
        print(index, flush=True)
        time.sleep(float(sys.argv[2]))
        return super().read(index, image_size)
    def fingerprint(self):
        return "f00d"
source = Slow([5] * 4)
build(source, cache_folder(source, (8, 8), Path(sys.argv[1])), (8, 8), skip_broken=False)
"""


def _start(cache_dir: Path, seconds: float) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(cache_dir), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
    )


def test_a_killed_build_is_never_read_and_is_cleared_away(tmp_path: Path) -> None:
    process = _start(tmp_path, 60)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(cache_build.BUILDING)
    old = time.time() - 1000
    os.utime(left, (old, old))
    dataset = cache_source(FakeSource([5, 6]), (8, 8), cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == [dataset.folder]


def test_two_processes_may_build_the_same_cache(tmp_path: Path) -> None:
    processes = [_start(tmp_path, 0.05) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "meta.json").read_text())["lengths"] == [5] * 4


@pytest.mark.parametrize("episode", [-1, 3])
def test_an_unknown_episode_is_refused(made: CachedDataset, episode: int) -> None:
    with pytest.raises(UserError, match=f"unknown episode {episode}"):
        made.segment(episode)
    with pytest.raises(UserError, match=f"unknown episode {episode}"):
        made.fit([episode])


def test_no_episodes_and_rows_outside_are_refused(made: CachedDataset) -> None:
    with pytest.raises(UserError, match="no episodes"):
        made.fit([])
    with pytest.raises(UserError, match=r"rows 0\.\.4"):
        made.segment(0, start=5)


def test_a_file_where_the_cache_should_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match=r"cannot write the cache .* set WORLDLOOM_CACHE"):
        cache_source(FakeSource([5]), cache_dir=tmp_path / "cache")
