"""The tutorial's Python is Python: it runs as written, on a model trained for a moment."""

import re
from pathlib import Path

import pytest
import torch

from worldloom.agents.environment import to_obs
from worldloom.commands.record import RecordSettings, record
from worldloom.envs import make_env
from worldloom.envs.describe import describe
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.session import run_training

PAGE = Path(__file__).parents[2] / "docs" / "plan.md"


def test_the_tutorial_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    record(
        RecordSettings(env="gym:Pendulum-v1", out=Path("data/pendulum"), episodes=6, num_envs=1, max_episode_steps=12)
    )
    run_training(TrainSettings("rssm", (Path("data/pendulum"),), Path("runs/cartpole"), "debug", steps=5, length=8))
    env = make_env("gym:Pendulum-v1")
    obs = to_obs([env.reset(seed=0)[0]], describe(env))
    names: dict[str, object] = {"obs": obs, "next_obs": obs}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    plan = names["plan"]
    assert plan.actions.shape == (1, 15, 1)  # type: ignore[attr-defined]
    assert bool(plan.found.all())  # type: ignore[attr-defined]
