"""What the planning benchmarks claim of themselves: equal sizes, honest peers, a simulator that is the world."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch


@pytest.fixture
def planning(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("planning")


@pytest.fixture
def driver(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("planning_driver")


def test_both_sides_of_the_cem_work_step_networks_of_the_same_shape(planning: ModuleType, driver: ModuleType) -> None:
    ours, theirs = ([tuple(p.shape) for p in m.LatentMLP().parameters()] for m in (planning, driver))
    assert ours == theirs
    assert planning.used(planning.LatentMLP()) == 465_088


def test_our_model_is_of_the_size_that_tdmpc2_calls_five_millions(planning: ModuleType) -> None:
    agent, obs = planning.tdmpc2("fp32")
    assert 4.9e6 < planning.used(agent.model) < 5.1e6
    assert agent.model.decode(agent.model.start(obs), "value").abs() > 0  # nothing is left at zero, so scores differ


@pytest.mark.parametrize("work", ["tdmpc2", "cem"])
def test_an_absent_peer_is_a_row_without_a_value_that_says_how_to_point_at_it(planning: ModuleType, work: str) -> None:
    (row,) = planning.peer(work, "plan", "fp32", 1)
    assert row.value is None
    assert f"set {planning.PEERS[work].variable}=PYTHON:CHECKOUT" in row.source


def test_the_peers_figure_is_the_median_of_its_last_line(
    planning: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "driver.py").write_text(
        "import json, sys\nprint('noise')\n"
        "print(json.dumps({'cpu_ms': [9.0, 7.0, 8.0], 'parameters': 5, 'library': ' '.join(sys.argv[1:])}))\n"
    )
    monkeypatch.setattr(planning, "DRIVER", tmp_path / "driver.py")
    monkeypatch.setenv(planning.PEERS["tdmpc2"].variable, f"{sys.executable}:{tmp_path}")
    row, parameters = planning.peer("tdmpc2", "plan", "fp32", 3)
    assert (row.value, parameters.value) == (8.0, 5)
    assert row.source == f"nicklashansen/tdmpc2, tdmpc2 {tmp_path} fp32 3"


@pytest.mark.parametrize(
    "name", ["cartpole-swingup", "reacher-easy", "ball_in_cup-catch", "finger-spin", "walker-walk"]
)
def test_the_simulator_foresees_the_reward_that_the_world_gives(
    benchmark: Callable[[str], ModuleType], name: str
) -> None:
    suite = pytest.importorskip("dm_control.suite")
    ceiling = benchmark("simulator_ceiling")
    task, random = ceiling.TASKS[name], np.random.default_rng(0)
    env = suite.load(task.domain, task.name, task_kwargs={"random": 0})
    env.reset()
    model = ceiling.Simulator(env, task)
    for _ in range(5):
        action = random.uniform(-1, 1, model.spec.action.size)
        foreseen = model.predict(model.now(), torch.tensor(action)[None])
        earned = sum(env.step(action).reward for _ in range(task.repeat))
        assert torch.allclose(foreseen.physics, model.now().physics, atol=1e-6)
        # The walker's speed is read one physics step early.
        assert float(foreseen.reward) == pytest.approx(earned, abs=0.1 if name == "walker-walk" else 1e-6)
