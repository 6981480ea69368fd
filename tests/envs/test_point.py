"""The point robot: its forces, its mass, its obstacles, and what a user can get wrong."""

import numpy as np
import pytest

from worldloom.envs import make_env
from worldloom.envs.point import OBSTACLES, clearance
from worldloom.errors import UserError


def drive(steps: int = 10, **options: float) -> np.ndarray:
    """The state after pushing right from the first start."""
    env = make_env("point", **options)
    obs, _ = env.reset(seed=3)
    start = obs["state"]
    for _ in range(steps):
        obs, *_ = env.step(np.array([1, 0], np.float32))
    return obs["state"] - start


def test_twice_the_mass_moves_half_as_far_at_first() -> None:
    light, heavy = drive(1, friction=0.0), drive(1, friction=0.0, mass=2.0)
    np.testing.assert_allclose(light[:2], 2 * heavy[:2], rtol=1e-4)


def test_friction_slows_the_robot() -> None:
    assert drive(friction=2.0)[2] < drive(friction=0.5)[2] < drive(friction=0.0)[2]


def test_there_is_a_cost_inside_an_obstacle_and_only_there() -> None:
    env = make_env("point")
    obs, _ = env.reset(seed=0)
    costs = []
    for _ in range(200):
        place, velocity = obs["state"][:2], obs["state"][2:]
        push = np.clip(2 * (np.array(OBSTACLES[0][:2]) - place) - velocity, -1, 1).astype(np.float32)
        obs, _, terminated, truncated, info = env.step(push)
        assert info["cost"] == float(clearance(obs["state"][:2]) < 0)
        assert not terminated
        costs.append(info["cost"])
    assert truncated
    assert 0 < sum(costs) < 200


def test_a_reached_goal_pays_one_and_moves() -> None:
    env = make_env("point")
    obs, _ = env.reset(seed=0)
    for _ in range(200):
        goal = obs["goal"]
        push = np.clip(2 * (goal - obs["state"][:2]) - obs["state"][2:], -1, 1).astype(np.float32)
        obs, reward, *_ = env.step(push)
        if not np.array_equal(goal, obs["goal"]):
            assert reward > 1
            return
    raise AssertionError("no goal was reached in an episode of driving to it")


@pytest.mark.parametrize(
    "options",
    [{"mass": 0.0}, {"friction": -1.0}, {"friction": 20.0}, {"max_steps": 0}, {"state": False, "goal": False}],
)
def test_a_world_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="point"):
        make_env("point", **options)
