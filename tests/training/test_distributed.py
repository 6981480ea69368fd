"""Two processes of torchrun learn what one learns from the same global batches, and evaluate it together."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSettings
from tests.training.certain_command import mean
from tests.training.test_resume import assert_same_end
from worldloom.nets.latent import Categorical
from worldloom.runs.checkpoint import Checkpoint
from worldloom.training.session import run_training

ROOT = Path(__file__).parents[2]


# The two phases of "latent" have objectives of their own: DDP must average the gradients of both.
@pytest.mark.parametrize("family", ["rssm", "latent"])
def test_two_processes_reach_the_loss_of_one(
    toy_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr(Categorical, "sample", mean)
    # Windows of 16 rows from episodes of 3 to 24: the two halves of a batch hold different amounts of padding.
    common = {"family": family, "batch_size": 6, "length": 16, "preview_every": 4, "checkpoint_every": 4}
    changes: dict[str, Any] = {**common, "steps": 8, "lr": 1e-3}
    one, two = toy_settings(out=tmp_path / "one", **changes), toy_settings(out=tmp_path / "two", **changes)
    run_training(one)
    torchrun(2, *two.resume_line().split()[1:-1])
    for ours, theirs in zip(losses(one.out), losses(two.out), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    single, both = Checkpoint.read(one.out), Checkpoint.read(two.out)
    for name, tensor in single.model.items():
        if not name.endswith("running"):  # each process keeps its own half's
            torch.testing.assert_close(both.model[name], tensor, rtol=1e-3, atol=3e-4)
    assert both.progress["loader"] == single.progress["loader"]
    assert {f"random/cpu/{rank}" for rank in (0, 1)} <= both.trainer.keys()
    assert (two.out / "summary.json").exists()


def test_two_processes_resume_in_the_second_phase(toy_settings: MakeSettings, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"family": "latent", "average": 0.5, "checkpoint_every": 1, "keep": 9}
    whole, cut = (toy_settings(out=tmp_path / name, **changes) for name in ("whole", "cut"))
    torchrun(2, *whole.resume_line().split()[1:-1])
    shutil.copytree(whole.out, cut.out)
    for step in (5, 6):
        shutil.rmtree(cut.out / "checkpoints" / f"step-{step:08d}")
    torchrun(2, *cut.resume_line().split()[1:])
    assert_same_end(whole.out, cut.out)


def losses(run: Path) -> list[float]:
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [record["loss"] if "loss" in record else record["held_out_loss"] for record in records]


def torchrun(processes: int, *words: str) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*launcher, "-m", "tests.training.certain_command", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
