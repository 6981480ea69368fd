"""A mission that an environment tells as a text reaches whoever learns while acting, and an unseen one is unknown."""

from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldloom.agents.reference import RandomAgent
from worldloom.data.episode_file import load_episode, save_episode
from worldloom.data.replay import Replay
from worldloom.envs.adapt import adapt
from worldloom.envs.describe import describe
from worldloom.learning.collect import collect
from worldloom.learning.loop import with_tasks

MISSIONS = ("press left", "press right", "wait")


class Told(gymnasium.Env[Any, Any]):
    """Six steps of noise, and a mission that the seed decides."""

    metadata: ClassVar[dict[str, Any]] = {"render_fps": 10}  # type: ignore[misc]
    observation_space = spaces.Dict({"state": spaces.Box(-1, 1, (2,)), "mission": spaces.Text(20)})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.step_count, self.mission = 0, MISSIONS[int(self.np_random.integers(len(MISSIONS)))]
        return self._look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.step_count += 1
        return self._look(), 0.0, self.step_count == 6, False, {}

    def _look(self) -> dict[str, Any]:
        return {"state": self.np_random.uniform(-1, 1, 2).astype(np.float32), "mission": self.mission}


def test_missions_are_found_told_and_kept(tmp_path: Path) -> None:
    env = adapt(Told(), "told")
    spec = with_tasks(describe(env), env)
    assert spec.obs["task"].names == MISSIONS
    assert spec.obs["task"].role == "given"
    replay = Replay(spec, batch_size=16, length=4, seed=0)
    told = []
    for seed in range(8):
        (episode,) = collect(RandomAgent(spec), [env], [seed])
        save_episode(tmp_path / "episode.safetensors", episode)
        kept = load_episode(tmp_path / "episode.safetensors")
        assert kept.task == episode.task
        told.append(kept.task)
        replay.add(kept)
    segment = next(replay)
    names = {MISSIONS[int(row.argmax())] for row in segment.obs["task"][:, 0]}
    assert names <= set(told)
    assert len(names) > 1
    assert bool((segment.obs["task"].sum(-1) == 1).all())


def test_a_mission_that_was_not_seen_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    env = adapt(Told(), "told")
    spec = with_tasks(describe(env), env)
    replay = Replay(spec, batch_size=4, length=4, seed=0)
    (episode,) = collect(RandomAgent(spec), [env], [1])
    episode.task = "sing"
    replay.add(episode)
    assert not next(replay).obs["task"].any()
    assert "3 language tasks in 64 episodes" in capsys.readouterr().err


def test_an_environment_without_a_text_has_no_tasks() -> None:
    env = adapt(Told(), "told")
    env._text = None  # as where the observation holds none
    assert "task" not in with_tasks(describe(env), env).keys
