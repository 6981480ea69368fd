"""A run that was stopped in any way and resumed ends with the same numbers as one that never stopped (CPU)."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import MakeSettings
from tests.toy import write_toy_dataset
from worldloom.errors import UserError
from worldloom.runs.checkpoint import Checkpoint, steps_saved
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.session import run_training

ROOT = Path(__file__).parents[2]


def assert_same_end(one: Path, two: Path) -> None:
    """Every tensor of weights, optimiser and random state is the same bit for bit, and so is the place in the data."""
    a, b = Checkpoint.read(one), Checkpoint.read(two)
    assert a.step == b.step
    for ours, theirs in ((a.model, b.model), (a.trainer, b.trainer)):
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert a.progress["loader"] == b.progress["loader"]
    assert a.progress["held_out_loss"] == b.progress["held_out_loss"]


def logged(run: Path) -> list[int]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [record["step"] for record in map(json.loads, lines) if "loss" in record]


def test_a_run_killed_at_a_random_step_and_resumed_ends_with_the_same_weights(
    toy_settings: MakeSettings, tmp_path: Path
) -> None:
    # The model samples, and previews and held-out losses sample in between: all of it must leave no trace.
    changes = {"steps": 60, "checkpoint_every": 7, "preview_every": 5, "overrides": ("noise=0.1",)}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_training(toy_settings(out=whole, **changes))
    settings = toy_settings(out=killed, **changes)
    at = random.randrange(1, 45)
    kill_after(settings, at)
    assert not steps_saved(killed) or steps_saved(killed)[-1] < 60, f"killed at {at}, but it had ended"
    run_training(toy_settings(out=killed, resume=True, **changes))
    assert_same_end(whole, killed)
    assert logged(killed) == logged(whole) == list(range(1, 61))


def kill_after(settings: TrainSettings, step: int) -> None:
    """Train in another process and kill it with SIGKILL as soon as it has logged `step`."""
    words = settings.resume_line().split()[2:-1]
    command = [sys.executable, "-m", "tests.training.toy_command", "train", *words]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    log = settings.out / "log.jsonl"
    try:
        while process.poll() is None and not (log.exists() and f'"step": {step},' in log.read_text()):
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the training ended before it could be killed"


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_a_run_continued_for_longer_equals_one_that_was_long_from_the_start(
    toy_settings: MakeSettings, tmp_path: Path, stop: int
) -> None:
    # Without decay, because the schedule depends on where the end is.
    changes = {"final_lr": 1.0, "overrides": ("noise=0.1",)}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_training(toy_settings(out=whole, steps=9, **changes))
    run_training(toy_settings(out=parts, steps=stop, **changes))
    run_training(toy_settings(out=parts, steps=9, resume=True, **changes))
    assert_same_end(whole, parts)
    assert logged(parts) == logged(whole)


def test_the_sampling_rssm_continues_bit_for_bit(toy_settings: MakeSettings, tmp_path: Path) -> None:
    changes = {"family": "rssm", "final_lr": 1.0, "preview_every": 2, "precision": "bf16"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_training(toy_settings(out=whole, steps=4, **changes))
    run_training(toy_settings(out=parts, steps=1, **changes))
    run_training(toy_settings(out=parts, steps=4, resume=True, **changes))
    assert_same_end(whole, parts)


def test_a_run_killed_before_its_first_checkpoint_starts_again(toy_settings: MakeSettings, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_training(toy_settings(out=whole))
    run_training(toy_settings(out=parts, steps=1))
    for path in (parts / "checkpoints").iterdir():
        path.rename(path.with_name(".partial-" + path.name))
    run_training(toy_settings(out=parts, resume=True))
    assert_same_end(whole, parts)
    assert not list((parts / "checkpoints").glob(".*"))


def test_a_finished_run_can_be_resumed_without_learning_more(toy_settings: MakeSettings) -> None:
    settings = toy_settings()
    run_training(settings)
    before = Checkpoint.read(settings.out)
    run_training(toy_settings(resume=True))
    assert Checkpoint.read(settings.out).hash == before.hash


def test_a_changed_pace_is_announced_and_kept(toy_settings: MakeSettings, capsys: pytest.CaptureFixture[str]) -> None:
    run_training(toy_settings(steps=2))
    run_training(toy_settings(steps=4, lr=1e-4, resume=True))
    assert "--lr 0.0001 from here on, --lr 0.003 before" in capsys.readouterr().out
    assert json.loads((toy_settings().out / "run.json").read_text())["settings"]["lr"] == 1e-4


def test_other_settings_are_refused_and_leave_the_run_alone(toy_settings: MakeSettings) -> None:
    run_training(toy_settings(steps=2))
    described = (toy_settings().out / "run.json").read_bytes()
    with pytest.raises(UserError, match="was started with --batch-size 4 and cannot continue with --batch-size 8"):
        run_training(toy_settings(batch_size=8, resume=True))
    assert (toy_settings().out / "run.json").read_bytes() == described


def test_data_that_changed_are_refused(toy_settings: MakeSettings, tmp_path: Path) -> None:
    data = write_toy_dataset(tmp_path / "data", episodes=4, length=16)
    run_training(toy_settings(data=(data,), steps=2))
    write_toy_dataset(data, episodes=1, length=16, seed=5)
    with pytest.raises(UserError, match="has changed since this run began"):
        run_training(toy_settings(data=(data,), resume=True))


def test_a_broken_last_checkpoint_names_the_one_to_go_back_to(toy_settings: MakeSettings) -> None:
    settings = toy_settings(steps=4)
    run_training(settings)
    broken = settings.out / "checkpoints" / "step-00000004"
    (broken / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="goes on from step 2"):
        run_training(toy_settings(steps=4, resume=True))
    for path in broken.iterdir():
        path.unlink()
    broken.rmdir()
    run_training(toy_settings(steps=4, resume=True))
    assert steps_saved(settings.out) == [2, 4]
