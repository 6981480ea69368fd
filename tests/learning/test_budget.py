"""An episode never keeps a run from its end, and an ordinary one is never cut short for it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from tests.learning.test_learn import both, settings, start
from worldloom.data.episode_file import load_episode
from worldloom.learning.budget import LONG, longest_episode, longest_evaluation
from worldloom.learning.settings import TDMPCSettings
from worldloom.runs.checkpoint import load


class Endless(gymnasium.Env[Any, Any]):
    """A number that wanders about for ever."""

    metadata: dict[str, Any] = {"render_fps": 10}  # noqa: RUF012, as gymnasium declares it
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.look(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.look(), float(action[0]), False, False, {}

    def look(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


def endless() -> gymnasium.Env:
    return Endless()


@both
@pytest.mark.parametrize("num_envs", [1, 3])
def test_an_environment_without_an_end_keeps_the_budget_and_is_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, num_envs: int
) -> None:
    start(settings(tmp_path, f"{__name__}:endless", method, max_episode_steps=None, num_envs=num_envs))
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    evaluations = [record["evaluation"] for record in records if "evaluation" in record]
    decisions = [evaluation["decisions"] for evaluation in evaluations]
    assert 120 <= decisions[-1] < 120 + num_envs
    assert load(tmp_path)[1].step == decisions[-1], "the random steps are not the whole run"
    assert all(e["truncated"] == 2 and set(e["lengths"]) == {120} for e in evaluations)
    assert "2 of them truncated at 120 decisions (--max-episode-steps)" in " ".join(capsys.readouterr().out.split())
    episodes = [load_episode(path) for path in sorted((tmp_path / "replay").iterdir())]
    assert sum(len(episode) - 1 for episode in episodes) == decisions[-1]
    assert all(episode.truncated[-1] and not episode.terminated.any() for episode in episodes)


ASKED = TDMPCSettings(env="dmc:cartpole-swingup", out=Path("run"))


@pytest.mark.parametrize("num_envs", [1, 4])
def test_ordinary_episodes_are_truncated_by_the_end_of_the_budget_alone(num_envs: int) -> None:
    asked = replace(ASKED, num_envs=num_envs)
    for decisions in range(0, asked.steps - 2 * LONG * num_envs, 250):
        assert longest_episode(asked, decisions) >= LONG
    assert longest_evaluation(asked) == asked.eval_every
    assert longest_episode(asked, asked.steps - num_envs) == 1


def test_nothing_that_is_due_is_delayed_by_more_than_a_long_episode() -> None:
    for asked in (ASKED, replace(ASKED, steps=5000), replace(ASKED, steps=3000, eval_every=500)):
        decisions, ends = 0, []
        while decisions < asked.steps:
            decisions += longest_episode(asked, decisions)
            ends.append(decisions)
        assert ends[-1] == asked.steps
        assert ends[0] == asked.random_steps, "no more random steps than asked for"
        assert np.diff(ends).max() <= max(asked.eval_every, LONG)


def test_what_is_asked_for_stands() -> None:
    asked = replace(ASKED, max_episode_steps=7)
    assert longest_episode(asked, 0) == longest_evaluation(asked) == 7
    assert longest_episode(asked, asked.steps - 3) == 3
