"""An environment whose action mixes choices and numbers: recorded, inspected, trained on, evaluated and planned in."""

import json
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldloom.agents.actor import Actor
from worldloom.commands.evaluate import EvaluateSettings, evaluate
from worldloom.commands.plan import PlanSettings, plan
from worldloom.commands.record import RecordSettings, record
from worldloom.data.card.figures import data_card
from worldloom.data.source import open_dataset
from worldloom.errors import UserError
from worldloom.runs.train_settings import TrainSettings
from worldloom.training.session import run_training


class Crane(gymnasium.Env[Any, Any]):
    """A load that is moved by a number and gripped by a choice; it refuses what is not in its own space."""

    metadata: ClassVar[dict[str, Any]] = {"render_fps": 10}  # type: ignore[misc]
    observation_space = spaces.Box(-10, 10, (2,), np.float32)
    action_space = spaces.Dict({"grip": spaces.MultiDiscrete([3, 2]), "move": spaces.Box(-1, 1, (1,), np.float64)})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(-1, 1, 2), 0
        return self.place.astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.steps += 1
        self.place = 0.9 * self.place + [0.1 * action["move"][0], 0.1 * (action["grip"][0] - 1)]
        return self.place.astype(np.float32), -float(np.abs(self.place).sum()), False, self.steps == 12, {}


def test_from_recording_to_planning(tmp_path: Path) -> None:
    env, data, run = "tests.commands.test_mixed_actions:Crane", tmp_path / "data", tmp_path / "run"
    record(RecordSettings(env=env, out=data, episodes=6, num_envs=1))
    source = open_dataset(data)
    assert [(group.name, group.kind, group.size) for group in source.spec.action.groups] == [
        ("grip_0", "discrete", 3), ("grip_1", "discrete", 2), ("move", "continuous", 1)
    ]  # fmt: skip
    done = source.read(0).action[:-1]
    assert (done[:, :3].sum(1) == 1).all()
    assert (done[:, 3:5].sum(1) == 1).all()
    assert data_card(source).readable == 6
    small: dict[str, Any] = {"steps": 10, "batch_size": 4, "length": 8, "held_out": 0.4, "preview_every": 0}
    run_training(TrainSettings("mlp", (data,), run, "debug", **small))
    evaluate(EvaluateSettings(run=run, context=3, horizons=(1, 3), windows=8))
    search: dict[str, Any] = {"horizon": 3, "samples": 16, "iterations": 2, "settings": ("elites=4",)}
    plan(PlanSettings(run=run, env=env, planner="cem", episodes=1, video=False, out=tmp_path / "plan", **search))
    assert "return" in (tmp_path / "plan" / "score.json").read_text()
    assert json.loads((run / "card.json").read_text())["metrics"]["controllability"]["state@3"]["value"] is not None
    with pytest.raises(UserError, match="this action mixes both: plan in the model instead"):
        Actor(4, source.spec.action, units=8, layers=1)
