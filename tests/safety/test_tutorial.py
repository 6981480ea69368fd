"""The tutorial's Python is Python: it runs as written, on a model trained for a moment."""

import re
from pathlib import Path

import pytest
import torch

from worldloom.agents.play import play
from worldloom.commands.record import RecordSettings, record
from worldloom.envs import make_env
from worldloom.runs.train_settings import TrainSettings
from worldloom.safety.decision_log import read_log
from worldloom.training.session import run_training

PAGE = Path(__file__).parents[2] / "docs" / "shield.md"


def test_the_tutorial_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    record(
        RecordSettings(
            env="point", out=Path("data/point"), episodes=180, num_envs=1, max_episode_steps=12, options=("goal=false",)
        )
    )
    run_training(
        TrainSettings("mlp", (Path("data/point"),), Path("runs/point"), "debug", steps=60, length=12, held_out=0.6)
    )
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    play(names["shield"], lambda: make_env("point"), [0, 1], num_envs=2, max_steps=5)  # type: ignore[arg-type]
    assert len(read_log(Path("runs/point/shield.jsonl"))) == 10
